//! Every ignored test with a requirement is run by name in `.ci/run`. An ignored test that writes
//! golden files is a tool to run by hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Rust files of the workspace's crates, without build outputs.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Names of the functions whose `ignore` attribute states a requirement.
fn ignored_tests(text: &str, place: &Path) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut names = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if !line.starts_with("#[ignore") || line.starts_with("#[ignore = \"writes ") {
            continue;
        }
        assert!(line.starts_with("#[ignore = \"needs "), "{}: {line} does not say its need", place.display());
        let function = lines[index..].iter().find_map(|line| line.strip_prefix("fn ")).unwrap();
        names.push(function.split('(').next().unwrap().to_string());
    }
    names
}

#[test]
fn ignored_tests_are_named_in_ci() {
    let script = fs::read_to_string(root().join(".ci/run")).unwrap();
    let words: BTreeSet<&str> = script.split_whitespace().collect();
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let mut count = 0;
    for file in files {
        for name in ignored_tests(&fs::read_to_string(&file).unwrap(), &file) {
            count += 1;
            assert!(words.contains(name.as_str()), "{}: .ci/run does not name {name}", file.display());
        }
    }
    assert!(count > 0, "the sources were not found");
}

#[test]
fn a_test_is_found_by_its_attribute() {
    let attribute = ["#", "[ignore = \"needs x\"]"].concat();
    let text = format!("#[test]\n    {attribute}\n    fn one() {{\n    }}\n#[test]\nfn other() {{}}\n");
    assert_eq!(ignored_tests(&text, Path::new("x.rs")), ["one"]);
}
