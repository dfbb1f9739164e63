//! Real checkpoints and vocabularies. Ignored by default: they need the folder of shared data.

use std::path::PathBuf;

use pith_converter::checkpoint::{Checkpoint, SourceKind, SourceType, TokenizerSource};

/// A file or folder below `PITH_SHARED`, or below a folder `shared` beside the repository. Panics
/// where it is absent.
fn shared(path: &str) -> PathBuf {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    let found = std::env::var_os("PITH_SHARED").map_or_else(beside, PathBuf::from).join(path);
    assert!(found.exists(), "{} is absent; PITH_SHARED names the folder of the data", found.display());
    found
}

#[test]
#[ignore = "needs models/stories260K of the shared data"]
fn stories260k_holds_the_same_in_both_forms() {
    let (folder, file) = (shared("models/stories260K"), shared("models/stories260K/stories260K-f32.gguf"));
    let (folder, file) = (Checkpoint::open(&folder).unwrap(), Checkpoint::open(&file).unwrap());
    assert_eq!((folder.kind(), file.kind()), (SourceKind::HuggingFace, SourceKind::Gguf));
    assert_eq!(folder.tensors().len(), file.tensors().len());
    assert_eq!(file.tensors().len(), 5 * 9 + 2);
    assert_eq!(folder.config().unwrap()["hidden_size"], 64);
    assert_eq!(file.metadata().unwrap().require::<u32>("llama.embedding_length").unwrap(), 64);
    // Query and key rows are permuted between the two; these tensors are not.
    for (hugging_face, gguf) in [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.4.mlp.down_proj.weight", "blk.4.ffn_down.weight"),
        ("model.layers.2.self_attn.v_proj.weight", "blk.2.attn_v.weight"),
    ] {
        assert_eq!(folder.tensor(hugging_face).unwrap().shape, file.tensor(gguf).unwrap().shape);
        assert_eq!(folder.load_f32(hugging_face).unwrap(), file.load_f32(gguf).unwrap());
    }
    assert!(
        matches!(folder.tokenizer_files().unwrap(), TokenizerSource::Files(f) if f.tokenizer_json.is_some())
    );
}

#[test]
#[ignore = "needs models/atlas of the shared data"]
fn atlas_in_f16_is_atlas_in_bf16_rounded() {
    let (folder, file) = (shared("models/atlas"), shared("models/atlas/atlas-f16.gguf"));
    let (folder, file) = (Checkpoint::open(&folder).unwrap(), Checkpoint::open(&file).unwrap());
    let name = "model.layers.3.mlp.up_proj.weight";
    assert_eq!(folder.tensor(name).unwrap().dtype, SourceType::Bf16);
    assert_eq!(file.tensor("blk.3.ffn_up.weight").unwrap().dtype, SourceType::F16);
    let values = folder.load_f32(name).unwrap();
    let rounded: Vec<f32> = values.iter().map(|&v| half::f16::from_f32(v).to_f32()).collect();
    assert_eq!(rounded, file.load_f32("blk.3.ffn_up.weight").unwrap());
}

#[test]
#[ignore = "needs data/tokenizers of the shared data"]
fn vocabulary_files_open() {
    for (name, tokens) in [("gpt2/ggml-vocab-gpt-2", 50_257), ("llama-spm/ggml-vocab-llama-spm", 32_000)] {
        let path = shared(&format!("data/tokenizers/{name}.gguf"));
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.tensors().len(), 0);
        let metadata = checkpoint.metadata().unwrap();
        assert_eq!(metadata.require::<Vec<&str>>("tokenizer.ggml.tokens").unwrap().len(), tokens);
    }
}
