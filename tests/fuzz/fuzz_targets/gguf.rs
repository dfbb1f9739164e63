//! A GGUF file: opened, every tensor decoded, its tokenizer built, and the whole converted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pith_converter::checkpoint::Checkpoint;
use pith_converter::{ConvertOptions, convert, load_tokenizer};

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, data).expect("room for it");
    let Ok(checkpoint) = Checkpoint::open(&path) else { return };
    for tensor in checkpoint.tensors() {
        let _ = checkpoint.load_f32(&tensor.name);
    }
    let _ = load_tokenizer(&path);
    let _ = convert(&path, &folder.path().join("out.pith"), &ConvertOptions::default(), &());
});
