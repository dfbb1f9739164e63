//! A whole file, written and read, and every way of damaging it.

use pith_format::*;
use std::path::Path;

fn metadata() -> Metadata {
    let json = r#"{
        "model": {
            "name": "tiny", "family": "llama", "vocab_len": 5, "hidden_len": 8, "context_len": 32,
            "norm": "rms", "norm_epsilon": 1e-5, "embedding_scale": 1.0, "tied_head": true, "eos": [1],
            "rope": [{"dim": 4, "inv_freq": [1.0, 0.01], "magnitude": 1.0}],
            "layers": [{"mixer": {"kind": "attention", "query_heads": [2], "head_dim": 4, "scale": 0.5, "rope": 0},
                        "feed_forward": {"kind": "gated", "len": 12, "activation": "silu"}},
                       {"mixer": {"kind": "none"},
                        "feed_forward": {"kind": "experts", "count": 2, "per_token": 1, "gated": false,
                                         "expert": {"len": 3, "activation": "silu"}, "score": "softmax",
                                         "normalized": false, "scale": 1.0}}]
        },
        "provenance": {"converter": "test", "recipe": "mixed",
                       "source": {"kind": "huggingface", "name": "x", "tensor_bytes": 0, "checksum": ""}}
    }"#;
    serde_json::from_str(json).unwrap()
}

fn plan() -> Vec<TensorPlan> {
    let matrix = |id, encoding, rows, cols| TensorPlan { id, encoding: Some(encoding), rows, cols };
    vec![
        TensorPlan { id: TensorId::model(Role::Tokenizer), encoding: None, rows: 11, cols: 1 },
        matrix(TensorId::model(Role::TokenEmbedding), Encoding::F16, 5, 8),
        TensorPlan { id: TensorId::layer(Role::MixerNorm, 0), encoding: None, rows: 8, cols: 1 },
        matrix(TensorId::layer(Role::Query, 0), Encoding::Q4, 8, 8),
        matrix(TensorId::layer(Role::Gate, 0), Encoding::F32, 12, 8),
        matrix(TensorId::expert(Role::Up, 1, 1), Encoding::F32, 3, 8),
    ]
}

fn tensor_bytes(plan: &TensorPlan) -> Vec<u8> {
    let len = match plan.encoding {
        Some(encoding) => encoding.matrix_bytes(plan.rows as u64, plan.cols as u64).unwrap() as usize,
        None if plan.id.role == Role::Tokenizer => plan.rows,
        None => plan.rows * 4,
    };
    (0..len).map(|index| (index * 31 + plan.rows) as u8).collect()
}

fn write(path: &Path) -> u64 {
    let mut writer = Writer::create(path, &plan()).unwrap();
    for tensor in plan() {
        let bytes = tensor_bytes(&tensor);
        let (first, rest) = bytes.split_at(bytes.len() / 3);
        writer.write(tensor.id, first).unwrap();
        writer.write(tensor.id, rest).unwrap();
    }
    writer.finish(&metadata()).unwrap()
}

fn file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pith");
    let length = write(&path);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, length);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is gone");
    bytes
}

fn verify(bytes: &[u8]) -> Result<(), FormatError> {
    Index::parse(bytes)?.verify(bytes, |_| ())
}

#[test]
fn what_was_written_is_read() {
    let bytes = file();
    let index = Index::parse(&bytes).unwrap();
    assert_eq!(index.metadata(), &metadata());
    assert_eq!(index.entries().len(), plan().len());
    for (entry, plan) in index.entries().iter().zip(plan()) {
        assert_eq!((entry.id, entry.encoding), (plan.id, plan.encoding));
        assert_eq!(index.bytes(&bytes, plan.id).unwrap(), tensor_bytes(&plan));
    }
    assert_eq!(index.entries()[0].offset, HEADER_BYTES as u64);
    assert_eq!(index.matrix(&bytes, TensorId::layer(Role::Gate, 0)).unwrap().rows(), 12);
    assert_eq!(index.vector(&bytes, TensorId::layer(Role::MixerNorm, 0)).unwrap().len(), 8);
    let mut seen = 0;
    index.verify(&bytes, |part| seen += part.bytes).unwrap();
    let metadata_end = bytes.len() as u64 - 64 * plan().len() as u64;
    assert!(seen > 0 && seen < metadata_end);
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = file();
    for length in 0..bytes.len() {
        assert!(Index::parse(&bytes[..length]).is_err(), "truncated to {length} of {}", bytes.len());
    }
}

#[test]
fn every_changed_byte_is_an_error() {
    let mut bytes = file();
    for at in 0..bytes.len() {
        for change in [1, 0x80] {
            bytes[at] ^= change;
            assert!(verify(&bytes).is_err(), "byte {at} changed by {change:#x}");
            bytes[at] ^= change;
        }
    }
    verify(&bytes).unwrap();
}

/// Changes a file and makes its checksum right again: what a hostile writer would do.
fn forge(change: impl FnOnce(&mut Vec<u8>, usize, usize)) -> FormatError {
    let mut bytes = file();
    let at = |bytes: &[u8], offset: usize| {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap()) as usize
    };
    let (metadata, directory) = (at(&bytes, 40), at(&bytes, 72));
    let metadata_len = at(&bytes, 48);
    change(&mut bytes, metadata, directory);
    let covered: Vec<u8> =
        [&bytes[..120], &bytes[metadata..metadata + metadata_len], &bytes[directory..]].concat();
    let sum = checksum(&covered);
    bytes[120..128].copy_from_slice(&sum.to_le_bytes());
    Index::parse(&bytes).expect_err("the forged file was accepted")
}

