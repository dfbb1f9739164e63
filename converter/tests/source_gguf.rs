//! GGUF files: what is read from a good one, and the error for each kind of bad one.

mod source_support;

use std::fs;

use pith_converter::CheckpointError as E;
use pith_converter::checkpoint::gguf::{GgufArray, GgufValue};
use pith_converter::checkpoint::{Checkpoint, SourceKind, SourceType, TokenizerSource};
use source_support::*;

const F32: u32 = 0;
const Q8_0: u32 = 8;
const I32: u32 = 26;

fn open(bytes: &[u8]) -> Result<Checkpoint, E> {
    let (_folder, path) = file("model.gguf", bytes);
    Checkpoint::open(&path)
}

/// Two rows of Q8_0, scale 0.5, codes 0 to 63.
fn q8_0_rows() -> Vec<u8> {
    (0..2).flat_map(|row| [0x00, 0x38].into_iter().chain((0..32).map(move |i| row * 32 + i))).collect()
}

#[test]
fn tensors_are_listed_outermost_first_and_loaded() {
    let gguf = Gguf::new()
        .key_string("general.architecture", "llama")
        .tensor("a", &[3, 2], F32, &f32_bytes(&counting(6)))
        .tensor("q", &[32, 2], Q8_0, &q8_0_rows())
        .tensor("i", &[1], I32, &[1, 0, 0, 0])
        .tensor("s", &[], F32, &f32_bytes(&[7.0]));
    for version in [2, 3] {
        let bytes = Gguf { version, ..gguf.clone() }.bytes();
        let (_folder, path) = file("model.gguf", &bytes);
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.kind(), SourceKind::Gguf);
        let names: Vec<_> = checkpoint.tensors().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "q", "i", "s"]);
        assert_eq!(checkpoint.tensor("a").unwrap().shape, [2, 3]);
        assert_eq!(checkpoint.load_f32("a").unwrap(), counting(6));
        let halves: Vec<f32> = counting(64).iter().map(|v| v / 2.0).collect();
        assert_eq!(checkpoint.load_f32("q").unwrap(), halves);
        let mut row = [0.0; 32];
        checkpoint.load_rows_f32("q", 1..2, &mut row).unwrap();
        assert_eq!(row, halves[32..]);
        assert_eq!(checkpoint.raw("q").unwrap(), q8_0_rows());
        assert_eq!(checkpoint.raw_rows("q", 1..2).unwrap(), q8_0_rows()[34..]);
        assert_eq!(checkpoint.load_f32("s").unwrap(), [7.0]);
        assert_error!(checkpoint.load_f32("i"), E::UnsupportedType { found: SourceType::I32, .. });
        assert_eq!(checkpoint.checksum().unwrap(), xxhash_rust::xxh3::xxh3_128(&bytes));
        assert!(checkpoint.config().is_none());
    }
}

#[test]
fn every_value_type_is_read_back() {
    let one = |value_type, bytes: &[u8]| Gguf::new().key("k", value_type, bytes).bytes();
    let read = |bytes: &[u8]| open(bytes).unwrap().metadata().unwrap().value("k").unwrap().clone();
    assert_eq!(read(&one(0, &[200])), GgufValue::U8(200));
    assert_eq!(read(&one(1, &[200])), GgufValue::I8(-56));
    assert_eq!(read(&one(2, &[1, 2])), GgufValue::U16(513));
    assert_eq!(read(&one(3, &[0, 0x80])), GgufValue::I16(i16::MIN));
    assert_eq!(read(&one(4, &[1, 0, 0, 0x80])), GgufValue::U32(0x8000_0001));
    assert_eq!(read(&one(5, &[0xff; 4])), GgufValue::I32(-1));
    assert_eq!(read(&one(6, &1.5f32.to_le_bytes())), GgufValue::F32(1.5));
    assert_eq!(read(&one(7, &[1])), GgufValue::Bool(true));
    assert_eq!(read(&one(10, &u64::MAX.to_le_bytes())), GgufValue::U64(u64::MAX));
    assert_eq!(read(&one(11, &i64::MIN.to_le_bytes())), GgufValue::I64(i64::MIN));
    assert_eq!(read(&one(12, &2.5f64.to_le_bytes())), GgufValue::F64(2.5));
    assert_eq!(read(&Gguf::new().key_string("k", "é").bytes()), GgufValue::String("é".into()));
    let array =
        |element, count, bytes: &[u8]| read(&Gguf::new().key_array("k", element, count, bytes).bytes());
    assert_eq!(array(2, 2, &[1, 0, 2, 0]), GgufValue::Array(GgufArray::U16(vec![1, 2])));
    assert_eq!(array(7, 3, &[1, 0, 2]), GgufValue::Array(GgufArray::Bool(vec![true, false, true])));
    let inner = [[0u8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8, 9].as_slice(), &[1, 0, 0, 0], &[0; 8]].concat();
    let expected = GgufArray::Array(vec![GgufArray::U8(vec![8, 9]), GgufArray::I8(vec![])]);
    assert_eq!(array(9, 2, &inner), GgufValue::Array(expected));
}

