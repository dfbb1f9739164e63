//! Shared parts of the cross-crate tests: golden files, temporary conversions, the optional public
//! data.
#![forbid(unsafe_code)]

use pith_converter::{ConvertOptions, Recipe, convert};
use pith_format::Encoding;
use pith_runtime::{KvType, Model, Session, SessionOptions};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// `tests/golden`.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The embedded model.
pub fn wren() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/wren")
}

/// A file or folder of the public data for ignored tests: below `PITH_SHARED`, or in a folder
/// `shared` beside the repository. Panics if it is absent.
pub fn shared(path: &str) -> PathBuf {
    let root = match std::env::var_os("PITH_SHARED") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    let found = root.join(path);
    assert!(found.exists(), "{} is absent; PITH_SHARED names the folder of the data", found.display());
    found
}

/// Whether all instructions are emulated, as `.ci/qemu-runner` declares; expensive tests then do
/// less.
pub fn is_emulated() -> bool {
    std::env::var_os("PITH_QEMU_CPU").is_some()
}

/// A converted checkpoint in a temporary folder.
pub struct Converted {
    /// Path of the file.
    pub path: PathBuf,
    /// Removed on drop.
    pub folder: TempDir,
}

impl Converted {
    /// Opens the file.
    pub fn open(&self) -> Arc<Model> {
        Arc::new(Model::open(&self.path).expect("a file just converted opens"))
    }
}

/// Converts with every matrix in `encoding`, embeddings and head too.
pub fn convert_all(source: &Path, encoding: Encoding) -> Converted {
    convert_with(
        source,
        Recipe { embedding: Some(encoding), head: Some(encoding.into()), ..Recipe::new(encoding) },
    )
}

/// Converts into a temporary folder. Panics with the error if the conversion fails.
pub fn convert_with(source: &Path, recipe: Recipe) -> Converted {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.pith");
    let options = ConvertOptions { recipe, ..ConvertOptions::default() };
    convert(source, &path, &options, &()).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    Converted { path, folder }
}

/// A session for comparisons: exact cache, two threads.
pub fn exact_session(model: &Arc<Model>, context_len: usize) -> Session {
    let options = SessionOptions {
        context_len: Some(context_len),
        kv_type: KvType::F32,
        threads: Some(2),
        ..SessionOptions::default()
    };
    Session::new(Arc::clone(model), options).expect("a small session")
}

/// A greedy continuation by `transformers`, as `tests/golden/greedy.py` writes it.
#[derive(Debug, Deserialize)]
pub struct Greedy {
    /// The prompt.
    pub prompt: String,
    /// Its tokens.
    pub prompt_ids: Vec<u32>,
    /// The generated tokens, without the end token.
    pub ids: Vec<u32>,
    /// Their text.
    pub text: String,
}

impl Greedy {
    /// Reads `tests/golden/NAME`.
    pub fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(golden().join(name)).expect("a golden file");
        serde_json::from_str(&text).expect("what greedy.py writes")
    }

    /// Generates as many tokens as `ids` has, with `session`.
    pub fn generate(&self, session: &mut Session) -> Vec<u32> {
        session.reset();
        let mut next = likeliest(session.prefill(&self.prompt_ids).expect("tokens of the vocabulary"));
        let mut ids = vec![next];
        while ids.len() < self.ids.len() {
            next = likeliest(session.step(next).expect("room for one more token"));
            ids.push(next);
        }
        ids
    }
}

/// The token with the largest logit.
pub fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.expect("a vocabulary").0 as u32
}

/// The logits after every token, `tokens × vocabulary`.
pub fn all_logits(session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    let mut rows = Vec::new();
    session.reset();
    session.logits_of(tokens, |_, logits| rows.extend_from_slice(logits)).expect("tokens of the vocabulary");
    rows
}

/// A two-dimensional float32 NumPy file of format 1.0 in C order: its shape and values.
pub fn read_npy(path: &Path) -> ((usize, usize), Vec<f32>) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}", path.display());
    let head_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let head = std::str::from_utf8(&bytes[10..10 + head_len]).expect("an ASCII head");
    assert!(head.contains("'<f4'") && head.contains("'fortran_order': False"), "{head}");
    let shape = head.split(['(', ')']).nth(1).expect("a shape");
    let sizes: Vec<usize> = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    let values: Vec<f32> = bytes[10 + head_len..]
        .chunks_exact(4)
        .map(|value| f32::from_le_bytes(value.try_into().expect("four bytes")))
        .collect();
    assert_eq!(values.len(), sizes[0] * sizes[1]);
    ((sizes[0], sizes[1]), values)
}

/// Largest difference, and largest magnitude of `expected`.
pub fn difference(found: &[f32], expected: &[f32]) -> (f32, f32) {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    (difference, expected.iter().fold(0.0, |largest, value| largest.max(value.abs())))
}
