//! A conversion without options loses nothing.

use crate::golden::Golden;
use pith_converter::{ExportOptions, ExportType, export};
use pith_format::{Kind, checksum};
use pith_runtime::Model;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Checksums of matrices by the names that transformers gives them.
type Checksums = BTreeMap<String, String>;

/// Whether a model's matrices are read from an export, or from the `.pith` file: a family whose
/// configuration cannot be put together is exported beside its original folder only.
#[derive(Clone, Copy)]
pub enum Read {
    Export,
    File,
}

pub fn values_are_those_of_the_source(golden: &Golden, read: Read) {
    let (converted, report) = golden.carried();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert!(report.file_bytes <= golden.source_bytes() / 50 * 51, "{} bytes", report.file_bytes);
    for tensor in report.tensors.iter().filter(|tensor| tensor.encoding.is_some()) {
        assert!(tensor.repacked, "{:?} was rounded", tensor.id);
    }
    let model = converted.open();
    let found = match read {
        Read::Export => exported(&model, &converted.folder.path().join("export")),
        Read::File => stored(&model),
    };
    let is_other = |(name, sum): &(&String, &String)| found.get(*name) != Some(*sum);
    let others: Vec<_> = golden.matrices.iter().filter(is_other).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(found.len(), golden.matrices.len());
}

fn checksum_of(bytes: &[u8]) -> String {
    format!("{:016x}", checksum(bytes))
}

/// Every matrix of an export in f32.
fn exported(model: &Model, folder: &Path) -> Checksums {
    let options = ExportOptions { dtype: ExportType::F32, ..ExportOptions::default() };
    export(model.index(), model.bytes(), folder, &options, &()).unwrap();
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let head_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (head, data) = bytes[8..].split_at(head_len);
    let head: BTreeMap<String, Value> = serde_json::from_slice(head).unwrap();
    let mut found = Checksums::new();
    for (name, entry) in head {
        if entry["shape"].as_array().is_some_and(|shape| shape.len() == 2) {
            assert_eq!(entry["dtype"], "F32", "{name}");
            let offset = |index: usize| entry["data_offsets"][index].as_u64().unwrap() as usize;
            found.insert(name, checksum_of(&data[offset(0)..offset(1)]));
        }
    }
    found
}

/// Every matrix of the file.
fn stored(model: &Model) -> Checksums {
    let index = model.index();
    let matrices = index.entries().iter().filter(|entry| entry.kind() == Kind::Matrix);
    let sums = matrices.map(|entry| {
        let matrix = index.matrix(model.bytes(), entry.id).unwrap();
        let mut row = vec![0.0f32; entry.cols as usize];
        let mut bytes = Vec::with_capacity(4 * (entry.rows * entry.cols) as usize);
        for index in 0..entry.rows as usize {
            matrix.decode_row(index, &mut row);
            bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
        }
        (original_name(&entry.id.to_string()), checksum_of(&bytes))
    });
    sums.collect()
}

/// The name of a matrix in transformers.
fn original_name(name: &str) -> String {
    if name == "embedding.token" {
        return "model.embed_tokens.weight".into();
    }
    let (layer, role) = name.strip_prefix("layers.").and_then(|name| name.split_once('.')).unwrap();
    let part = match role {
        "attention.query" => "self_attn.q_proj",
        "attention.key" => "self_attn.k_proj",
        "attention.value" => "self_attn.v_proj",
        "attention.output" => "self_attn.o_proj",
        "ffn.gate" => "mlp.gate_proj",
        "ffn.up" => "mlp.up_proj",
        "ffn.down" => "mlp.down_proj",
        _ => panic!("{name} has no name in transformers"),
    };
    format!("model.layers.{layer}.{part}.weight")
}
