//! `pith tokenize` and `pith detokenize`

use crate::args::{DetokenizeArgs, TokenizeArgs};
use crate::{output, session};
use anyhow::Context;
use pith_tokenizer::Tokenizer;
use serde_json::json;
use std::io::Read;
use std::path::Path;

/// Prints the ids of a text.
pub fn tokenize(args: TokenizeArgs) -> anyhow::Result<()> {
    let tokenizer = open(&args.source)?;
    let text = match (&args.text, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read_text(path)?,
        (None, None) => unreachable!("the command line asks for one"),
    };
    let ids = tokenizer.encode(&text, !args.no_special)?;
    let line = if args.json {
        let pieces: Vec<_> = ids
            .iter()
            .map(|&id| tokenizer.token_bytes(id).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
            .collect();
        format!("{}\n", json!({"ids": ids, "pieces": pieces}))
    } else {
        ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ") + "\n"
    };
    output::print(&line)?;
    Ok(())
}

/// Prints the text of ids, and nothing after it.
pub fn detokenize(args: DetokenizeArgs) -> anyhow::Result<()> {
    let tokenizer = open(&args.source)?;
    let ids = match args.tokens {
        Some(tokens) => parse_ids(&tokens)?,
        None => parse_ids(&read_text(Path::new("-"))?)?,
    };
    output::print(&tokenizer.decode(&ids, args.skip_special)?)?;
    Ok(())
}

/// The tokenizer of a `.pith` file, a checkpoint or a tokenizer file.
fn open(source: &Path) -> anyhow::Result<Tokenizer> {
    let place = || source.display().to_string();
    if source.extension().is_some_and(|extension| extension == "pith") {
        let model = session::open_model(source)?;
        let id = pith_format::TensorId::model(pith_format::Role::Tokenizer);
        let blob = model.index().bytes(model.bytes(), id).with_context(place)?;
        return Tokenizer::from_blob(blob).with_context(place);
    }
    Ok(pith_converter::load_tokenizer(source)?)
}

/// Text of a file, or of standard input for `-`.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Ids separated by white space or commas.
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
