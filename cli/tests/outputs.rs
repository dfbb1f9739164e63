//! No output of a command replaces one of its inputs, not even with `--force`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A copy of the embedded checkpoint, its .pith file and a text.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("wren");
        fs::create_dir(&checkpoint).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/wren");
        for entry in fs::read_dir(source).unwrap().map(|entry| entry.unwrap()) {
            fs::copy(entry.path(), checkpoint.join(entry.file_name())).unwrap();
        }
        let text = "Question: where is the river? Answer: behind the old mill.\n\n".repeat(20);
        fs::write(folder.path().join("text.txt"), text).unwrap();
        let files = Self { folder };
        assert_eq!(files.run(&["convert", "wren", "m.pith", "--fast", "-q"]), (true, String::new()));
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whether the command succeeded, and its messages.
    fn run(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pith"));
        let command = command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }

    /// The command is refused for the sake of its input, which stays as it is.
    fn refused(&self, input: &str, args: &[&str]) {
        let before = fs::read(self.path(input)).unwrap();
        let (succeeded, message) = self.run(args);
        assert!(!succeeded && message.contains("input"), "{args:?}: {message}");
        assert!(fs::read(self.path(input)).unwrap() == before, "{args:?} changed {input}");
    }
}

#[test]
fn files_of_a_checkpoint_are_kept() {
    let files = Files::new();
    for input in ["wren/model.safetensors", "wren/config.json", "wren/tokenizer.json"] {
        files.refused(input, &["convert", "--force", "wren", input]);
        files.refused(input, &["calibrate", "--force", "wren", "--text", "text.txt", "-o", input]);
        let search = ["search", "--force", "wren", "--text", "text.txt", "--bits-per-weight", "4"];
        files.refused(input, &[&search[..], &["-o", input]].concat());
    }
    let search =
        ["search", "--force", "wren", "--text", "text.txt", "-o", "out.pith", "--bits-per-weight", "4"];
    files.refused("text.txt", &[&search[..], &["--recipe-out", "text.txt"]].concat());
    files.refused("wren/config.json", &[&search[..], &["--frontier", "wren/config.json"]].concat());
}

#[test]
fn a_model_and_its_texts_are_kept() {
    let files = Files::new();
    files.refused("m.pith", &["logits", "m.pith", "--tokens", "1 2", "-o", "m.pith"]);
    fs::hard_link(files.path("m.pith"), files.path("other.pith")).unwrap();
    files.refused("m.pith", &["logits", "m.pith", "--tokens", "1 2", "-o", "other.pith"]);
    for option in ["--ledger", "--metrics"] {
        files.refused("m.pith", &["run", "m.pith", "-n", "2", "--prompt", "Once", option, "m.pith"]);
        files.refused("text.txt", &["run", "m.pith", "-n", "2", "--file", "text.txt", option, "text.txt"]);
    }
    for input in ["m.pith", "text.txt"] {
        let compared = ["eval", "kl", "m.pith", "--text", "text.txt", "--save-reference", input];
        files.refused(input, &compared);
    }
}

#[test]
fn what_is_written_unasked_replaces_only_its_own_kind() {
    let files = Files::new();
    let run = ["run", "m.pith", "-n", "2", "--prompt", "Once", "--no-stats"];
    let logits = ["logits", "m.pith", "--tokens", "1 2"];
    assert!(files.run(&[&run[..], &["--ledger", "ledger.jsonl"]].concat()).0);
    let page = ["report", "ledger.jsonl"];
    let kl = ["eval", "kl", "m.pith", "--text", "text.txt", "-c", "16"];
    fs::copy(files.path("m.pith"), files.path("other.pith")).unwrap();
    for other in ["other.pith", "wren/config.json", "wren/model.safetensors", "text.txt"] {
        let before = fs::read(files.path(other)).unwrap();
        for args in [
            [&run[..], &["--ledger", other]].concat(),
            [&run[..], &["--metrics", other]].concat(),
            [&logits[..], &["-o", other]].concat(),
            [&page[..], &["-o", other]].concat(),
            [&kl[..], &["--save-reference", other]].concat(),
        ] {
            let (succeeded, message) = files.run(&args);
            assert!(!succeeded && message.contains(other), "{args:?}: {message}");
            assert!(fs::read(files.path(other)).unwrap() == before, "{args:?} changed {other}");
        }
    }
    // Twice each: a new file, then one of its kind. An empty file is none of another kind.
    fs::write(files.path("ledger.csv"), "").unwrap();
    for _ in 0..2 {
        for args in [
            [&run[..], &["--ledger", "ledger.jsonl", "--metrics", "pith.prom"]].concat(),
            [&run[..], &["--ledger", "ledger.csv"]].concat(),
            [&logits[..], &["-o", "logits.npy"]].concat(),
            [&page[..], &["-o", "page.html"]].concat(),
        ] {
            let (succeeded, message) = files.run(&args);
            assert!(succeeded, "{args:?}: {message}");
        }
    }
}
