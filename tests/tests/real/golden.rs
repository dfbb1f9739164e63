//! Golden values of one model, and its source.

use pith_converter::{ConvertOptions, Report, convert};
use pith_tests::{Converted, Greedy, golden};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `tests/golden/real/NAME.json`.
#[derive(Debug, Deserialize)]
pub struct Golden {
    #[serde(skip)]
    name: &'static str,
    source: Source,
    /// Of each matrix the [`pith_format::checksum`] of its decoded values, in hexadecimal.
    pub matrices: BTreeMap<String, String>,
    pub logits: Vec<Prompt>,
    pub greedy: Vec<Greedy>,
    /// Empty for a file without a template.
    pub chat: Vec<Chat>,
    /// The ids of each of [`strings`].
    pub tokens: Vec<Vec<u32>>,
    /// The text of all but the last of these ids.
    pub decoded_but_last: Vec<String>,
}

/// The file that the values were made from.
#[derive(Debug, Deserialize)]
struct Source {
    bytes: u64,
    xxh3_64: String,
}

/// A prompt, and the exact logits after some of its tokens.
#[derive(Debug, Deserialize)]
pub struct Prompt {
    pub name: String,
    pub ids: Vec<u32>,
    /// How far the oracle's own logits move when its activations are rounded to 8 bits, in the mean
    /// of the positions: divergence, and square root of the mean square of the difference of
    /// log-probabilities.
    pub rounded_kl: f64,
    pub rounded_rms: f64,
    pub positions: Vec<Position>,
}

/// The logits after the token at `index`: the largest, and what the softmax divides by.
#[derive(Debug, Deserialize)]
pub struct Position {
    pub index: usize,
    pub log_sum_exp: f64,
    pub ids: Vec<u32>,
    pub logits: Vec<f64>,
}

/// A conversation and the prompt that its template makes.
#[derive(Debug, Deserialize)]
pub struct Chat {
    pub messages: Vec<BTreeMap<String, String>>,
    pub text: String,
    pub ids: Vec<u32>,
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = golden().join("real").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The strings that [`Golden::tokens`] encodes.
pub fn strings() -> Vec<String> {
    read("strings")
}

impl Golden {
    pub fn read(name: &'static str) -> Self {
        Self { name, ..read(name) }
    }

    /// The GGUF file. Panics if it is absent or another one.
    pub fn source(&self) -> PathBuf {
        let folder = std::env::var_os("PITH_REAL_MODELS").expect("PITH_REAL_MODELS names a folder of models");
        let path = Path::new(&folder).join(format!("{}.gguf", self.name));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let found = (bytes.len() as u64, format!("{:016x}", pith_format::checksum(&bytes)));
        assert_eq!(found, (self.source.bytes, self.source.xxh3_64.clone()), "{}", path.display());
        path
    }

    /// The source as a conversion without options stores it.
    pub fn carried(&self) -> (Converted, Report) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.pith");
        let report = convert(&self.source(), &path, &ConvertOptions::default(), &()).unwrap();
        (Converted { path, folder }, report)
    }

    /// Bytes of the source.
    pub fn source_bytes(&self) -> u64 {
        self.source.bytes
    }
}
