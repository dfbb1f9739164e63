//! A folder with a sound `config.json` and a fuzzed `model.safetensors`; an input that is JSON
//! replaces the configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pith_converter::checkpoint::Checkpoint;
use pith_converter::{ConvertOptions, convert};

const CONFIG: &str = r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32,
    "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1,
    "vocab_size": 16, "rms_norm_eps": 1e-5, "max_position_embeddings": 16, "tie_word_embeddings": true}"#;

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a temporary folder");
    let is_config = data.first() == Some(&b'{');
    let config = if is_config { data } else { CONFIG.as_bytes() };
    std::fs::write(folder.path().join("config.json"), config).expect("room for it");
    std::fs::write(folder.path().join("model.safetensors"), if is_config { &[] } else { data }).expect("room for it");
    let Ok(checkpoint) = Checkpoint::open(folder.path()) else { return };
    for tensor in checkpoint.tensors() {
        let _ = checkpoint.load_f32(&tensor.name);
    }
    let _ = convert(folder.path(), &folder.path().join("out.pith"), &ConvertOptions::default(), &());
});
