//! Heads with a residual matrix: two stages give the exact logits where these matter.

use crate::support::{Plan, llama, tokens};
use pith_format::{Encoding, Role, TensorId};
use pith_runtime::{EXACT_TOKENS, Model, Sampler, SamplerOptions, Session, SessionOptions};
use std::sync::Arc;

const VOCAB_LEN: usize = 5003;

/// A vocabulary that is not a multiple of 16, and a residual matrix with values about a tenth of
/// the first's.
fn plan(tied: bool) -> Plan {
    let mut plan = llama();
    plan.config.vocab_len = VOCAB_LEN;
    plan.config.tied_head = tied;
    plan.config.eos = vec![];
    plan.encoding = Encoding::Q8;
    plan.roles.push(Role::HeadResidual);
    plan.weight = |role, row, col| {
        let hash = (row as u64 * 7919 + col as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        (role == Role::HeadResidual).then_some((hash as f32 / (1u32 << 24) as f32 - 0.5) * 0.03)
    };
    plan
}

fn session(model: &Arc<Model>, two_stage_logits: bool, threads: usize) -> Session {
    let options = SessionOptions { two_stage_logits, threads: Some(threads), ..SessionOptions::default() };
    Session::new(Arc::clone(model), options).unwrap()
}

/// Tokens by descending logit.
fn ranked(logits: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order
}

fn residual_bytes(model: &Model) -> u64 {
    model.index().entry(TensorId::model(Role::HeadResidual)).unwrap().bytes
}

#[test]
fn the_most_likely_tokens_have_exact_logits() {
    let changes: [fn(&mut Plan); 4] = [
        |_| (),
        |p| p.config.tied_head = false,
        |p| p.roles.push(Role::HeadBias),
        |p| {
            p.roles.push(Role::HeadBias);
            p.config.logit_softcap = Some(3.0);
        },
    ];
    for change in changes {
        let mut plan = plan(true);
        change(&mut plan);
        let model = plan.build().open();
        let (mut exact, mut staged) = (session(&model, false, 2), session(&model, true, 2));
        let mut rough = 0;
        for token in tokens(12, VOCAB_LEN) {
            let expected = exact.step(token).unwrap();
            let found = staged.step(token).unwrap();
            let order = ranked(expected);
            assert_eq!(ranked(found)[..EXACT_TOKENS], order[..EXACT_TOKENS]);
            for &token in &order[..EXACT_TOKENS] {
                assert_eq!(found[token], expected[token], "token {token}");
            }
            let spread = expected[order[0]] - expected[order[VOCAB_LEN / 2]];
            for (found, expected) in found.iter().zip(expected) {
                rough += usize::from(found != expected);
                assert!((found - expected).abs() < 0.3 * spread, "{found} is far from {expected}");
            }
        }
        assert!(rough > 12 * VOCAB_LEN / 2, "{rough} logits were left rough");
    }
}

#[test]
fn a_stage_reads_little_of_the_second_part() {
    let model = plan(false).build().open();
    let mut staged = session(&model, true, 1);
    staged.step(7).unwrap();
    let read = staged.last_traffic().weight_bytes;
    let residual = residual_bytes(&model);
    let first = model.streamed_bytes() - residual;
    assert!(read > first && read < first + residual / 2, "{read} of {first} and {residual}");
    let block = residual / VOCAB_LEN.div_ceil(16) as u64;
    assert_eq!((read - first) % block, 0);

    let mut exact = session(&model, false, 1);
    exact.step(7).unwrap();
    assert_eq!(exact.last_traffic().weight_bytes, model.streamed_bytes());
}

#[test]
fn threads_do_not_change_what_stages_give() {
    let model = plan(true).build().open();
    let of = |threads| {
        let mut session = session(&model, true, threads);
        session.prefill(&tokens(9, VOCAB_LEN)).unwrap();
        (session.step(5).unwrap().to_vec(), session.last_traffic())
    };
    let expected = of(1);
    for threads in [2, 3] {
        assert_eq!(of(threads), expected, "{threads} threads");
    }
}

#[test]
fn logits_of_several_tokens_are_exact() {
    let model = plan(true).build().open();
    let (mut exact, mut staged) = (session(&model, false, 2), session(&model, true, 2));
    let tokens = tokens(5, VOCAB_LEN);
    staged.step_all(&tokens).unwrap();
    for (index, &token) in tokens.iter().enumerate() {
        assert_eq!(staged.logits_at(index), exact.step(token).unwrap(), "token {index}");
    }
    let (mut of_exact, mut of_staged) = (Vec::new(), Vec::new());
    exact.reset();
    staged.reset();
    exact.logits_of(&tokens, |_, logits| of_exact.extend_from_slice(logits)).unwrap();
    staged.logits_of(&tokens, |_, logits| of_staged.extend_from_slice(logits)).unwrap();
    assert_eq!(of_staged, of_exact);
}

#[test]
fn logits_that_were_overwritten_are_not_handed_out() {
    let model = plan(true).build().open();
    let mut session = session(&model, false, 2);
    let tokens = tokens(5, VOCAB_LEN);
    let is_refused = |session: &Session, index| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| session.logits_at(index).len())).is_err()
    };
    session.step_all(&tokens).unwrap();
    session.step_all(&tokens[..1]).unwrap();
    assert!(!is_refused(&session, 0) && is_refused(&session, 1));
    session.logits_of(&tokens, |_, _| ()).unwrap();
    assert!(is_refused(&session, 0));
}

#[test]
fn texts_are_the_same() {
    let model = plan(true).build().open();
    for sampler in [
        SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
        SamplerOptions { temperature: 1.0, top_k: EXACT_TOKENS, seed: 3, ..SamplerOptions::default() },
    ] {
        let text = |two_stage| {
            let mut session = session(&model, two_stage, 2);
            let mut sampler = Sampler::new(sampler.clone()).unwrap();
            session.prefill(&tokens(5, VOCAB_LEN)).unwrap();
            for _ in 0..40 {
                let token = sampler.sample(session.logits()).unwrap();
                session.step(token).unwrap();
            }
            session.tokens().to_vec()
        };
        assert_eq!(text(true), text(false));
    }
}

#[test]
fn small_vocabularies_have_one_stage() {
    let mut plan = llama();
    plan.roles.push(Role::HeadResidual);
    let model = plan.build().open();
    let (mut exact, mut staged) = (session(&model, false, 1), session(&model, true, 1));
    assert_eq!(staged.step(3).unwrap(), exact.step(3).unwrap());
    assert_eq!(staged.last_traffic(), exact.last_traffic());
}

#[test]
fn rough_logits_are_handed_to_no_session_that_wants_exact_ones() {
    let built = plan(true).build();
    let model = built.open();
    let path = built.folder.path().join("rough.session");
    let text = tokens(6, VOCAB_LEN);
    let (mut staged, mut exact) = (session(&model, true, 1), session(&model, false, 1));
    let expected = exact.prefill(&text).unwrap().to_vec();
    assert_ne!(staged.prefill(&text).unwrap(), expected);
    staged.save(&path).unwrap();
    let mut restored = session(&model, false, 1);
    restored.restore(&path).unwrap();
    assert_eq!(restored.logits(), expected);
    let mut copied = session(&model, false, 1);
    copied.copy_prefix_from(&staged, text.len()).unwrap();
    // Its last token is computed again, since there are no logits to keep.
    copied.resume(&text).unwrap();
    assert_eq!(copied.logits(), expected);
}
