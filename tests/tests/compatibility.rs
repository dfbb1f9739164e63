//! Files of released versions must open for ever and give the same results.
//!
//! `tests/golden/format/v2/` holds one small file per encoding, kind of layer and kind of
//! tokenizer. `expected.json` holds checksums of their decoded values, `NAME.npy` the logits of the
//! reference kernels with an f32 cache.

#[path = "../golden/format/make.rs"]
mod make;

use pith_format::{Encoding, Index, MAGIC, Sampling, checksum};
use pith_runtime::{KvType, Model, Session, SessionOptions};
use pith_tests::{all_logits, difference, golden, read_npy};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// The expected results of a golden file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Expected {
    /// Checksum of every matrix's and vector's values.
    tensors: BTreeMap<String, String>,
    /// The ids of [`TEXT`], if there is a tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<u32>>,
    /// The recommended sampling, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sampling: Option<Sampling>,
}

/// Merges, spaces, a character of two bytes, one to normalize, added tokens.
const TEXT: &str = "hello world  hello <mask>low é e\u{301} <s>\n";

const TOKEN_COUNT: u32 = 12;

fn folder() -> PathBuf {
    golden().join("format/v2")
}

fn expected() -> BTreeMap<String, Expected> {
    let json = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    serde_json::from_str(&json).unwrap()
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{name}.pith"))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Both ends of the vocabulary, and tokens between.
fn tokens(vocab_len: u32) -> Vec<u32> {
    (0..TOKEN_COUNT).map(|index| if index == 1 { vocab_len - 1 } else { index * 7 % vocab_len }).collect()
}

/// Logits of the reference kernels. They compute in f64 and agree on every machine; with other
/// kernels a difference in a float's last bit could change an 8-bit activation code and the logits.
fn logits(model: Model) -> (usize, Vec<f32>) {
    let options = SessionOptions {
        context_len: Some(TOKEN_COUNT as usize),
        kv_type: KvType::F32,
        threads: Some(1),
        kernels: Some("reference".into()),
        ..SessionOptions::default()
    };
    let vocab_len = model.config().vocab_len;
    let mut session = Session::new(Arc::new(model), options).unwrap();
    (vocab_len, all_logits(&mut session, &tokens(vocab_len as u32)))
}

#[test]
fn every_golden_file_opens_and_decodes_to_the_bit() {
    for (name, expected) in expected() {
        let file = read(&name);
        let index = Index::parse(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        index.verify(&file, |_| ()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(make::decoded(&index, &file), expected.tensors, "{name}");
        assert_eq!(index.metadata().sampling, expected.sampling, "{name}");
    }
}

#[test]
fn golden_files_hold_every_encoding_and_every_kind_of_layer() {
    let (mut encodings, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for name in expected().keys() {
        let file = read(name);
        let index = Index::parse(&file).unwrap();
        encodings.extend(index.entries().iter().filter_map(|entry| entry.encoding));
        for layer in &index.metadata().model.layers {
            kinds.extend([("mixer", layer.mixer.kind()), ("feed-forward", layer.feed_forward.kind())]);
            kinds.extend(layer.parallel.then_some(("layer", "parallel")));
        }
    }
    assert_eq!(encodings, Encoding::ALL.iter().copied().collect());
    let mixers = ["attention", "short_convolution", "gated_linear_recurrence", "none"];
    let blocks = ["gated", "plain", "experts", "none"];
    let all = mixers.map(|kind| ("mixer", kind)).into_iter().chain(blocks.map(|kind| ("feed-forward", kind)));
    assert_eq!(kinds, all.chain([("layer", "parallel")]).collect());
}

#[test]
fn golden_files_give_their_logits_or_the_layer_that_cannot_run_is_named() {
    let mut refused = Vec::new();
    for name in expected().into_keys() {
        let path = folder().join(format!("{name}.npy"));
        match Model::open(&folder().join(format!("{name}.pith"))) {
            Ok(model) => {
                let ((rows, cols), expected) = read_npy(&path);
                assert_eq!(rows, TOKEN_COUNT as usize, "{name}");
                let (vocab_len, found) = logits(model);
                assert_eq!(vocab_len, cols, "{name}");
                let (worst, largest) = difference(&found, &expected);
                assert!(worst <= 1e-5 * largest, "{name}: {worst} of {largest}");
            }
            Err(error) => {
                assert!(!path.exists(), "{name}: {error}");
                let message = error.to_string();
                refused.push(message.split_once(".pith: ").unwrap().1.to_owned());
            }
        }
    }
    refused.sort();
    let expected = [
        "layers[1]: this version does not run feed-forward \"experts\"",
        "layers[1]: this version does not run feed-forward \"experts\"",
        "layers[1]: this version does not run mixer \"gated_linear_recurrence\"",
        "layers[1]: this version does not run mixer \"short_convolution\"",
    ];
    assert_eq!(refused, expected);
}

#[test]
fn golden_files_recommend_sampling() {
    let stated: Vec<_> = expected().into_values().filter_map(|expected| expected.sampling).collect();
    let all = Sampling {
        temperature: Some(0.7),
        top_k: Some(20),
        top_p: Some(0.95),
        min_p: Some(0.05),
        repeat_penalty: Some(1.1),
        repeat_window: Some(64),
    };
    assert_eq!(stated, [all, Sampling { temperature: Some(0.0), top_k: Some(0), ..Sampling::default() }]);
}

#[test]
fn tokenizers_of_golden_files_give_their_ids() {
    let mut count = 0;
    for (name, expected) in expected() {
        let Some(ids) = expected.ids else { continue };
        let model = Model::open(&folder().join(format!("{name}.pith"))).unwrap();
        assert_eq!(model.tokenizer().unwrap().encode(TEXT, true).unwrap(), ids, "{name}");
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn files_of_before_version_2_are_refused() {
    let refusal = |file: &[u8]| Index::parse(file).unwrap_err().to_string();
    let expected = "format version 1 is of before the first release: convert the model again";
    let written = std::fs::read(golden().join("format/v1.pith")).unwrap();
    assert_eq!(written[..8], MAGIC);
    assert_eq!(refusal(&written), expected);
    let mut forged = read("encoding-q4");
    forged[8..12].copy_from_slice(&1u32.to_le_bytes());
    reseal(&mut forged);
    assert_eq!(refusal(&forged), expected);
    forged[8..12].copy_from_slice(&2u32.to_le_bytes());
    reseal(&mut forged);
    assert_eq!(forged, read("encoding-q4"), "the checksum is made as a writer makes it");
}

/// Recomputes the header's checksum.
fn reseal(file: &mut [u8]) {
    let at = |offset: usize| u64::from_le_bytes(file[offset..][..8].try_into().unwrap()) as usize;
    let section = |offset: usize| &file[at(offset)..][..at(offset + 8)];
    let sum = checksum(&[&file[..120], section(40), section(56), &file[at(72)..]].concat());
    file[120..128].copy_from_slice(&sum.to_le_bytes());
}

#[test]
#[ignore = "writes the golden files"]
fn write_golden_files() {
    let mut all = BTreeMap::new();
    for plan in make::plans() {
        let path = folder().join(format!("{}.pith", plan.name));
        plan.write(&path);
        let file = std::fs::read(&path).unwrap();
        let ids = plan.tokenizer.as_ref().map(|tokenizer| tokenizer.encode(TEXT, true).unwrap());
        let index = Index::parse(&file).unwrap();
        let (tensors, sampling) = (make::decoded(&index, &file), index.metadata().sampling);
        if let Ok(model) = Model::open(&path) {
            let (vocab_len, logits) = logits(model);
            make::write_npy(&path.with_extension("npy"), vocab_len, &logits);
        }
        all.insert(plan.name, Expected { tensors, ids, sampling });
    }
    let json = serde_json::to_string_pretty(&all).unwrap();
    std::fs::write(folder().join("expected.json"), json + "\n").unwrap();
}
