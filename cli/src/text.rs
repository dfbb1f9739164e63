//! Texts and token ids from the command line.

use anyhow::Context;
use std::io::Read;
use std::path::Path;

/// Reads the text of a file, or of standard input for `-`.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Parses ids separated by white space or commas.
pub fn parse_ids(text: &str) -> anyhow::Result<Vec<u32>> {
    text.split(|c: char| c.is_whitespace() || c == ',')
        .filter(|part| !part.is_empty())
        .enumerate()
        .map(|(index, part)| {
            part.parse().with_context(|| format!("token {index} is \"{part}\", expected an id"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_nonsense_is_named() {
        assert_eq!(parse_ids(" 1,2 \n 3").unwrap(), [1, 2, 3]);
        assert!(parse_ids("").unwrap().is_empty());
        let error = format!("{:#}", parse_ids("1 -2").unwrap_err());
        assert!(error.contains("token 1 is \"-2\""), "{error}");
    }
}
