//! Hugging Face folders: what is read from a good one, and the error for each kind of bad one.

mod source_support;

use std::fs;

use pith_converter::CheckpointError as E;
use pith_converter::checkpoint::{Checkpoint, SourceKind, SourceType, TokenizerSource};
use serde_json::json;
use source_support::*;
use tempfile::TempDir;

/// `a`: 2 × 3 f32, `b`: 4 bf16, `c`: 2 f16, `d`: 1 i64.
fn good() -> Vec<u8> {
    let header = json!({
        "__metadata__": {"format": "pt"},
        "d": entry("I64", &[1], 36, 44),
        "b": entry("BF16", &[4], 24, 32),
        "a": entry("F32", &[2, 3], 0, 24),
        "c": entry("F16", &[2], 32, 36),
    });
    let mut data = f32_bytes(&counting(6));
    data.extend([0x3f80u16, 0xbf80, 0x0001, 0x7f7f].iter().flat_map(|v| v.to_le_bytes()));
    data.extend([0x3c00u16, 0x8001].iter().flat_map(|v| v.to_le_bytes()));
    data.extend(7i64.to_le_bytes());
    safetensors(&header.to_string(), &data)
}

fn open_one(bytes: &[u8]) -> Result<Checkpoint, E> {
    Checkpoint::open(folder(&[("model.safetensors", bytes)]).path())
}

fn open_header(header: serde_json::Value, data_bytes: usize) -> Result<Checkpoint, E> {
    open_one(&safetensors(&header.to_string(), &vec![0; data_bytes]))
}

#[test]
fn tensors_are_listed_in_the_order_of_their_data_and_loaded() {
    let checkpoint = open_one(&good()).unwrap();
    assert_eq!(checkpoint.kind(), SourceKind::HuggingFace);
    let names: Vec<_> = checkpoint.tensors().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    let a = checkpoint.tensor("a").unwrap();
    assert_eq!((a.dtype, a.shape.as_slice(), a.bytes), (SourceType::F32, &[2, 3][..], 24));
    assert_eq!((a.rows(), a.cols(), a.elements()), (2, 3, 6));
    assert_eq!(checkpoint.load_f32("a").unwrap(), counting(6));
    let bits = |name| checkpoint.load_f32(name).unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits("b"), [0x3f80_0000, 0xbf80_0000, 0x0001_0000, 0x7f7f_0000]);
    assert_eq!(bits("c"), [1f32.to_bits(), (-2f32.powi(-24)).to_bits()]);
    assert_eq!(checkpoint.raw("d").unwrap(), 7i64.to_le_bytes());
    assert!(checkpoint.metadata().is_none() && checkpoint.generation_config().is_none());
}

#[test]
fn a_range_of_rows_is_loaded_alone() {
    let checkpoint = open_one(&good()).unwrap();
    let mut row = [0.0; 3];
    checkpoint.load_rows_f32("a", 1..2, &mut row).unwrap();
    assert_eq!(row, [3.0, 4.0, 5.0]);
    checkpoint.load_rows_f32("a", 2..2, &mut []).unwrap();
    assert_eq!(checkpoint.raw_rows("a", 0..1).unwrap(), f32_bytes(&[0.0, 1.0, 2.0]));
    assert_eq!(checkpoint.tensor("b").unwrap().rows(), 1);
}

#[test]
fn a_tensor_of_many_chunks_is_loaded_whole() {
    // 3 × 100,003 rows: over 1 MiB a tensor, an odd number of values in the last chunk.
    let values = counting(3 * 100_003);
    let bytes = 4 * values.len() as u64;
    let header = json!({"w": entry("F32", &[100_003, 3], 0, bytes)}).to_string();
    let checkpoint = open_one(&safetensors(&header, &f32_bytes(&values))).unwrap();
    assert!(checkpoint.load_f32("w").unwrap() == values);
    let mut rows = vec![0.0; 3 * 98_000];
    checkpoint.load_rows_f32("w", 1_001..99_001, &mut rows).unwrap();
    assert!(rows == values[3 * 1_001..3 * 99_001]);
}

#[test]
fn checksum_is_the_one_of_the_bytes() {
    let bytes = good();
    let checkpoint = open_one(&bytes).unwrap();
    assert_eq!(checkpoint.checksum().unwrap(), xxhash_rust::xxh3::xxh3_128(&bytes));
}

