//! Unpacks a recorded tree.

use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// The files of a tree as pairs of path and content.
pub fn files(name: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("boards/tests/trees");
    let text = fs::read_to_string(folder.join(format!("{name}.tree"))).unwrap();
    let mut files = Vec::new();
    for part in format!("\n{text}").split("\n== ").skip(1) {
        let (path, content) = part.split_once('\n').unwrap_or((part, ""));
        let content = content.replace("\\0", "\0");
        let content = if content.ends_with('\n') { content } else { content + "\n" };
        files.extend(expanded(path).into_iter().map(|path| (path, content.clone())));
    }
    files
}

/// A path with `{0-3}` for each number of the range.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_string()] };
    let (range, after) = rest.split_once('}').unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let numbers = first.parse::<usize>().unwrap()..=last.parse().unwrap();
    numbers.map(|number| format!("{before}{number}{after}")).collect()
}

/// A tree as a folder.
pub fn unpack(name: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files(name) {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}
