//! One pass over several sequences.

use crate::support::{Plan, llama, tokens};
use pith_format::{Encoding, Role};
use pith_runtime::{Engine, EngineOptions, KvType, Model, RuntimeError, Session, SessionOptions};
use std::sync::Arc;

const VOCAB_LEN: usize = 301;

/// A window in one layer, and a head with a residual matrix and enough rows for two stages.
fn plan(encoding: Encoding) -> Plan {
    let mut plan = llama();
    plan.encoding = encoding;
    crate::support::attention(&mut plan.config.layers[1]).window = Some(9);
    plan
}

fn engine(threads: usize, kernels: &str) -> Arc<Engine> {
    let kernels = Some(kernels.into());
    Engine::new(EngineOptions { threads: Some(threads), kernels, ..EngineOptions::default() }).unwrap()
}

/// Sessions that differ in everything possible: context, cache, position, batch.
fn sessions(engine: &Arc<Engine>, model: &Arc<Model>, count: usize) -> Vec<Session> {
    let open = |index: usize| {
        let options = SessionOptions {
            context_len: Some(40 + 2 * index),
            kv_type: KvType::ALL[index % 4],
            batch: Some(12 - index % 3),
            ..SessionOptions::default()
        };
        let mut session = Session::with_engine(engine, Arc::clone(model), options).unwrap();
        let text = tokens(60, VOCAB_LEN);
        // The second session is still empty.
        if index != 1 {
            session.prefill(&text[index..index + 3 + 2 * index]).unwrap();
        }
        session
    };
    (0..count).map(open).collect()
}

/// The token of sequence `index` in pass `pass`.
fn token(index: usize, pass: usize) -> u32 {
    ((index * 37 + pass * 11 + 5) % VOCAB_LEN) as u32
}

fn step(
    engine: &Engine,
    sessions: &mut [Session],
    pass: usize,
) -> Result<pith_runtime::Traffic, RuntimeError> {
    let batch = sessions.iter_mut().enumerate();
    engine.step(&mut batch.map(|(index, session)| (session, token(index, pass))).collect::<Vec<_>>())
}

#[test]
fn each_sequence_gets_the_bits_it_gets_alone() {
    for encoding in [Encoding::Q4, Encoding::Q8, Encoding::F16, Encoding::F32] {
        let model = plan(encoding).build().open();
        for kernels in pith_kernels::available() {
            if kernels.name() == "reference" {
                continue;
            }
            for (threads, count) in [(1, 2), (2, 4), (3, 8), (2, 1), (1, 11), (2, 13)] {
                let engine = engine(threads, kernels.name());
                let (mut alone, mut together) =
                    (sessions(&engine, &model, count), sessions(&engine, &model, count));
                for pass in 0..4 {
                    step(&engine, &mut together, pass).unwrap();
                    for (index, (alone, together)) in alone.iter_mut().zip(&together).enumerate() {
                        let expected = alone.step(token(index, pass)).unwrap();
                        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
                        assert!(
                            expected.iter().zip(together.logits()).all(same),
                            "{encoding}, {}, sequence {index} of {count}, pass {pass}",
                            kernels.name()
                        );
                        assert_eq!(alone.tokens(), together.tokens());
                    }
                }
                // Continue as if nothing had happened.
                for (alone, together) in alone.iter_mut().zip(&mut together) {
                    let text = tokens(5, VOCAB_LEN);
                    assert!(alone.prefill(&text).unwrap() == together.prefill(&text).unwrap());
                }
            }
        }
    }
}

#[test]
fn two_stage_logits_are_those_of_the_sequence_alone() {
    let mut plan = plan(Encoding::Q4);
    plan.config.vocab_len = 4000;
    plan.roles.push(Role::HeadResidual);
    let model = plan.build().open();
    let engine = engine(2, pith_kernels::best().name());
    let open = |index: usize| {
        let options = SessionOptions { two_stage_logits: index % 3 == 1, ..SessionOptions::default() };
        let mut session = Session::with_engine(&engine, Arc::clone(&model), options).unwrap();
        session.prefill(&[1, 2, 3, index as u32]).unwrap();
        session
    };
    for first in 0..3 {
        let mut alone: Vec<Session> = (first..first + 5).map(open).collect();
        let mut together: Vec<Session> = (first..first + 5).map(open).collect();
        for pass in 0..3 {
            step(&engine, &mut together, pass).unwrap();
            for (index, (alone, together)) in alone.iter_mut().zip(&together).enumerate() {
                assert!(alone.step(token(index, pass)).unwrap() == together.logits(), "sequence {index}");
            }
        }
    }
}

#[test]
fn weights_are_read_once_for_all_and_every_byte_is_some_sessions() {
    let model = plan(Encoding::Q8).build().open();
    let engine = engine(2, "portable");
    let (mut alone, mut together) = (sessions(&engine, &model, 4), sessions(&engine, &model, 4));
    let counted = |sessions: &[Session]| -> u64 {
        sessions.iter().map(|session| session.traffic().total_bytes()).sum()
    };
    let before = counted(&together);
    let traffic = step(&engine, &mut together, 0).unwrap();
    assert_eq!(traffic.weight_bytes, model.streamed_bytes());
    assert_eq!(counted(&together) - before, traffic.total_bytes());
    for (index, (alone, together)) in alone.iter_mut().zip(&together).enumerate() {
        alone.step(token(index, 0)).unwrap();
        let (alone, together) = (alone.last_traffic(), together.last_traffic());
        assert_eq!(
            (alone.kv_read_bytes, alone.kv_write_bytes),
            (together.kv_read_bytes, together.kv_write_bytes)
        );
        assert!(together.weight_bytes.abs_diff(model.streamed_bytes() / 4) < 4);
    }
}

#[test]
fn a_sequence_that_cannot_go_on_stops_none_of_the_others() {
    let model = plan(Encoding::F32).build().open();
    let engine = engine(1, "portable");
    let mut sessions = sessions(&engine, &model, 3);
    assert_eq!(engine.step(&mut []).unwrap().total_bytes(), 0);
    let before: Vec<_> = sessions.iter().map(|session| session.tokens().to_vec()).collect();
    let check = |batch: &mut [(&mut Session, u32)], expected: usize| -> String {
        match engine.step(batch).unwrap_err() {
            RuntimeError::Sequence { index, source } if index == expected => source.to_string(),
            error => panic!("{error}"),
        }
    };
    {
        let [a, b, c] = &mut sessions[..] else { unreachable!() };
        let message = check(&mut [(a, 1), (b, 301), (c, 2)], 1);
        assert!(message.contains("301"), "{message}");
        let other = Engine::new(EngineOptions::default()).unwrap();
        let mut foreign =
            Session::with_engine(&other, Arc::clone(&model), SessionOptions::default()).unwrap();
        assert!(check(&mut [(a, 1), (&mut foreign, 1)], 1).starts_with("the engine"));
        let model = plan(Encoding::F32).build().open();
        let mut foreign = Session::with_engine(&engine, model, SessionOptions::default()).unwrap();
        assert!(check(&mut [(a, 1), (b, 1), (&mut foreign, 1)], 2).starts_with("the model"));
        let room = c.context_len() - c.position();
        c.prefill(&vec![7; room]).unwrap();
        let message = check(&mut [(a, 1), (b, 1), (c, 1)], 2);
        assert!(message.contains("do not fit"), "{message}");
        c.truncate(before[2].len());
    }
    for (session, before) in sessions.iter().zip(&before) {
        assert_eq!(session.tokens(), before);
    }
    step(&engine, &mut sessions, 0).unwrap();
}
