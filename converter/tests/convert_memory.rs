//! A matrix is never held whole: neither its bytes nor its values nor its tiles.

mod source_support;

use std::fs;

use peak_alloc::PeakAlloc;
use pith_converter::{ConvertOptions, Recipe, convert};
use pith_format::Encoding;
use serde_json::json;
use source_support::entry;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const VOCAB_LEN: usize = 32768;
const HIDDEN_LEN: usize = 1024;

/// One tiny layer under a large embedding, 64 MiB in bfloat16.
fn checkpoint() -> tempfile::TempDir {
    let (vocab, hidden) = (VOCAB_LEN as u64, HIDDEN_LEN as u64);
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in [
        ("model.embed_tokens.weight", vec![vocab, hidden]),
        ("model.norm.weight", vec![hidden]),
        ("model.layers.0.input_layernorm.weight", vec![hidden]),
        ("model.layers.0.post_attention_layernorm.weight", vec![hidden]),
        ("model.layers.0.self_attn.q_proj.weight", vec![16, hidden]),
        ("model.layers.0.self_attn.k_proj.weight", vec![16, hidden]),
        ("model.layers.0.self_attn.v_proj.weight", vec![16, hidden]),
        ("model.layers.0.self_attn.o_proj.weight", vec![hidden, 16]),
        ("model.layers.0.mlp.gate_proj.weight", vec![16, hidden]),
        ("model.layers.0.mlp.up_proj.weight", vec![16, hidden]),
        ("model.layers.0.mlp.down_proj.weight", vec![hidden, 16]),
    ] {
        let bytes = 2 * shape.iter().product::<u64>();
        header.insert(name.into(), entry("BF16", &shape, end, end + bytes));
        end += bytes;
    }
    let data = [0x80, 0x3f, 0x00, 0xbf].repeat(end as usize / 4);
    let folder = tempfile::tempdir().unwrap();
    let header = serde_json::Value::from(header).to_string();
    fs::write(folder.path().join("model.safetensors"), source_support::safetensors(&header, &data)).unwrap();
    let config = json!({"model_type": "llama", "vocab_size": VOCAB_LEN, "hidden_size": HIDDEN_LEN, "head_dim": 16,
        "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 16, "max_position_embeddings": 8,
        "tie_word_embeddings": true});
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn memory_is_that_of_a_band() {
    let folder = checkpoint();
    for (encoding, limit) in [(Encoding::F32, 40 << 20), (Encoding::F16, 32 << 20)] {
        let options =
            ConvertOptions { recipe: Recipe::new(encoding), force: true, ..ConvertOptions::default() };
        ALLOCATOR.reset_peak_usage();
        let before = ALLOCATOR.current_usage();
        convert(folder.path(), &folder.path().join("out.pith"), &options, &()).unwrap();
        let taken = ALLOCATOR.peak_usage().saturating_sub(before);
        assert!(taken < limit, "{encoding}: {taken} bytes, at most {limit} expected");
    }
}