#[test]
fn configuration_and_tokenizer_files_are_read() {
    let folder = folder(&[
        ("model.safetensors", &good()),
        ("config.json", br#"{"model_type": "llama"}"#),
        ("generation_config.json", br#"{"eos_token_id": 2}"#),
        ("tokenizer.json", b"{}"),
        ("tokenizer.model", b"\x0a\xff"),
        ("vocab.json", b"{\"a\": 0}"),
        ("merges.txt", b"a b\n"),
        ("tokenizer_config.json", br#"{"chat_template": "hello"}"#),
    ]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.config().unwrap()["model_type"], "llama");
    assert_eq!(checkpoint.generation_config().unwrap()["eos_token_id"], 2);
    let TokenizerSource::Files(files) = checkpoint.tokenizer_files().unwrap() else { panic!("no files") };
    assert_eq!(files.tokenizer_json.as_deref(), Some("{}"));
    assert_eq!(files.tokenizer_model.as_deref(), Some(&b"\x0a\xff"[..]));
    assert_eq!(files.vocab_json.as_deref(), Some("{\"a\": 0}"));
    assert_eq!(files.merges_txt.as_deref(), Some("a b\n"));
    assert_eq!(files.chat_template(), Some("hello"));
    assert!(files.added_tokens.is_none() && files.special_tokens_map.is_none());
}

/// Two shards, `x` in the first and `y` in the second, and an index with this weight map.
fn sharded(weight_map: serde_json::Value) -> TempDir {
    let shard = |name: &str, value: f32| {
        safetensors(&json!({name: entry("F32", &[1], 0, 4)}).to_string(), &f32_bytes(&[value]))
    };
    let index = json!({"metadata": {"total_size": 8}, "weight_map": weight_map}).to_string();
    folder(&[
        ("model-00001-of-00002.safetensors", &shard("x", 1.0)),
        ("model-00002-of-00002.safetensors", &shard("y", 2.0)),
        ("again.safetensors", &shard("x", 3.0)),
        ("model.safetensors.index.json", index.as_bytes()),
    ])
}

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

#[test]
fn shards_are_found_by_the_index() {
    let folder = sharded(json!({"x": FIRST, "y": SECOND}));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.files().len(), 2);
    assert_eq!(checkpoint.load_f32("x").unwrap(), [1.0]);
    assert_eq!(checkpoint.load_f32("y").unwrap(), [2.0]);
    let both = [fs::read(folder.path().join(FIRST)).unwrap(), fs::read(folder.path().join(SECOND)).unwrap()];
    assert_eq!(checkpoint.checksum().unwrap(), xxhash_rust::xxh3::xxh3_128(&both.concat()));
}

#[test]
fn an_index_that_disagrees_with_its_shards_is_rejected() {
    let open = |map| Checkpoint::open(sharded(map).path());
    let message = assert_error!(open(json!({"x": FIRST, "y": FIRST, "z": SECOND})), E::ShardTensor { .. });
    assert!(message.contains("\"y\"") && message.contains(FIRST) && message.contains(SECOND), "{message}");
    assert_error!(open(json!({"z": SECOND})), E::ShardTensor { found: None, .. });
    assert_error!(open(json!({"x": FIRST, "y": "../y.safetensors"})), E::ShardName { .. });
    assert_error!(open(json!({"x": ".."})), E::ShardName { .. });
    assert_error!(open(json!({"x": FIRST, "y": "gone.safetensors"})), E::Open { .. });
    assert_error!(open(json!({"x": FIRST, "x2": "again.safetensors"})), E::DuplicateTensor { .. });
    assert_error!(open(json!({})), E::NoWeights { .. });
    assert_error!(open(json!(3)), E::Json { .. });
}

#[test]
fn one_name_in_two_shards_is_rejected() {
    let folder = sharded(json!({"x": FIRST, "y": SECOND}));
    let header = json!({"y": entry("F32", &[1], 0, 4), "x": entry("F32", &[1], 4, 8)}).to_string();
    fs::write(folder.path().join(SECOND), safetensors(&header, &[0; 8])).unwrap();
    let message = assert_error!(Checkpoint::open(folder.path()), E::DuplicateTensor { .. });
    assert!(message.contains(SECOND) && message.contains("\"x\""), "{message}");
}

#[test]
fn a_folder_without_its_files_is_rejected() {
    assert_error!(Checkpoint::open(&folder(&[]).path().join("gone")), E::Open { .. });
    assert_error!(Checkpoint::open(tempfile::tempdir().unwrap().path()), E::MissingFile { .. });
    assert_error!(Checkpoint::open(folder(&[]).path()), E::NoWeights { pickled: false, .. });
    let pickled = folder(&[("pytorch_model.bin", b"")]);
    let message = assert_error!(Checkpoint::open(pickled.path()), E::NoWeights { pickled: true, .. });
    assert!(message.contains("safe_serialization"), "{message}");
    let two = folder(&[("a.safetensors", &good()), ("b.safetensors", &good())]);
    assert_error!(Checkpoint::open(two.path()), E::AmbiguousWeights { .. });
    fs::remove_file(two.path().join("b.safetensors")).unwrap();
    assert_eq!(Checkpoint::open(two.path()).unwrap().tensors().len(), 4);
    let nested = folder(&[]);
    fs::create_dir(nested.path().join("model.safetensors")).unwrap();
    assert_error!(Checkpoint::open(nested.path()), E::NotAFile { .. });
}

#[test]
fn a_bad_configuration_is_rejected() {
    let bad = folder(&[("model.safetensors", &good()), ("config.json", b"{\"a\": ")]);
    assert!(assert_error!(Checkpoint::open(bad.path()), E::Json { .. }).contains("config.json"));
    let large = folder(&[("model.safetensors", &good()), ("config.json", &[b' '; (4 << 20) + 1])]);
    assert_error!(Checkpoint::open(large.path()), E::Limit { found: 4_194_305, .. });
    let text = folder(&[("model.safetensors", &good()), ("merges.txt", b"ab\xff")]);
    let checkpoint = Checkpoint::open(text.path()).unwrap();
    assert_error!(checkpoint.tokenizer_files(), E::NotUtf8 { valid_bytes: 2, .. });
}

#[test]
fn numbers_that_only_python_writes_are_named() {
    for (text, found, line, column) in [
        ("{\"a\": Infinity}", "Infinity", 1, 7),
        ("{\n \"a\": [1, -Infinity]}", "-Infinity", 2, 11),
        ("{\"a\": NaN}", "NaN", 1, 7),
        ("{\"é\": {\"b\": NaN}}", "NaN", 1, 14),
    ] {
        let bad = folder(&[("model.safetensors", &good()), ("config.json", text.as_bytes())]);
        let message = assert_error!(Checkpoint::open(bad.path()), E::JsonNumber { .. });
        let expected =
            format!("config.json: line {line}, column {column} is {found}, which JSON does not have");
        assert!(message.contains(&expected), "{message}");
    }
    let bad = folder(&[("model.safetensors", &good()), ("config.json", b"{\"a\": Nothing}")]);
    assert_error!(Checkpoint::open(bad.path()), E::Json { .. });
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_file() {
    let marked = |text: &str| ["\u{feff}", text].concat().into_bytes();
    let folder = folder(&[
        ("model.safetensors", &good()),
        ("config.json", &marked("{\"model_type\": \"llama\"}")),
        ("merges.txt", &marked("a b")),
    ]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.config().unwrap()["model_type"], "llama");
    let TokenizerSource::Files(files) = checkpoint.tokenizer_files().unwrap() else { panic!("a folder") };
    assert_eq!(files.merges_txt.as_deref(), Some("a b"));
}

#[test]
fn pointers_of_git_lfs_are_named() {
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{:064}\nsize 1044992\n", 0);
    let weights = folder(&[("model.safetensors", pointer.as_bytes())]);
    let message = assert_error!(Checkpoint::open(weights.path()), E::LfsPointer { .. });
    assert!(message.contains("model.safetensors") && message.contains("git lfs pull"), "{message}");
    let tokenizer = folder(&[("model.safetensors", &good()), ("tokenizer.model", pointer.as_bytes())]);
    let checkpoint = Checkpoint::open(tokenizer.path()).unwrap();
    assert_error!(checkpoint.tokenizer_files(), E::LfsPointer { .. });
    let (_folder, gguf) = file("model.gguf", pointer.as_bytes());
    assert_error!(Checkpoint::open(&gguf), E::LfsPointer { .. });
}

#[test]
fn a_bad_header_is_rejected() {
    assert_error!(open_one(b"1234567"), E::Truncated { needed: 8, remaining: 7, .. });
    assert_error!(
        open_one(&[9, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']),
        E::Truncated { needed: 9, remaining: 2, .. }
    );
    assert_error!(open_one(&[0xff; 64]), E::Limit { found: u64::MAX, .. });
    assert_error!(open_one(&safetensors("[]", &[])), E::Json { .. });
    assert_error!(open_one(&safetensors(&"[".repeat(100_000), &[])), E::Json { .. });
    assert_error!(open_header(json!({"a": {"dtype": "F32", "shape": [1]}}), 4), E::Json { .. });
    assert_error!(
        open_header(json!({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), 4),
        E::Json { .. }
    );
    let twice = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    assert_error!(open_one(&safetensors(twice, &[0; 2])), E::DuplicateTensor { .. });
}

#[test]
fn tensors_that_do_not_fill_the_file_are_rejected() {
    let f32_at = |shape: &[u64], from, to| json!({"a": entry("F32", shape, from, to)});
    assert_error!(open_header(f32_at(&[1], 0, 4), 5), E::DataSize { .. });
    assert_error!(open_header(f32_at(&[1], 0, 4), 3), E::OutOfFile { .. });
    assert_error!(open_header(f32_at(&[1], 4, 8), 8), E::Offset { expected: 0, found: 4, .. });
    assert_error!(
        open_header(f32_at(&[2], 0, 4), 4),
        E::TensorSize { expected_bytes: 8, found_bytes: 4, .. }
    );
    assert_error!(open_header(f32_at(&[1], 0, 0), 0), E::TensorSize { .. });
    assert_error!(
        open_header(json!({"a": entry("F32", &[0], 0, 0), "b": entry("F32", &[1], 1, 0)}), 4),
        E::Offset { .. }
    );
    assert_error!(open_header(f32_at(&[1 << 40, 1 << 40], 0, 4), 4), E::Shape { .. });
    assert_error!(open_header(f32_at(&[0, 1 << 40, 1 << 40], 0, 0), 0), E::Shape { .. });
    assert_error!(open_header(f32_at(&[1 << 62], 0, 4), 4), E::Shape { .. });
    assert_error!(open_header(json!({"a": entry("F4", &[3], 0, 2)}), 2), E::Shape { .. });
    let overlap = json!({"a": entry("F32", &[1], 0, 4), "b": entry("F32", &[1], 2, 6)});
    assert_error!(open_header(overlap, 6), E::Offset { expected: 4, found: 2, .. });
    assert_error!(open_header(json!({"a": entry("Q4_0", &[32], 0, 18)}), 18), E::UnknownType { .. });
}

#[test]
fn wrong_requests_are_errors() {
    let checkpoint = open_one(&good()).unwrap();
    assert_error!(checkpoint.load_f32("e"), E::NoSuchTensor { .. });
    let message = assert_error!(checkpoint.load_f32("d"), E::UnsupportedType { found: SourceType::I64, .. });
    assert!(message.contains("\"d\"") && message.contains("Q4_K"), "{message}");
    assert_error!(checkpoint.load_rows_f32("a", 1..3, &mut [0.0; 6]), E::Rows { rows: 2, end: 3, .. });
    let backwards = std::ops::Range { start: 2, end: 1 };
    assert_error!(checkpoint.raw_rows("a", backwards), E::Rows { start: 2, end: 1, .. });
    let short = checkpoint.load_rows_f32("a", 0..2, &mut [0.0; 5]);
    assert_error!(short, E::OutputLen { expected: 6, found: 5, .. });
}

#[test]
fn a_file_that_shrinks_after_opening_gives_an_error() {
    let folder = folder(&[("model.safetensors", &good())]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(folder.path().join("model.safetensors")).unwrap();
    file.set_len(good().len() as u64 - 1).unwrap();
    assert_error!(checkpoint.raw("d"), E::Read { bytes: 8, .. });
    assert_error!(checkpoint.checksum(), E::Read { .. });
    assert_eq!(checkpoint.load_f32("a").unwrap(), counting(6));
}
