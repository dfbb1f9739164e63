//! `pith search` as a user meets it: what it refuses. What it finds is tested where it is made.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn pith(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pith")).args(args).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn failure(args: &[&str], code: i32) -> String {
    let output = pith(args);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{message}");
    message
}

#[test]
fn wrong_budgets_and_texts_are_said() {
    let wren = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/wren");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (model, output) = (wren.display().to_string(), path("found.pith"));
    let text = wren.join("calibration.txt").display().to_string();
    let base = ["search", &*model, "--text", &*text, "-o", &*output];
    let with = |more: &[&str], code| failure(&[&base[..], more].concat(), code);
    assert!(with(&[], 2).contains("--budget"));
    assert!(with(&["--budget", "350X"], 2).contains("350X"));
    assert!(with(&["--budget", "1MB", "--bits-per-weight", "4"], 2).contains("cannot be used with"));
    assert!(with(&["--budget", "1MB", "--encodings", "q2,q9"], 2).contains("q9"));
    assert!(with(&["--budget", "1MB", "--frontier", "table.txt"], 2).contains(".csv"));
    let other = ["--budget", "3MB", "--profile", "generic"];
    assert!(with(&other, 1).contains("--joules-per-token"));
    let message = with(&["--joules-per-token", "0.1", "--profile", "generic"], 1);
    assert!(message.contains("no model of energy"), "{message}");
    let message = with(&["--budget", "100kB"], 1);
    assert!(message.contains("least possible is") && message.contains("every matrix in q2"), "{message}");
    let short = path("short.txt");
    std::fs::write(
        &short,
        "A short text that fills no window, and is long enough to be read as one. ".repeat(4),
    )
    .unwrap();
    let message = failure(&["search", &model, "--text", &short, "-o", &output, "--budget", "3MB"], 1);
    assert!(message.contains("windows of 256 tokens"), "{message}");
    let message = failure(&["search", "model.pith", "--text", &text, "--budget", "3MB"], 1);
    assert!(message.contains("is a .pith file"), "{message}");
    assert!(!Path::new(&output).exists());
}
