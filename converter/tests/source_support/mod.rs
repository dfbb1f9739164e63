//! Small checkpoints for the tests, written byte by byte.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

/// A safetensors file: its header as given, then `data`.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// One header entry of a safetensors file.
pub fn entry(dtype: &str, shape: &[u64], from: u64, to: u64) -> serde_json::Value {
    json!({"dtype": dtype, "shape": shape, "data_offsets": [from, to]})
}

/// Little-endian bytes of f32 values.
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A folder with an empty `config.json` and these files.
pub fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// A folder with one file and that file's path.
pub fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// The values 0, 1, 2, … as f32.
pub fn counting(len: usize) -> Vec<f32> {
    (0..len).map(|i| i as f32).collect()
}

/// A GGUF file in the making.
#[derive(Clone)]
pub struct Gguf {
    pub version: u32,
    pub alignment: usize,
    pub keys: Vec<u8>,
    pub key_count: u64,
    pub directory: Vec<u8>,
    pub tensor_count: u64,
    pub data: Vec<u8>,
}

impl Gguf {
    pub fn new() -> Self {
        Self {
            version: 3,
            alignment: 32,
            keys: Vec::new(),
            key_count: 0,
            directory: Vec::new(),
            tensor_count: 0,
            data: Vec::new(),
        }
    }

    /// Adds a key with the bytes of its value.
    pub fn key(mut self, key: &str, value_type: u32, value: &[u8]) -> Self {
        string(&mut self.keys, key.as_bytes());
        self.keys.extend(value_type.to_le_bytes());
        self.keys.extend(value);
        self.key_count += 1;
        self
    }

    pub fn key_u32(self, key: &str, value: u32) -> Self {
        self.key(key, 4, &value.to_le_bytes())
    }

    pub fn key_string(self, key: &str, value: &str) -> Self {
        let mut bytes = Vec::new();
        string(&mut bytes, value.as_bytes());
        self.key(key, 8, &bytes)
    }

    /// Adds an array of `count` elements with the bytes of them all.
    pub fn key_array(self, key: &str, element_type: u32, count: u64, elements: &[u8]) -> Self {
        let mut bytes = element_type.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.extend(elements);
        self.key(key, 9, &bytes)
    }

    /// Adds a directory entry without data; `ne` is innermost first, as in the file.
    pub fn entry(mut self, name: &str, ne: &[u64], type_id: u32, offset: u64) -> Self {
        string(&mut self.directory, name.as_bytes());
        self.directory.extend((ne.len() as u32).to_le_bytes());
        self.directory.extend(ne.iter().flat_map(|n| n.to_le_bytes()));
        self.directory.extend(type_id.to_le_bytes());
        self.directory.extend(offset.to_le_bytes());
        self.tensor_count += 1;
        self
    }

    /// Adds a tensor behind the ones before.
    pub fn tensor(mut self, name: &str, ne: &[u64], type_id: u32, data: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend(data);
        self.entry(name, ne, type_id, offset)
    }

    /// Everything before the data.
    pub fn header(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensor_count.to_le_bytes());
        bytes.extend(self.key_count.to_le_bytes());
        bytes.extend(&self.keys);
        bytes.extend(&self.directory);
        bytes
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        if !self.data.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        }
        bytes.extend(&self.data);
        bytes
    }

    pub fn write(&self, path: &Path) {
        fs::write(path, self.bytes()).unwrap();
    }
}

/// Appends a string as GGUF stores it.
pub fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text);
}

/// Panics unless the result is this error; gives back its message.
#[macro_export]
macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        match $result {
            Err(error) => {
                assert!(matches!(&error, $pattern $(if $guard)?), "another error: {error:?}");
                error.to_string()
            }
            Ok(_) => panic!("no error, expected {}", stringify!($pattern)),
        }
    };
}