#[test]
fn metadata_is_taken_as_the_type_asked_for() {
    let mut words = Vec::new();
    ["a", "", "ß"].iter().for_each(|word| string(&mut words, word.as_bytes()));
    let mut broken = Vec::new();
    [&b"a"[..], b"b\xff"].iter().for_each(|word| string(&mut broken, word));
    let gguf = Gguf::new()
        .key_u32("u32", 7)
        .key("i32", 5, &(-1i32).to_le_bytes())
        .key("f64", 12, &0.5f64.to_le_bytes())
        .key("bool", 7, &[1])
        .key_string("text", "llama")
        .key_array("i32s", 5, 2, &[1, 0, 0, 0, 2, 0, 0, 0])
        .key_array("words", 8, 3, &words)
        .key_array("broken", 8, 2, &broken);
    let checkpoint = open(&gguf.bytes()).unwrap();
    let metadata = checkpoint.metadata().unwrap();
    assert_eq!(metadata.require::<u32>("u32").unwrap(), 7);
    assert_eq!(metadata.require::<u64>("u32").unwrap(), 7);
    assert_eq!(metadata.get::<i32>("i32").unwrap(), Some(-1));
    assert_eq!(metadata.get::<i32>("none").unwrap(), None);
    assert_eq!(metadata.require::<f32>("f64").unwrap(), 0.5);
    assert!(metadata.require::<bool>("bool").unwrap());
    assert_eq!(metadata.require::<&str>("text").unwrap(), "llama");
    assert_eq!(metadata.require::<Vec<u32>>("i32s").unwrap(), [1, 2]);
    assert_eq!(metadata.require::<Vec<&str>>("words").unwrap(), ["a", "", "ß"]);
    assert_eq!(metadata.require::<Vec<&[u8]>>("broken").unwrap(), [&b"a"[..], b"b\xff"]);
    assert_eq!(metadata.iter().count(), 8);

    let message = assert_error!(metadata.require::<u32>("gone"), E::MissingKey { .. });
    assert!(message.contains("\"gone\"") && message.contains("u32"), "{message}");
    let message = assert_error!(metadata.require::<u32>("i32"), E::KeyType { .. });
    assert!(message.contains("an integer in u32, found i32 -1"), "{message}");
    let message = assert_error!(metadata.get::<&str>("words"), E::KeyType { .. });
    assert!(message.contains("an array of 3 string"), "{message}");
    assert_error!(metadata.get::<f32>("u32"), E::KeyType { .. });
    assert_error!(metadata.get::<u32>("bool"), E::KeyType { .. });
    let message = assert_error!(metadata.get::<Vec<&str>>("broken"), E::NotUtf8 { valid_bytes: 1, .. });
    assert!(message.contains("\"broken\", string 1"), "{message}");
}

#[test]
fn a_vocabulary_without_tensors_opens() {
    let checkpoint = open(&Gguf::new().key_string("tokenizer.ggml.model", "gpt2").bytes()).unwrap();
    assert_eq!(checkpoint.tensors().len(), 0);
    let TokenizerSource::Gguf(metadata) = checkpoint.tokenizer_files().unwrap() else { panic!("no keys") };
    assert_eq!(metadata.require::<&str>("tokenizer.ggml.model").unwrap(), "gpt2");
}

