//! Logits, and the text that follows from them.

use crate::golden::{Golden, Position};
use pith_format::Encoding;
use pith_runtime::{Model, Session, SessionOptions};
use pith_tests::{convert_all, exact_session};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Largest difference of logits between two programs that compute in f32, in parts of the largest
/// logit.
const F32_NOISE: f64 = 1e-5;

/// How much larger than the oracle's own the effect of rounded activations may be. Both are one
/// sample of the same rounding: the same groups and codes until the last bits of f32 differ, another
/// code here and there from then on. The mean over all positions of all prompts varies by a tenth
/// or two of itself.
const SPREAD: f64 = 1.5;

/// Whose logits are compared at some positions.
type Visit<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// The whole prompt in one call.
fn at_once(session: &mut Session, ids: &[u32], visit: Visit<'_>) {
    session.reset();
    session.logits_of(ids, visit).unwrap();
}

/// Each token in a call of its own.
fn one_by_one(session: &mut Session, ids: &[u32], visit: Visit<'_>) {
    session.reset();
    for (index, &id) in ids.iter().enumerate() {
        visit(index, session.step(id).unwrap());
    }
}

/// A form of feeding a prompt, and its name.
type Feed = (&'static str, fn(&mut Session, &[u32], Visit<'_>));
const FEEDS: [Feed; 2] = [("at once", at_once), ("one by one", one_by_one)];

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    sum.ln() + f64::from(largest)
}

/// Over the position's tokens: the divergence from its distribution, in which all other tokens
/// count as one, and the mean square of the difference of log-probabilities.
fn divergence(expected: &Position, logits: &[f32]) -> (f64, f64) {
    let total = log_sum_exp(logits);
    let (mut kl, mut square, mut rest_p, mut rest_q) = (0.0, 0.0, 1.0, 1.0);
    for (&id, &logit) in expected.ids.iter().zip(&expected.logits) {
        let p = logit - expected.log_sum_exp;
        let q = f64::from(logits[id as usize]) - total;
        kl += p.exp() * (p - q);
        square += (p - q).powi(2);
        rest_p -= p.exp();
        rest_q -= q.exp();
    }
    // Golden values have five decimals: a rest of less is nothing.
    if rest_p > 1e-4 {
        kl += rest_p * (rest_p / rest_q).ln();
    }
    (kl, square / expected.ids.len() as f64)
}

/// Calls `visit` with each position of the golden file and the logits found there.
fn compare(golden: &Golden, model: &Arc<Model>, feed: Feed, mut visit: impl FnMut(&Position, &[f32])) {
    let longest = golden.logits.iter().map(|prompt| prompt.ids.len()).max().unwrap();
    let mut session = exact_session(model, longest);
    for prompt in &golden.logits {
        let mut expected: BTreeMap<usize, &Position> =
            prompt.positions.iter().map(|position| (position.index, position)).collect();
        feed.1(&mut session, &prompt.ids, &mut |index, logits| {
            if let Some(position) = expected.remove(&index) {
                visit(position, logits);
            }
        });
        assert!(expected.is_empty(), "{}", prompt.name);
    }
}

/// Decoded weights and activations in f32: the oracle's logits.
pub fn decoded_weights_give_the_same(golden: &Golden) {
    let converted = convert_all(&golden.source(), Encoding::F32);
    let model = converted.open();
    for feed in FEEDS {
        let mut worst = 0.0f64;
        compare(golden, &model, feed, |expected, logits| {
            let largest = expected.logits.iter().fold(0.0f64, |largest, logit| largest.max(logit.abs()));
            let found = expected.ids.iter().map(|&id| f64::from(logits[id as usize]));
            let pairs = found.zip(expected.logits.iter().copied());
            let sums = (log_sum_exp(logits), expected.log_sum_exp);
            for (found, expected) in pairs.chain([sums]) {
                worst = worst.max((found - expected).abs() / largest);
            }
        });
        println!("{}: the largest difference is {worst:.2e} of the largest logit", feed.0);
        assert!(worst <= F32_NOISE, "{}: {worst}", feed.0);
    }
}

/// Carried weights: what 8-bit activations make of the oracle's logits, and no more.
pub fn carried_weights_differ_by_rounded_activations(golden: &Golden) {
    let (converted, _) = golden.carried();
    let model = converted.open();
    let mean = |of: fn(&crate::golden::Prompt) -> f64| {
        golden.logits.iter().map(of).sum::<f64>() / golden.logits.len() as f64
    };
    let rounded_kl = mean(|prompt| prompt.rounded_kl);
    let rounded_rms = mean(|prompt| prompt.rounded_rms.powi(2)).sqrt();
    for feed in FEEDS {
        let (mut kl, mut square, mut count) = (0.0, 0.0, 0.0);
        compare(golden, &model, feed, |expected, logits| {
            let (position_kl, position_square) = divergence(expected, logits);
            kl += position_kl;
            square += position_square;
            count += 1.0;
        });
        let (kl, rms) = (kl / count, f64::sqrt(square / count));
        println!("{}: KL {kl:.6} (oracle {rounded_kl:.6}), {rms:.4} nats (oracle {rounded_rms:.4})", feed.0);
        assert!(kl <= SPREAD * rounded_kl, "{}: {kl}", feed.0);
        assert!(rms <= SPREAD * rounded_rms, "{}: {rms}", feed.0);
    }
}

/// Carried weights write the oracle's text, whose choices are clear.
pub fn greedy_text_is_the_same(golden: &Golden) {
    let (converted, _) = golden.carried();
    let model = converted.open();
    let tokenizer = model.tokenizer().unwrap();
    let options = SessionOptions { context_len: Some(256), threads: Some(2), ..SessionOptions::default() };
    let mut session = Session::new(Arc::clone(&model), options).unwrap();
    assert!(golden.greedy.len() >= 3);
    for expected in &golden.greedy {
        let prompt_ids = tokenizer.encode(&expected.prompt, true).unwrap();
        assert_eq!(prompt_ids, expected.prompt_ids, "{:?}", expected.prompt);
        let ids = expected.generate(&mut session);
        let start = tokenizer.decode(&prompt_ids, false).unwrap();
        let whole = tokenizer.decode(&[&prompt_ids[..], &ids[..]].concat(), false).unwrap();
        assert_eq!(&whole[start.len()..], expected.text, "{:?}", expected.prompt);
        assert_eq!(ids, expected.ids, "{:?}", expected.prompt);
    }
}
