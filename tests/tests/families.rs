//! Every family against `transformers`: `tests/golden/families` holds small random checkpoints and
//! their logits.

use pith_format::Encoding;
use pith_runtime::{KvType, Session, SessionOptions};
use pith_tests::{all_logits, convert_all, difference, exact_session, golden, read_npy};
use std::path::PathBuf;
use std::sync::Arc;

fn folders(gguf: bool) -> Vec<PathBuf> {
    let mut folders: Vec<_> = std::fs::read_dir(golden().join("families"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("logits.npy").exists() && path.join("model.gguf").exists() == gguf)
        .collect();
    folders.sort();
    folders
}

fn tokens() -> Vec<u32> {
    let text = std::fs::read_to_string(golden().join("families/tokens.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Converts to F32 and compares the logits of the recorded tokens. Returns the relative difference.
fn compare(source: &std::path::Path, logits: &std::path::Path) -> f32 {
    let ((rows, _), expected) = read_npy(logits);
    let tokens = &tokens()[..rows];
    let converted = convert_all(source, Encoding::F32);
    let model = converted.open();
    let mut session = exact_session(&model, rows);
    let found = all_logits(&mut session, tokens);
    let (worst, largest) = difference(&found, &expected);
    // Token by token gives the same as the whole prompt.
    session.reset();
    let vocab_len = model.config().vocab_len;
    for (index, &token) in tokens.iter().enumerate() {
        let (step, _) = difference(session.step(token).unwrap(), &found[index * vocab_len..][..vocab_len]);
        assert!(step <= 1e-4 * largest, "{}: token {index} alone differs by {step}", source.display());
    }
    worst / largest
}

#[test]
fn hugging_face_checkpoints_give_the_logits_of_transformers() {
    let folders = folders(false);
    assert!(folders.len() >= 20, "{} folders", folders.len());
    for folder in folders {
        let relative = compare(&folder, &folder.join("logits.npy"));
        println!("{:<24} {relative:.1e}", folder.file_name().unwrap().to_string_lossy());
        // f32 rounding stays far below; confusing the two forms of GELU costs 1.5e-4 of the largest
        // logit.
        assert!(relative <= 1e-4, "{}: {relative:e}", folder.display());
    }
}

#[test]
fn gguf_files_give_the_logits_of_transformers() {
    let folders = folders(true);
    assert!(folders.len() >= 10, "{} folders", folders.len());
    for folder in folders {
        let relative = compare(&folder.join("model.gguf"), &folder.join("logits.npy"));
        println!("{:<24} {relative:.1e}", folder.file_name().unwrap().to_string_lossy());
        assert!(relative <= 1e-4, "{}: {relative:e}", folder.display());
    }
}

#[test]
fn short_sessions_use_the_short_rotary_factors() {
    let folder = golden().join("families/phi3_longrope");
    let relative = compare(&folder, &folder.join("logits_short.npy"));
    assert!(relative <= 1e-4, "{relative:e}");
}

#[test]
fn a_half_precision_cache_stays_within_a_thousandth() {
    for folder in folders(false) {
        let ((rows, _), expected) = read_npy(&folder.join("logits.npy"));
        let model = convert_all(&folder, Encoding::F32).open();
        let options = SessionOptions {
            context_len: Some(rows),
            kv_type: KvType::F16,
            threads: Some(1),
            ..SessionOptions::default()
        };
        let mut session = Session::new(Arc::clone(&model), options).unwrap();
        let (worst, largest) = difference(&all_logits(&mut session, &tokens()[..rows]), &expected);
        assert!(worst <= 1e-3 * largest, "{}: {worst} of {largest}", folder.display());
    }
}
