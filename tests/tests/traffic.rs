//! Counted traffic against the directory's sizes.

use pith_format::{Encoding, Role};
use pith_runtime::{KvType, Session, SessionOptions};
use pith_tests::{convert_all, convert_with, exact_session, golden};
use std::sync::Arc;

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
        model.config().layers.iter().map(|layer| (layer.attention().unwrap().kv_len() * 2 * 4) as u64).sum();
    let mut session = exact_session(&model, 8);
    for position in 1..=8 {
        session.step(5).unwrap();
        let traffic = session.last_traffic();
        assert_eq!(traffic.kv_write_bytes, row_bytes);
        assert_eq!(traffic.kv_read_bytes, position * row_bytes);
    }
}

/// At contexts of 1, 100 and 1,000 tokens: the cache by its closed form, the weights by the
/// directory.
#[test]
fn long_contexts_cost_what_their_length_says() {
    let model = convert_with(&golden().join("families/llama3"), pith_converter::Recipe::default()).open();
    let layers = &model.config().layers;
    for (kv_type, value_bytes) in [(KvType::F16, 2), (KvType::F32, 4)] {
        // Keys and values of every layer.
        let row_bytes: u64 =
            layers.iter().map(|layer| (2 * layer.attention().unwrap().kv_len() * value_bytes) as u64).sum();
        let options = SessionOptions {
            context_len: Some(1000),
            beyond_model: true,
            kv_type,
            threads: Some(2),
            ..SessionOptions::default()
        };
        let mut session = Session::new(Arc::clone(&model), options).unwrap();
        for context in [1, 100, 1000] {
            let missing = context - 1 - session.position();
            if missing > 0 {
                session.prefill(&vec![7; missing]).unwrap();
            }
            session.step(5).unwrap();
            let traffic = session.last_traffic();
            assert_eq!(traffic.kv_read_bytes, context as u64 * row_bytes, "{context} tokens");
            assert_eq!(traffic.kv_write_bytes, row_bytes);
            assert_eq!(traffic.weight_bytes, model.streamed_bytes());
        }
    }
}
