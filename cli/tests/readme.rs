//! README's first command, as a newcomer gives it.

use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_first_command_of_the_readme_converts_the_embedded_model_and_lets_it_speak() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let block = readme.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(block.matches("cargo run --release -- ").count(), 2, "{block}");
    // The built program stands for cargo, an empty folder for the clone.
    let folder = tempfile::tempdir().unwrap();
    let script = block
        .replace("cargo run --release -- ", "\"$PITH\" ")
        .replace("models/wren", root.join("models/wren").to_str().unwrap());
    let output = Command::new("sh")
        .args(["-c", &script])
        .env("PITH", env!("CARGO_BIN_EXE_pith"))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let story = text.split("Question: Tell me a story about a heron.\nAnswer:").nth(1).expect(&text);
    assert!(story.split_whitespace().count() > 5, "{text}");
    assert!(errors.contains("tokens/s"), "{errors}");
}
