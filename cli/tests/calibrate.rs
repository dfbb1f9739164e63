//! `pith calibrate` as a user meets it.

use pith_converter::statistics::{Site, Statistics};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn wren() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/wren").display().to_string()
}

fn pith(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pith")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A folder with a text of some thousand words.
fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "Question: where is the river? Answer: behind the old mill.\n\n".repeat(400))
        .unwrap();
    let text = text.display().to_string();
    (folder, text)
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

#[test]
fn checkpoints_and_files_give_the_same_statistics() {
    let (folder, text) = folder();
    let (model, from_folder) = (path(folder.path(), "wren.pith"), path(folder.path(), "folder.safetensors"));
    let converted =
        pith(&["convert", &wren(), &model, "-e", "f16", "--embedding", "f16", "--head", "f16", "-q"]);
    assert!(converted.status.success());
    let common = ["--text", &text, "--tokens", "600", "--context", "128", "--hessians", "-t", "2", "--json"];
    let of_file = json(&pith(&[&["calibrate", &model][..], &common].concat()));
    assert_eq!(of_file["output"], path(folder.path(), "wren.calibration.safetensors"));
    assert_eq!((&of_file["tokens"], &of_file["hessians"]), (&600.into(), &true.into()));
    let of_folder = json(&pith(&[&["calibrate", &wren(), "-o", &from_folder][..], &common].concat()));
    assert_eq!(of_file["source_checksum"], of_folder["source_checksum"]);
    assert_eq!(
        names(folder.path()),
        ["folder.safetensors", "text.txt", "wren.calibration.safetensors", "wren.pith"]
    );
    let open = |path: &Value| Statistics::open(&PathBuf::from(path.as_str().unwrap())).unwrap();
    let (file, folder_) = (open(&of_file["output"]), open(&of_folder["output"]));
    for layer in 0..file.info().layers {
        for site in Site::OF_LAYER {
            assert_eq!(file.stats(Some(layer), site).unwrap(), folder_.stats(Some(layer), site).unwrap());
            assert_eq!(file.gram(Some(layer), site).unwrap(), folder_.gram(Some(layer), site).unwrap());
        }
    }
    let again = pith(&[&["calibrate", &model][..], &common].concat());
    let message = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && message.contains("--force overwrites it"), "{message}");
}

#[test]
fn a_model_without_a_text_writes_its_own() {
    let (folder, _) = folder();
    let output = path(folder.path(), "x.safetensors");
    let args = ["calibrate", &wren(), "-o", &output, "--tokens", "128", "--context", "64"];
    let done = pith(&args);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let line = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(line.contains("of 128 tokens in") && line.contains(&output), "{line}");
    assert_eq!(Statistics::open(Path::new(&output)).unwrap().info().text, None);
}

#[test]
fn wrong_wishes_leave_nothing_behind() {
    let (folder, text) = folder();
    let output = path(folder.path(), "x.safetensors");
    let (wren, none) = (wren(), path(folder.path(), "none.txt"));
    for (args, expected) in [
        (vec!["--text", &none], "none.txt"),
        (vec!["--text", &text, "--tokens", "3"], "the number of tokens is 3, expected 32 at least"),
        (vec!["--text", &text, "--memory", "1k"], "1000 are allowed"),
        (vec!["--text", &text, "--context", "10000000"], "the context is 10000000"),
    ] {
        let done = pith(&[vec!["calibrate", &wren, "-o", &output], args].concat());
        let message = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{message}");
        assert!(message.contains(expected), "{expected:?} is not in: {message}");
        assert_eq!(names(folder.path()), ["text.txt"]);
    }
}

/// Files without a name are what makes it so, and Linux has them.
#[cfg(target_os = "linux")]
#[test]
fn a_killed_run_leaves_nothing() {
    let (folder, text) = folder();
    let (model, output) = (path(folder.path(), "wren.pith"), path(folder.path(), "x.safetensors"));
    assert!(pith(&["convert", &wren(), &model, "-e", "f16", "-q"]).status.success());
    let mut child = Command::new(env!("CARGO_BIN_EXE_pith"))
        .args(["calibrate", &model, "--text", &text, "--hessians", "-o", &output, "-t", "1"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Until it has its output open, which has no name yet; the text is long enough for that.
    let files = PathBuf::from(format!("/proc/{}/fd", child.id()));
    let is_open = || {
        let entries = std::fs::read_dir(&files).ok()?;
        let mut targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        targets.find(|target| {
            target.starts_with(folder.path()) && target.to_string_lossy().ends_with("(deleted)")
        })
    };
    let started = std::time::Instant::now();
    while is_open().is_none() {
        assert!(child.try_wait().unwrap().is_none(), "done before it could be killed");
        assert!(started.elapsed().as_secs() < 120, "no output after two minutes");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(folder.path()), ["text.txt", "wren.pith"]);
}