#[test]
fn alignment_is_the_file_s_own() {
    let gguf = Gguf { alignment: 8, ..Gguf::new() }
        .key_u32("general.alignment", 8)
        .tensor("a", &[1], F32, &f32_bytes(&[1.0]))
        .tensor("b", &[1], F32, &f32_bytes(&[2.0]));
    assert_eq!(open(&gguf.bytes()).unwrap().load_f32("b").unwrap(), [2.0]);
    for bad in [0, 24, 1 << 21] {
        assert_error!(open(&Gguf::new().key_u32("general.alignment", bad).bytes()), E::Alignment { .. });
    }
    assert_error!(open(&Gguf::new().key_string("general.alignment", "8").bytes()), E::KeyType { .. });
}

#[test]
fn what_is_no_gguf_is_rejected() {
    assert_error!(open(b""), E::NotACheckpoint { .. });
    assert!(assert_error!(open(b"PK\x03\x04...."), E::NotACheckpoint { .. }).contains("PK"));
    assert_error!(open(b"GGUF\x03"), E::Truncated { needed: 4, remaining: 1, .. });
    let version = |version| Gguf { version, ..Gguf::new() }.bytes();
    assert_error!(open(&version(0)), E::Version { found: 0, .. });
    assert_error!(open(&version(1)), E::Version { found: 1, .. });
    assert_error!(open(&version(4)), E::Version { found: 4, .. });
    assert_error!(open(&version(3u32.swap_bytes())), E::BigEndian { version: 3, .. });
}

#[test]
fn counts_and_lengths_beyond_the_file_are_rejected() {
    let keys = |key_count| Gguf { key_count, ..Gguf::new() }.bytes();
    assert_error!(open(&keys(1)), E::Truncated { needed: 14, remaining: 0, .. });
    assert_error!(open(&keys(u64::MAX)), E::Limit { found: u64::MAX, .. });
    let tensors = |tensor_count| Gguf { tensor_count, ..Gguf::new() }.bytes();
    assert_error!(open(&tensors(1)), E::Truncated { needed: 24, remaining: 0, .. });
    assert_error!(open(&tensors(1 << 63)), E::Limit { .. });
    let array = |element, count| Gguf::new().key_array("k", element, count, &[0; 16]).bytes();
    assert_error!(open(&array(0, 17)), E::Truncated { needed: 17, remaining: 16, .. });
    assert_error!(open(&array(12, u64::MAX)), E::Truncated { needed: u64::MAX, .. });
    assert_error!(open(&array(8, 3)), E::Truncated { needed: 24, .. });
    assert_error!(open(&array(9, 2)), E::Truncated { needed: 24, .. });
    assert_error!(open(&array(9, 1 << 17)), E::Limit { .. });
    assert_error!(open(&Gguf::new().key("k", 8, &[0xff; 8]).bytes()), E::Limit { .. });
    assert_error!(
        open(&Gguf::new().key("k", 8, &100u64.to_le_bytes()).bytes()),
        E::Truncated { needed: 100, .. }
    );
    assert_error!(
        open(&Gguf::new().entry("a", &[1; 5], F32, 0).bytes()),
        E::Limit { limit: 4, found: 5, .. }
    );
}

