//! Checkpoints under `tests/golden/families`, whole or spoiled, and the files made of them.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use pith_converter::{ConvertError, ConvertOptions, Recipe, Report, convert};
use pith_format::{Encoding, Index, Role, TensorId};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// The folder of golden checkpoints.
pub fn families() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families")
}

/// What to convert of a golden checkpoint: the folder, or the GGUF file in it.
pub fn source(name: &str) -> PathBuf {
    let folder = families().join(name);
    let gguf = folder.join("model.gguf");
    if gguf.exists() { gguf } else { folder }
}

pub fn with(recipe: Recipe) -> ConvertOptions {
    ConvertOptions { recipe, ..ConvertOptions::default() }
}

/// A converted file, kept in memory.
pub struct Converted {
    pub report: Report,
    pub index: Index,
    bytes: Vec<u8>,
}

impl Converted {
    pub fn new(source: &Path, options: &ConvertOptions) -> Result<Self, ConvertError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.pith");
        let report = convert(source, &path, options, &())?;
        let bytes = fs::read(&path).unwrap();
        let index = Index::parse(&bytes).unwrap();
        index.verify(&bytes, |_| {}).unwrap();
        assert_eq!(report.file_bytes, bytes.len() as u64);
        Ok(Self { report, index, bytes })
    }

    pub fn golden(name: &str, encoding: Encoding) -> Self {
        Self::new(&source(name), &with(Recipe::new(encoding))).unwrap()
    }

    pub fn row(&self, id: TensorId, row: usize) -> Vec<f32> {
        let matrix = self.index.matrix(&self.bytes, id).unwrap();
        let mut values = vec![0.0; matrix.cols()];
        matrix.decode_row(row, &mut values);
        values
    }

    /// All values of a matrix.
    pub fn matrix(&self, id: TensorId) -> Vec<f32> {
        let rows = self.index.entry(id).unwrap().rows as usize;
        (0..rows).flat_map(|row| self.row(id, row)).collect()
    }

    pub fn vector(&self, id: TensorId) -> Vec<f32> {
        self.index.vector(&self.bytes, id).unwrap()
    }

    pub fn bytes_of(&self, id: TensorId) -> &[u8] {
        self.index.bytes(&self.bytes, id).unwrap()
    }

    pub fn has(&self, role: Role) -> bool {
        self.index.entry(TensorId::model(role)).is_some()
            || self.index.entry(TensorId::layer(role, 0)).is_some()
    }
}

/// A copy of a golden folder.
pub fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(families().join(name)).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// A copy of a golden folder with values of `config.json` replaced.
pub fn reconfigured(name: &str, over: &Value) -> TempDir {
    let copy = copy(name);
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in over.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(&path, config.to_string()).unwrap();
    copy
}

/// Overwrites the 16-bit value at `index` of a tensor in a folder's `model.safetensors`.
pub fn spoil(folder: &Path, tensor: &str, index: usize, bits: u16) {
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let at = place(&bytes, tensor).start + 2 * index;
    bytes[at..at + 2].copy_from_slice(&bits.to_le_bytes());
    fs::write(&path, bytes).unwrap();
}

/// Gives the tensor `to` in a folder's `model.safetensors` the values of `from`.
pub fn copy_tensor(folder: &Path, from: &str, to: &str) {
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let (from, to) = (place(&bytes, from), place(&bytes, to));
    bytes.copy_within(from, to.start);
    fs::write(&path, bytes).unwrap();
}

/// Gives the tensors of a folder's `model.safetensors` other names, and adds tensors of one f32.
pub fn rename(folder: &Path, name: impl Fn(&str) -> String, more: &[&str]) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let old: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let mut data = bytes[8 + header_bytes..].to_vec();
    let is_tensor = |key: &String| key != "__metadata__";
    let mut header: Map<String, Value> =
        old.into_iter().filter(|(key, _)| is_tensor(key)).map(|(key, value)| (name(&key), value)).collect();
    for tensor in more {
        let from = data.len();
        data.extend(1f32.to_le_bytes());
        let entry = json!({"dtype": "F32", "shape": [1], "data_offsets": [from, from + 4]});
        header.insert(tensor.to_string(), entry);
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(&path, file).unwrap();
}

/// The bytes of a tensor in a safetensors file.
fn place(bytes: &[u8], tensor: &str) -> Range<usize> {
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let offset = |index: usize| header[tensor]["data_offsets"][index].as_u64().unwrap() as usize;
    8 + header_bytes + offset(0)..8 + header_bytes + offset(1)
}
