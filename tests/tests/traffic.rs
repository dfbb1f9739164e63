//! What is counted against what the directory says.

use pith_format::{Encoding, Role};
use pith_tests::{convert_all, convert_with, exact_session, golden};

#[test]
fn counted_weight_bytes_are_the_directorys_sum() {
    for name in ["llama3", "llama3_untied", "gemma3", "gpt2", "gpt_neox", "qwen2", "smollm3"] {
        for encoding in Encoding::ALL {
            let model = convert_all(&golden().join("families").join(name), *encoding).open();
            let looked_up = |role| match role {
                Role::TokenEmbedding => !model.config().tied_head,
                Role::PositionEmbedding | Role::Tokenizer => true,
                _ => false,
            };
            let entries = model.index().entries().iter();
            let sum: u64 = entries.filter(|entry| !looked_up(entry.id.role)).map(|entry| entry.bytes).sum();
            let mut session = exact_session(&model, 8);
            session.prefill(&[1, 2, 3]).unwrap();
            session.step(4).unwrap();
            assert_eq!(session.last_traffic().weight_bytes, sum, "{name} in {encoding}");
        }
    }
}

#[test]
fn cache_bytes_follow_the_positions() {
    let model = convert_with(&golden().join("families/llama3"), pith_converter::Recipe::default()).open();
    let row_bytes: u64 =
        model.config().layers.iter().map(|layer| (layer.kv_heads * layer.head_dim * 2 * 4) as u64).sum();
    let mut session = exact_session(&model, 8);
    for position in 1..=8 {
        session.step(5).unwrap();
        let traffic = session.last_traffic();
        assert_eq!(traffic.kv_write_bytes, row_bytes);
        assert_eq!(traffic.kv_read_bytes, position * row_bytes);
    }
}