#[test]
fn arrays_nested_too_deeply_are_rejected() {
    let mut elements = Vec::new();
    for _ in 0..1_000 {
        elements.extend([9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }
    let message = assert_error!(open(&Gguf::new().key_array("k", 9, 1, &elements).bytes()), E::Limit { .. });
    assert!(message.contains("nesting"), "{message}");
}

#[test]
fn a_header_beyond_the_limit_is_rejected() {
    // 129 MiB of zeros that the file system need not store.
    let (_folder, path) = file("model.gguf", &Gguf::new().key_array("k", 0, 129 << 20, &[]).bytes());
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(130 << 20).unwrap();
    assert!(assert_error!(Checkpoint::open(&path), E::Limit { .. }).contains("header size"));
}

#[test]
fn bad_metadata_is_rejected() {
    assert_error!(open(&Gguf::new().key_u32("k", 1).key_u32("k", 1).bytes()), E::DuplicateKey { .. });
    assert_error!(open(&Gguf::new().key("k", 13, &[0; 8]).bytes()), E::ValueType { found: 13, .. });
    assert_error!(open(&Gguf::new().key_array("k", 99, 0, &[]).bytes()), E::ValueType { found: 99, .. });
    let mut gguf = Gguf::new().key_u32("k", 1);
    gguf.keys[8] = 0xff;
    assert_error!(open(&gguf.bytes()), E::NotUtf8 { valid_bytes: 0, .. });
}

#[test]
fn bad_tensors_are_rejected() {
    let four = f32_bytes(&[1.0]);
    let one = || Gguf::new().tensor("a", &[1], F32, &four);
    assert_error!(open(&one().tensor("a", &[1], F32, &four).bytes()), E::DuplicateTensor { .. });
    let message = assert_error!(open(&one().entry("b", &[1], 77, 32).bytes()), E::UnknownType { .. });
    assert!(message.contains("\"b\"") && message.contains("77"), "{message}");
    assert_error!(open(&one().entry("b", &[1], F32, 4).bytes()), E::Misaligned { offset: 4, .. });
    assert_error!(open(&one().entry("b", &[1], F32, 0).bytes()), E::Offset { .. });
    assert_error!(open(&one().entry("b", &[1], F32, 32).bytes()), E::OutOfFile { .. });
    assert_error!(
        open(&one().entry("b", &[1], F32, u64::MAX - 31).bytes()),
        E::OutOfFile { end: u64::MAX, .. }
    );
    assert_error!(open(&one().entry("b", &[1 << 62, 4], F32, 32).bytes()), E::Shape { .. });
    // 64 values are two whole blocks, but no row is.
    assert_error!(open(&one().entry("b", &[16, 4], Q8_0, 32).bytes()), E::Shape { .. });
    let rows = Gguf::new().tensor("b", &[32, 2], Q8_0, &q8_0_rows()[1..]);
    assert_error!(open(&rows.bytes()), E::OutOfFile { .. });
}

/// Writes part `number` of `count` with one tensor `t<number>` and opens nothing.
fn part(folder: &std::path::Path, number: u16, count: u16, tensors: u32, file_number: u16) {
    let gguf = Gguf::new()
        .key("split.no", 2, &number.to_le_bytes())
        .key("split.count", 2, &count.to_le_bytes())
        .key_u32("split.tensors.count", tensors)
        .tensor(&format!("t{number}"), &[1], F32, &f32_bytes(&[number.into()]));
    gguf.write(&folder.join(format!("model-{:05}-of-{count:05}.gguf", file_number + 1)));
}

#[test]
fn a_split_file_is_opened_by_its_first_part() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    (0..3).for_each(|number| part(folder.path(), number, 3, 3, number));
    let checkpoint = Checkpoint::open(&at("model-00001-of-00003.gguf")).unwrap();
    assert_eq!((checkpoint.tensors().len(), checkpoint.files().len()), (3, 3));
    for number in 0..3 {
        assert_eq!(checkpoint.load_f32(&format!("t{number}")).unwrap(), [number as f32]);
    }
    let message = assert_error!(Checkpoint::open(&at("model-00002-of-00003.gguf")), E::Split { .. });
    assert!(message.contains("model-00001-of-00003.gguf"), "{message}");
    fs::copy(at("model-00001-of-00003.gguf"), at("renamed.gguf")).unwrap();
    assert_error!(Checkpoint::open(&at("renamed.gguf")), E::Split { .. });
    part(folder.path(), 2, 3, 3, 1);
    let message = assert_error!(Checkpoint::open(&at("model-00001-of-00003.gguf")), E::Split { .. });
    assert!(message.contains("2 of 3, found 3 of 3"), "{message}");
    part(folder.path(), 1, 3, 3, 1);
    part(folder.path(), 0, 3, 4, 0);
    assert_error!(Checkpoint::open(&at("model-00001-of-00003.gguf")), E::Split { .. });
    fs::write(at("model-00003-of-00003.gguf"), b"no gguf").unwrap();
    assert_error!(Checkpoint::open(&at("model-00001-of-00003.gguf")), E::NotACheckpoint { .. });
    fs::remove_file(at("model-00003-of-00003.gguf")).unwrap();
    let message = assert_error!(Checkpoint::open(&at("model-00001-of-00003.gguf")), E::Split { .. });
    assert!(
        message.contains("should be 3 parts, ") && message.contains("model-00003-of-00003.gguf"),
        "{message}"
    );
    part(folder.path(), 0, 5_000, 1, 0);
    assert_error!(Checkpoint::open(&at("model-00001-of-05000.gguf")), E::Limit { found: 5_000, .. });
}
