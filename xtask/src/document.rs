//! Text between markers in a Markdown file; the prose around them stays.

use anyhow::Context;
use pith_format::ReplaceOptions;
use std::path::Path;

/// Puts `text` between the markers of `section`; creates the file and the section if missing.
pub fn write_section(path: &Path, section: &str, title: &str, text: &str) -> anyhow::Result<()> {
    let old = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::from("# Performance\n"),
        old => old.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let new = replace(&old, section, title, text).with_context(|| format!("in {}", path.display()))?;
    write(path, &new)
}

/// Writes a file atomically; creates its folder.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(pith_format::replace(path, text.as_bytes(), ReplaceOptions::FORCE)?)
}

fn replace(old: &str, section: &str, title: &str, text: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- begin {section} -->"), format!("<!-- end {section} -->"));
    let filled = format!("{begin}\n{}\n{end}", text.trim_end());
    match (old.find(&begin), old.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            Ok(format!("{}{filled}{}", &old[..from], &old[to + end.len()..]))
        }
        (None, None) => Ok(format!("{}\n\n## {title}\n\n{filled}\n", old.trim_end())),
        _ => anyhow::bail!("the markers {begin:?} and {end:?} do not stand in this order, once each"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_around_a_section_stays() {
        let first = replace("# P\n\nbefore\n", "a", "Title", "old\n").unwrap();
        assert_eq!(first, "# P\n\nbefore\n\n## Title\n\n<!-- begin a -->\nold\n<!-- end a -->\n");
        let more = first + "\nafter\n";
        let second = replace(&more, "a", "Other", "new").unwrap();
        assert_eq!(second, "# P\n\nbefore\n\n## Title\n\n<!-- begin a -->\nnew\n<!-- end a -->\n\nafter\n");
    }

    #[test]
    fn half_a_pair_of_markers_is_an_error() {
        let error = replace("<!-- end a -->\n<!-- begin a -->\n", "a", "T", "x").unwrap_err();
        assert!(error.to_string().contains("begin a"), "{error}");
        assert!(replace("<!-- begin a -->\n", "a", "T", "x").is_err());
    }

    #[test]
    fn files_are_made_with_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/page.md");
        write_section(&path, "a", "Title", "text").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# Performance\n\n## Title\n"), "{text}");
    }
}
