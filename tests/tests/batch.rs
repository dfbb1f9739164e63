//! Several sequences in one pass, over the embedded model and every family's golden checkpoint:
//! each gets the same bits as alone.

use pith_format::Encoding;
use pith_runtime::{Engine, EngineOptions, KvType, Model, Session, SessionOptions};
use pith_tests::{convert_all, golden, is_emulated, wren};
use std::path::Path;
use std::sync::Arc;

fn compare(source: &Path, encoding: Encoding, counts: &[usize]) {
    let converted = convert_all(source, encoding);
    let model = converted.open();
    let options = EngineOptions { threads: Some(2), ..EngineOptions::default() };
    let engine = Engine::new(options).unwrap();
    for &count in counts {
        let mut alone: Vec<_> = (0..count).map(|index| session(&engine, &model, index)).collect();
        let mut together: Vec<_> = (0..count).map(|index| session(&engine, &model, index)).collect();
        for pass in 0..3 {
            let sequences = together.iter_mut().enumerate();
            let mut batch: Vec<_> =
                sequences.map(|(index, session)| (session, token(&model, 5 * index + pass))).collect();
            engine.step(&mut batch).unwrap();
            for (index, (alone, together)) in alone.iter_mut().zip(&together).enumerate() {
                let expected = alone.step(token(&model, 5 * index + pass)).unwrap();
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
                assert!(
                    expected.iter().zip(together.logits()).all(same),
                    "{}, {encoding}: sequence {index} of {count}, pass {pass}",
                    source.display()
                );
            }
        }
    }
}

/// A sequence that is some tokens ahead of the others and has its own cache type.
fn session(engine: &Arc<Engine>, model: &Arc<Model>, index: usize) -> Session {
    let options = SessionOptions {
        context_len: Some(30 + index),
        kv_type: KvType::ALL[index % 4],
        ..SessionOptions::default()
    };
    let mut session = Session::with_engine(engine, Arc::clone(model), options).unwrap();
    let prompt: Vec<u32> = (0..3 + 2 * index).map(|at| token(model, at + index)).collect();
    session.prefill(&prompt).unwrap();
    session
}

fn token(model: &Model, number: usize) -> u32 {
    ((number * 37 + 5) % model.config().vocab_len) as u32
}

#[test]
fn the_embedded_models_sequences_get_the_bits_of_each_alone() {
    let encodings = [Encoding::Q4, Encoding::F32, Encoding::Q8];
    for encoding in encodings.into_iter().take(if is_emulated() { 1 } else { 3 }) {
        compare(&wren(), encoding, &[1, 2, 4, 8]);
    }
}

#[test]
fn every_familys_sequences_get_the_bits_of_each_alone() {
    let mut compared = 0;
    for entry in std::fs::read_dir(golden().join("families")).unwrap() {
        let folder = entry.unwrap().path();
        if folder.join("logits.npy").exists() && !folder.join("model.gguf").exists() {
            compare(&folder, Encoding::F32, if is_emulated() { &[3] } else { &[2, 4] });
            compared += 1;
        }
    }
    assert!(compared >= 20, "{compared} folders");
}
