//! Counted bytes equal the directory's bytes.

use crate::logits::session;
use crate::support::{attention, is_emulated, llama, tokens};
use pith_format::{Encoding, NormKind, Role, TensorId};
use pith_runtime::{KvType, Session, SessionOptions, Traffic};
use std::sync::Arc;

/// Bytes that a decoded token streams, from the directory.
fn directory_bytes(model: &pith_runtime::Model, left_out: &[Role]) -> u64 {
    let entries = model.index().entries().iter();
    entries.filter(|entry| !left_out.contains(&entry.id.role)).map(|entry| entry.bytes).sum()
}

#[test]
fn a_decoded_token_streams_exactly_the_directorys_tensors() {
    // The counts do not depend on the kernels.
    let encodings = if is_emulated() { &[Encoding::Q8, Encoding::Q4NL] } else { Encoding::ALL };
    for encoding in encodings {
        let threads: &[usize] = if is_emulated() { &[3] } else { &[1, 3] };
        for &threads in threads {
            let mut tied = llama();
            tied.encoding = *encoding;
            tied.tokenizer = Some(vec![7; 1001]);
            let model = tied.build().open();
            let mut tied_session = session(&model, KvType::F16, threads, 8);
            tied_session.prefill(&tokens(5, 301)).unwrap();
            tied_session.step(3).unwrap();
            let expected = directory_bytes(&model, &[Role::Tokenizer]);
            assert_eq!(tied_session.last_traffic().weight_bytes, expected, "{encoding}");
            assert_eq!(model.streamed_bytes(), expected);

            let mut untied = llama();
            untied.encoding = *encoding;
            untied.config.tied_head = false;
            untied.config.norm = NormKind::Layer;
            untied.config.layers[1].parallel = true;
            untied.without.extend([TensorId::layer(Role::FfnNorm, 1), TensorId::layer(Role::FfnNormBias, 1)]);
            attention(&mut untied.config.layers[0]).qk_norm = true;
            untied.roles = Role::ALL.iter().copied().filter(|&role| role != Role::Tokenizer).collect();
            let model = untied.build().open();
            let mut session = session(&model, KvType::F16, threads, 8);
            session.step(3).unwrap();
            let expected = directory_bytes(&model, &[Role::TokenEmbedding, Role::PositionEmbedding]);
            assert_eq!(session.last_traffic().weight_bytes, expected, "{encoding}");
            assert_eq!(model.streamed_bytes(), expected);
            let block =
                |role| model.index().matrix(model.bytes(), TensorId::model(role)).unwrap().look_up_bytes(3);
            // Its head has a residual matrix and is not the embedding.
            let looked_up = block(Role::TokenEmbedding) + block(Role::PositionEmbedding);
            assert_eq!(session.last_traffic().embedding_bytes, looked_up as u64);
            assert_eq!(model.looked_up_bytes(), looked_up as u64);
        }
    }
}

#[test]
fn a_prompt_streams_layers_once_a_chunk_and_the_head_once() {
    let model = llama().build().open();
    let mut session = session(&model, KvType::F16, 1, 8);
    session.prefill(&tokens(20, 301)).unwrap();
    let layers: u64 = model.index().entries().iter().filter(|e| e.id.layer.is_some()).map(|e| e.bytes).sum();
    let output = model.streamed_bytes() - layers;
    assert_eq!(session.last_traffic().weight_bytes, 3 * layers + output);
    assert_eq!(session.last_traffic().embedding_bytes, 20 * model.looked_up_bytes());
    assert_eq!(session.traffic(), session.last_traffic());
}

#[test]
fn the_cache_counts_rows_read_and_written() {
    let mut plan = llama();
    attention(&mut plan.config.layers[1]).window = Some(3);
    let model = plan.build().open();
    // Keys and values, two heads, 12 dimensions.
    for (kv_type, row_bytes) in [(KvType::F32, 48), (KvType::F16, 24), (KvType::Q8, 14), (KvType::Q4, 18)] {
        let position_bytes = 2 * 2 * row_bytes;
        let mut session = session(&model, kv_type, 1, 8);
        session.prefill(&tokens(4, 301)).unwrap();
        let Traffic { kv_read_bytes, kv_write_bytes, .. } = session.last_traffic();
        assert_eq!(kv_write_bytes, 3 * 4 * position_bytes);
        // The tokens together read everything that any of them sees.
        assert_eq!(kv_read_bytes, 3 * 4 * position_bytes, "{kv_type}");
        session.step(1).unwrap();
        assert_eq!(session.last_traffic().kv_read_bytes, (2 * 5 + 3) * position_bytes);
        assert_eq!(session.kv_bytes(), 3 * 64 * position_bytes);
    }
}

#[test]
fn a_long_prompt_reads_the_cache_once_a_block_of_tokens() {
    let mut plan = llama();
    attention(&mut plan.config.layers[1]).window = Some(3);
    let model = plan.build().open();
    let position_bytes = 2 * 2 * 24;
    let mut session = session(&model, KvType::F16, 1, 64);
    session.prefill(&tokens(30, 301)).unwrap();
    // Two query heads per key head: 24 tokens, then 6, which see two positions before them in a
    // window of 3.
    assert_eq!(session.last_traffic().kv_read_bytes, (2 * (24 + 30) + 24 + 8) * position_bytes);
}

#[test]
fn a_recorded_pass_reads_every_matrix_once_and_changes_nothing() {
    let model = llama().build().open();
    let options = SessionOptions { threads: Some(2), ..SessionOptions::default() };
    let mut session = Session::new(Arc::clone(&model), options).unwrap();
    session.prefill(&[1, 2, 3]).unwrap();
    let expected = session.step(4).unwrap().to_vec();
    assert!(session.recorded().is_empty(), "nothing was asked for");
    session.truncate(3);
    session.record();
    assert_eq!(session.step(4).unwrap(), expected);
    let passes = session.recorded();
    let [pass] = &passes[..] else { panic!("{} passes", passes.len()) };
    let mut found: Vec<_> = pass.jobs.iter().flat_map(|job| job.matrices.iter().cloned()).collect();
    found.sort_by_key(|place| place.start);
    let entries = model.index().entries().iter().filter(|entry| entry.encoding.is_some());
    let mut matrices: Vec<_> =
        entries.map(|entry| entry.offset as usize..(entry.offset + entry.bytes) as usize).collect();
    matrices.sort_by_key(|place| place.start);
    assert_eq!(found, matrices);
    let mut last = pass.time.start;
    for job in &pass.jobs {
        assert!(last <= job.time.start && job.time.start <= job.time.end, "{job:?}");
        for thread in &job.threads {
            assert!(job.time.start <= thread.start && thread.end <= job.time.end, "{job:?}");
        }
        last = job.time.end;
    }
    assert!(last <= pass.time.end);
    session.stop_recording();
    session.step(5).unwrap();
    assert!(session.recorded().is_empty());
}
