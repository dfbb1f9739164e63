//! Every truncation and every changed byte of a header: an error or a checkpoint that can be read to its end, and
//! never more memory than a small multiple of the file.

mod source_support;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use peak_alloc::PeakAlloc;
use pith_converter::checkpoint::Checkpoint;
use serde_json::json;
use source_support::*;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// One test at a time: the allocator counts the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// Room for the copies of a file that parsing, decoding and hashing make; every file here has less than 4 KiB.
const MEMORY_BOUND: usize = 64 << 10;

/// Opens `path` and, if that works, reads all that there is.
fn read_everything(path: &Path) -> bool {
    let Ok(checkpoint) = Checkpoint::open(path) else { return false };
    for tensor in checkpoint.tensors() {
        let raw = checkpoint.raw(&tensor.name).unwrap();
        assert_eq!(raw.len() as u64, tensor.bytes);
        match checkpoint.load_f32(&tensor.name) {
            Ok(values) => assert_eq!(values.len(), tensor.elements()),
            Err(error) => assert!(!tensor.dtype.is_loadable(), "{error}"),
        }
    }
    if let Some(metadata) = checkpoint.metadata() {
        for (key, value) in metadata.iter() {
            assert!(!value.to_string().is_empty());
            let _ = metadata.get::<Vec<&str>>(key);
            let _ = metadata.get::<Vec<u8>>(key);
            let _ = metadata.get::<&str>(key);
        }
    }
    checkpoint.checksum().unwrap();
    true
}

/// Writes `bytes` as `file`, opens `target` and checks the memory that it took.
fn open_within_bound(file: &Path, target: &Path, bytes: &[u8], what: &str) -> bool {
    overwrite(file, bytes);
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let opened = read_everything(target);
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(taken <= MEMORY_BOUND, "{what}: {taken} bytes for a file of {}", bytes.len());
    opened
}

/// Writes over what is there: a file emptied first and written anew may be flushed to disk each time.
fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

/// All truncations and, in the first `header_bytes`, all single-bit and some whole-byte changes.
fn attack(file: &Path, target: &Path, good: &[u8], header_bytes: usize) {
    assert!(good.len() < 4096);
    assert!(open_within_bound(file, target, good, "the good file"));
    for len in 0..good.len() {
        assert!(
            !open_within_bound(file, target, &good[..len], &format!("cut to {len}")),
            "cut to {len} bytes"
        );
    }
    let mut bytes = good.to_vec();
    for at in 0..header_bytes {
        let flips = (0..8).map(|bit| good[at] ^ 1 << bit);
        for byte in flips.chain([0, 0x7f, 0x80, 0xff, good[at].wrapping_add(1), good[at].wrapping_sub(1)]) {
            bytes[at] = byte;
            open_within_bound(file, target, &bytes, &format!("byte {at} is {byte}"));
        }
        bytes[at] = good[at];
    }
}

#[test]
fn no_change_to_a_gguf_header_does_harm() {
    let _alone = ALONE.lock().unwrap();
    let mut words = Vec::new();
    ["<s>", "a", "ß"].iter().for_each(|word| string(&mut words, word.as_bytes()));
    let nested = [[0u8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8].as_slice(), &[8, 0, 0, 0], &[0; 8]].concat();
    let gguf = Gguf::new()
        .key_string("general.architecture", "llama")
        .key_u32("general.alignment", 32)
        .key("b", 7, &[1])
        .key("x", 12, &0.5f64.to_le_bytes())
        .key_array("words", 8, 3, &words)
        .key_array("numbers", 5, 2, &[1, 0, 0, 0, 2, 0, 0, 0])
        .key_array("nested", 9, 2, &nested)
        .tensor("a", &[3, 2], 0, &f32_bytes(&counting(6)))
        .tensor("q", &[32, 2], 8, &[7; 68])
        .tensor("k", &[256, 1], 12, &[9; 144]);
    let (_folder, path) = file("model.gguf", &[]);
    attack(&path, &path, &gguf.bytes(), gguf.header().len());
}

#[test]
fn no_change_to_a_safetensors_header_does_harm() {
    let _alone = ALONE.lock().unwrap();
    let header = json!({
        "__metadata__": {"format": "pt"},
        "a": entry("F32", &[2, 3], 0, 24),
        "b": entry("BF16", &[4], 24, 32),
        "c": entry("I64", &[1], 32, 40),
    });
    let bytes = safetensors(&header.to_string(), &[5; 40]);
    let folder = folder(&[]);
    attack(&folder.path().join("model.safetensors"), folder.path(), &bytes, bytes.len() - 40);
}

#[test]
fn no_change_to_an_index_does_harm() {
    let _alone = ALONE.lock().unwrap();
    let shard = |name: &str| safetensors(&json!({name: entry("U8", &[1], 0, 1)}).to_string(), &[1]);
    let folder = folder(&[("x.safetensors", &shard("x")), ("y.safetensors", &shard("y"))]);
    let index =
        json!({"metadata": {}, "weight_map": {"x": "x.safetensors", "y": "y.safetensors"}}).to_string();
    let file = folder.path().join("model.safetensors.index.json");
    attack(&file, folder.path(), index.as_bytes(), index.len());
}

#[test]
fn many_random_headers_do_no_harm() {
    let _alone = ALONE.lock().unwrap();
    let (_folder, path) = file("model.gguf", &[]);
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for round in 0..3_000 {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(u64::from(random() % 4).to_le_bytes());
        bytes.extend(u64::from(random() % 4).to_le_bytes());
        // Small numbers are likelier to be read as lengths and types that lead on.
        bytes.extend(
            (0..random() % 400)
                .map(|_| if random() % 4 == 0 { random() as u8 } else { (random() % 3) as u8 }),
        );
        open_within_bound(&path, &path, &bytes, &format!("round {round}"));
    }
}