fn put(bytes: &mut [u8], offset: usize, value: u64) {
    bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn each_forged_field_is_named() {
    let message = |error: FormatError| error.to_string();
    assert!(message(forge(|b, _, _| b[8] = 9)).contains("version 9"));
    assert!(message(forge(|b, _, _| b[8] = 1)).contains("convert the model again"));
    assert!(message(forge(|b, _, _| put(b, 24, 0))).contains("data_offset"));
    assert!(message(forge(|b, _, _| put(b, 24, 192))).contains("metadata_offset"));
    assert!(message(forge(|b, _, _| put(b, 32, u64::MAX))).contains("data_bytes"));
    assert!(message(forge(|b, _, _| put(b, 48, u64::MAX - 4))).contains("metadata_bytes"));
    assert!(message(forge(|b, _, _| put(b, 64, u64::MAX))).contains("index_bytes"));
    assert!(message(forge(|b, _, _| put(b, 64, 64))).contains("directory_offset"));
    assert!(message(forge(|b, _, _| put(b, 80, u64::MAX / 2))).contains("entry_count"));
    assert!(message(forge(|b, _, _| b[100] = 1)).contains("padding"));
    assert!(message(forge(|b, m, _| b[m] = b'[')).contains("metadata"));
    let entry = |d: usize, index: usize| d + 64 * index;
    assert!(message(forge(|b, _, d| b[d] = 99)).contains("role"));
    assert!(message(forge(|b, _, d| b[d + 2] = 1)).contains("kind"));
    assert!(message(forge(|b, _, d| b[entry(d, 1) + 3] = 77)).contains("encoding is 77"));
    assert!(message(forge(|b, _, d| b[entry(d, 2) + 3] = 0)).contains("encoding"));
    assert!(message(forge(|b, _, d| b[d + 4] = 0)).contains("layer"));
    assert!(message(forge(|b, _, d| b[entry(d, 2) + 4] = 2)).contains("layer"));
    assert!(message(forge(|b, _, d| b[entry(d, 2) + 4] = 1)).contains("mixer \"none\""));
    assert!(message(forge(|b, _, d| b[entry(d, 5) + 8] = 2)).contains("expert is 2, expected below 2"));
    assert!(message(forge(|b, _, d| b[entry(d, 4) + 8..][..4].fill(0))).contains("no expert"));
    // A gate of experts that have none.
    assert!(message(forge(|b, _, d| b[entry(d, 5)] = 32)).contains("feed-forward \"experts\""));
    assert!(message(forge(|b, _, d| b[entry(d, 1) + 12] = 1)).contains("reserved"));
    assert!(message(forge(|b, _, d| put(b, entry(d, 1) + 16, 6))).contains("embedding.token: shape"));
    assert!(message(forge(|b, _, d| put(b, entry(d, 1) + 16, u64::MAX))).contains("embedding.token"));
    assert!(message(forge(|b, _, d| put(b, d + 16, 12))).contains("tokenizer: 11 bytes"));
    assert!(message(forge(|b, _, d| put(b, d + 32, u64::MAX - 63))).contains("bytes"));
    // Onto the tensor before it, and before the data.
    assert!(message(forge(|b, _, d| put(b, entry(d, 2) + 32, 192))).contains("offset"));
    assert!(message(forge(|b, _, d| put(b, entry(d, 1) + 32, 64))).contains("offset"));
    assert!(message(forge(|b, _, d| b[d + 58] = 1)).contains("reserved"));
    // The norm's entry made into a second gate.
    assert!(matches!(
        forge(|b, _, d| {
            let gate: Vec<u8> = b[d + 4 * 64..d + 5 * 64].to_vec();
            b[d + 3 * 64..d + 4 * 64].copy_from_slice(&gate);
        }),
        FormatError::Entry { field: "offset", .. }
    ));
    // No entries at all, and data that belongs to none.
    let directory_emptied = forge(|b, _, d| {
        let length = d as u64;
        b.truncate(d);
        put(b, 16, length);
        put(b, 80, 0);
    });
    assert!(message(directory_emptied).contains("data_bytes"));
}

#[test]
fn an_abandoned_writer_leaves_nothing_and_keeps_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pith");
    std::fs::write(&path, "old").unwrap();
    let mut writer = Writer::create(&path, &plan()).unwrap();
    writer.write(TensorId::model(Role::Tokenizer), &[1; 11]).unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
}

#[test]
fn the_writer_refuses_another_order_or_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pith");
    let mut writer = Writer::create(&path, &plan()).unwrap();
    let error = writer.write(TensorId::model(Role::TokenEmbedding), &[0]).unwrap_err();
    assert!(matches!(error, FormatError::WriteOrder { .. }), "{error}");
    let error = writer.write(TensorId::model(Role::Tokenizer), &[0; 12]).unwrap_err();
    assert!(matches!(error, FormatError::TensorSize { .. }), "{error}");
    let error = writer.finish(&metadata()).unwrap_err();
    assert!(error.to_string().contains("tokenizer (0 of 11"), "{error}");
    let error = Writer::create(Path::new("/nowhere/at/all.pith"), &plan()).err().unwrap();
    assert!(error.to_string().contains("/nowhere/at"), "{error}");
}
