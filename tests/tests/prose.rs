//! Lines of prose in the documentation have at most 100 characters.

use std::fs;
use std::path::{Path, PathBuf};

const WIDTH: usize = 100;

/// Folders of outputs and of golden files.
const SKIPPED: [&str; 3] = ["target", "golden", "shared"];

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Numbers of the lines that are too long. Code, tables and generated sections may be wider.
fn long_lines(text: &str) -> Vec<usize> {
    let (mut in_code, mut is_generated, mut found) = (false, false, Vec::new());
    for (index, line) in text.lines().enumerate() {
        in_code ^= line.starts_with("```");
        is_generated = line.starts_with("<!-- begin") || is_generated && !line.starts_with("<!-- end");
        let is_prose = !in_code && !is_generated && !line.trim_start().starts_with('|');
        if is_prose && line.chars().count() > WIDTH {
            found.push(index + 1);
        }
    }
    found
}

#[test]
fn prose_is_wrapped() {
    let mut found = Vec::new();
    pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut found);
    assert!(found.len() > 20, "the pages were not found");
    for page in found {
        let lines = long_lines(&fs::read_to_string(&page).unwrap());
        assert!(lines.is_empty(), "{}: lines {lines:?} have over {WIDTH} characters", page.display());
    }
}

#[test]
fn only_prose_counts() {
    let long = "word ".repeat(30);
    let text =
        format!("{long}\n```\n{long}\n```\n| {long}\n<!-- begin x -->\n{long}\n<!-- end x -->\n{long}\n");
    assert_eq!(long_lines(&text), [1, 9]);
}
