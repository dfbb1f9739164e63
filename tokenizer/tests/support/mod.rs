//! Shared data, golden files and a reader of GGUF metadata for tests.

use std::path::{Path, PathBuf};

use pith_tokenizer::Tokenizer;
use pith_tokenizer::source::GgufVocab;
use serde_json::Value;

/// A file or folder of the public data for ignored tests: below `PITH_SHARED`, or in a folder
/// `shared` beside the repository. Panics where it is absent.
#[allow(dead_code)]
pub fn shared(path: &str) -> PathBuf {
    let root = match std::env::var_os("PITH_SHARED") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    let found = root.join(path);
    assert!(found.exists(), "{} is absent; PITH_SHARED names the folder of the data", found.display());
    found
}

/// Compares a tokenizer, and its copy through a blob, with a golden file of `oracle.py`.
///
/// With `decodes`, also compares the oracle's decoded text, where it is exact. `prefix` holds ids
/// that the source adds before a text and the oracle's does not.
#[allow(dead_code)]
pub fn check_golden(name: &str, tokenizer: &Tokenizer, golden: &Path, decodes: bool, prefix: &[u32]) {
    let copy = Tokenizer::from_blob(&tokenizer.to_blob()).unwrap();
    let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 20, "{name}: only {} cases", cases.len());
    for case in cases {
        let text = case[0].as_str().unwrap();
        let ids = |value: &Value| -> Vec<u32> {
            value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        for tokenizer in [tokenizer, &copy] {
            let special = [prefix, &ids(&case[1])].concat();
            assert_eq!(
                tokenizer.encode(text, true).unwrap(),
                special,
                "{name}: {text:?} with special tokens"
            );
            let plain = tokenizer.encode(text, false).unwrap();
            assert_eq!(plain, ids(&case[2]), "{name}: {text:?}");
            let decoded = tokenizer.decode(&plain, false).unwrap();
            if decodes {
                assert_eq!(decoded, case[3].as_str().unwrap(), "{name}: decoding {text:?}");
            }
            let mut stream = tokenizer.stream().skip_special(false);
            let mut streamed: String = plain.iter().filter_map(|id| stream.push(*id)).collect();
            streamed.push_str(&stream.finish());
            assert_eq!(streamed, decoded, "{name}: streaming {text:?}");
        }
    }
}

/// The part of a GGUF file's metadata that its tokenizer needs.
#[allow(dead_code)]
#[derive(Default)]
pub struct Gguf {
    strings: Vec<(String, String)>,
    numbers: Vec<(String, u64)>,
    string_arrays: Vec<(String, Vec<String>)>,
    number_arrays: Vec<(String, Vec<u32>)>,
}

#[allow(dead_code)]
impl Gguf {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = &bytes[8..];
        let mut gguf = Self::default();
        let _tensors = number(&mut rest, 8);
        for _ in 0..number(&mut rest, 8) {
            let key = string(&mut rest);
            match number(&mut rest, 4) {
                8 => gguf.strings.push((key, string(&mut rest))),
                9 => match (number(&mut rest, 4), number(&mut rest, 8)) {
                    (8, count) => {
                        gguf.string_arrays.push((key, (0..count).map(|_| string(&mut rest)).collect()))
                    }
                    (kind, count) => {
                        let values = (0..count).map(|_| number(&mut rest, width(kind)) as u32).collect();
                        gguf.number_arrays.push((key, values));
                    }
                },
                kind => gguf.numbers.push((key, number(&mut rest, width(kind)))),
            }
        }
        gguf
    }

    /// Calls `use_it` with the vocabulary.
    pub fn with_vocab<T>(&self, use_it: impl FnOnce(&GgufVocab<'_>) -> T) -> T {
        let scores: Vec<f32> = self.array("scores").iter().map(|bits| f32::from_bits(*bits)).collect();
        let types: Vec<i32> = self.array("token_type").iter().map(|bits| *bits as i32).collect();
        let number = |name: &str| find(&self.numbers, name).copied();
        let id = |name: &str| number(name).map(|id| id as u32);
        use_it(&GgufVocab {
            model: find(&self.strings, "model").unwrap(),
            pre: find(&self.strings, "pre").map(String::as_str),
            tokens: find(&self.string_arrays, "tokens").unwrap(),
            scores: &scores,
            token_types: &types,
            merges: find(&self.string_arrays, "merges").map_or(&[], Vec::as_slice),
            bos: id("bos_token_id"),
            eos: id("eos_token_id"),
            unk: id("unknown_token_id"),
            add_bos: number("add_bos_token").map(|flag| flag != 0),
            add_eos: number("add_eos_token").map(|flag| flag != 0),
            add_space_prefix: number("add_space_prefix").map(|flag| flag != 0),
            strips_after_special: false,
        })
    }

    fn array(&self, name: &str) -> &[u32] {
        find(&self.number_arrays, name).map_or(&[], Vec::as_slice)
    }
}

fn find<'a, T>(values: &'a [(String, T)], name: &str) -> Option<&'a T> {
    let key = format!("tokenizer.ggml.{name}");
    values.iter().find(|(found, _)| *found == key).map(|(_, value)| value)
}

fn number(rest: &mut &[u8], width: usize) -> u64 {
    let (bytes, after) = rest.split_at(width);
    *rest = after;
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn string(rest: &mut &[u8]) -> String {
    let len = number(rest, 8) as usize;
    let (bytes, after) = rest.split_at(len);
    *rest = after;
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn width(kind: u64) -> usize {
    match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        _ => 8,
    }
}
