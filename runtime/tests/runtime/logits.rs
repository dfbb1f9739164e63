//! Logits against the oracle, and against other ways of computing them.

use crate::oracle;
use crate::support::{Plan, attention, dense, is_emulated, llama, tokens, ungate};
use pith_format::{ActivationFunction, Dense, Encoding, FeedForward, Layer, Mixer, NormKind, Role, TensorId};
use pith_kernels::MIN_PACKED;
use pith_runtime::{KvType, Model, Session, SessionOptions};
use std::sync::Arc;

/// A change that adds one mechanism.
pub type Change = fn(&mut Plan);

/// Every mechanism alone, then all compatible ones together.
pub const MECHANISMS: &[(&str, Change)] = &[
    ("nothing", |_| ()),
    ("16-bit weights", |p| p.encoding = Encoding::F16),
    ("untied head", |p| p.config.tied_head = false),
    ("tied head in two parts", |p| p.roles.push(Role::HeadResidual)),
    ("untied head in two parts", |p| {
        p.config.tied_head = false;
        p.roles.push(Role::HeadResidual);
    }),
    ("head bias", |p| p.roles.push(Role::HeadBias)),
    ("embedding scale", |p| p.config.embedding_scale = 1.7),
    ("embedding norm", |p| p.roles.push(Role::EmbeddingNorm)),
    ("position embedding", |p| p.roles.push(Role::PositionEmbedding)),
    ("layer norm", |p| p.config.norm = NormKind::Layer),
    ("layer norm with bias", |p| {
        p.config.norm = NormKind::Layer;
        p.roles.extend([Role::MixerNormBias, Role::FfnNormBias, Role::OutputNormBias]);
    }),
    ("attention biases", |p| {
        p.roles.extend([Role::QueryBias, Role::KeyBias, Role::ValueBias, Role::AttentionOutputBias]);
    }),
    ("feed-forward biases", |p| p.roles.extend([Role::GateBias, Role::UpBias, Role::DownBias])),
    ("query and key norms", |p| each(p, |layer| attention(layer).qk_norm = true)),
    ("post norms", |p| p.roles.extend([Role::MixerPostNorm, Role::FfnPostNorm])),
    ("no gate", |p| each(p, ungate)),
    ("no gate in one layer", |p| ungate(&mut p.config.layers[1])),
    ("no attention in one layer", |p| p.config.layers[1].mixer = Mixer::None {}),
    ("no attention at all", |p| each(p, |layer| layer.mixer = Mixer::None {})),
    ("no feed-forward block in one layer", |p| p.config.layers[1].feed_forward = FeedForward::None {}),
    ("a layer of nothing", |p| {
        let layer = &mut p.config.layers[1];
        (layer.mixer, layer.feed_forward) = (Mixer::None {}, FeedForward::None {});
    }),
    ("uneven heads", |p| {
        attention(&mut p.config.layers[0]).query_heads = vec![3, 1];
        attention(&mut p.config.layers[1]).query_heads = vec![1, 4, 2];
    }),
    ("gelu", |p| each(p, |layer| dense(layer).activation = ActivationFunction::Gelu)),
    ("gelu by tanh", |p| each(p, |layer| dense(layer).activation = ActivationFunction::GeluTanh)),
    ("window", |p| attention(&mut p.config.layers[1]).window = Some(5)),
    ("window of one", |p| attention(&mut p.config.layers[1]).window = Some(1)),
    ("attention softcap", |p| each(p, |layer| attention(layer).softcap = Some(0.5))),
    ("logit softcap", |p| p.config.logit_softcap = Some(3.0)),
    ("no rope in one layer", |p| attention(&mut p.config.layers[1]).rope = None),
    ("partial rope with magnitude", |p| attention(&mut p.config.layers[2]).rope = Some(1)),
    ("parallel with its own norm", |p| each(p, |layer| layer.parallel = true)),
    ("parallel with one norm", |p| {
        each(p, |layer| layer.parallel = true);
        p.without.extend((0..3).map(|index| TensorId::layer(Role::FfnNorm, index)));
    }),
    ("one key head", |p| each(p, |layer| attention(layer).query_heads = vec![4])),
    ("as many key heads as query heads", |p| each(p, |layer| attention(layer).query_heads = vec![1; 4])),
    ("layers of different dimensions", |p| different_layers(p)),
    ("everything", |p| everything(p)),
];

fn each(plan: &mut Plan, change: fn(&mut Layer)) {
    plan.config.layers.iter_mut().for_each(change);
}

fn different_layers(plan: &mut Plan) {
    let [first, second, third] = &mut plan.config.layers[..] else { panic!("three layers") };
    (attention(first).query_heads, attention(first).head_dim) = (vec![2; 3], 16);
    (attention(second).query_heads, dense(second).len) = (vec![1; 2], 1);
    *dense(third) = Dense { len: 1500, activation: ActivationFunction::GeluTanh };
}

fn everything(plan: &mut Plan) {
    different_layers(plan);
    plan.config.norm = NormKind::Layer;
    plan.config.tied_head = false;
    plan.config.logit_softcap = Some(4.0);
    plan.config.embedding_scale = 0.6;
    each(plan, |layer| {
        attention(layer).softcap = Some(2.0);
        attention(layer).qk_norm = true;
        ungate(layer);
    });
    attention(&mut plan.config.layers[0]).window = Some(7);
    plan.config.layers[1].parallel = true;
    attention(&mut plan.config.layers[2]).rope = None;
    plan.without.extend([TensorId::layer(Role::FfnNorm, 1), TensorId::layer(Role::FfnNormBias, 1)]);
    let left_out = [Role::Tokenizer, Role::Gate];
    plan.roles.extend(Role::ALL.iter().filter(|role| !left_out.contains(role)));
}

pub fn session(model: &Arc<Model>, kv_type: KvType, threads: usize, batch: usize) -> Session {
    let options =
        SessionOptions { kv_type, threads: Some(threads), batch: Some(batch), ..SessionOptions::default() };
    Session::new(Arc::clone(model), options).unwrap()
}

fn all_logits(session: &mut Session, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    session
        .logits_of(tokens, |position, logits| {
            assert_eq!(position, all.len());
            all.push(logits.to_vec());
        })
        .unwrap();
    all
}

/// Panics unless the logits differ by at most `bound` times the largest of those expected.
#[track_caller]
fn assert_close(found: &[Vec<f32>], expected: &[Vec<f64>], bound: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().flatten().fold(0.0f64, |largest, logit| largest.max(logit.abs()));
    assert!(largest > 0.1, "{what}: the logits say something");
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= bound * largest, "{what}, position {position}: {found} is not {expected}");
        }
    }
}

fn widen(logits: &[Vec<f32>]) -> Vec<Vec<f64>> {
    logits.iter().map(|logits| logits.iter().map(|&logit| f64::from(logit)).collect()).collect()
}

#[test]
fn every_mechanism_gives_the_oracles_logits() {
    let mut seen: Vec<(&str, Vec<Vec<f64>>)> = Vec::new();
    for (name, change) in MECHANISMS {
        let mut plan = llama();
        change(&mut plan);
        let built = plan.build();
        let tokens = tokens(19, plan.config.vocab_len);
        let expected = oracle::logits(&plan.config, &built, &tokens);
        let model = built.open();
        for kernels in pith_kernels::available() {
            // The reference kernels are slow and have no special path for these.
            if kernels.name() == "reference" && *name != "everything" {
                continue;
            }
            let options = SessionOptions {
                kv_type: KvType::F32,
                threads: Some(2),
                batch: Some(8),
                kernels: Some(kernels.name().into()),
                ..SessionOptions::default()
            };
            let mut session = Session::new(Arc::clone(&model), options).unwrap();
            let found = all_logits(&mut session, &tokens);
            assert_close(&found, &expected, 1e-4, &format!("{name} on {}", kernels.name()));
        }
        for (other, logits) in &seen {
            assert_ne!(logits, &expected, "{name} changes as little as {other}");
        }
        seen.push((name, expected));
    }
}

#[test]
fn prefill_equals_token_by_token() {
    for (name, change) in [("llama", MECHANISMS[0].1), ("everything", everything as Change)] {
        for encoding in [Encoding::F32, Encoding::Q8] {
            let mut plan = llama();
            change(&mut plan);
            plan.encoding = encoding;
            let (model, tokens) = (plan.build().open(), tokens(33, plan.config.vocab_len));
            for kv_type in KvType::ALL {
                let mut stepped = session(&model, kv_type, 1, 32);
                let single: Vec<Vec<f32>> =
                    tokens.iter().map(|&token| stepped.step(token).unwrap().to_vec()).collect();
                let expected = widen(&single);
                let what = format!("{name} in {encoding} with {kv_type}");
                // Calls of more tokens may round the weights again.
                let batches = if encoding == Encoding::F32 { [1, 7, 33] } else { [1, 7, MIN_PACKED - 1] };
                for batch in batches.into_iter().skip(usize::from(is_emulated())) {
                    let mut session = self::session(&model, kv_type, 1, batch);
                    // Calls of many tokens differ in the last bits, which may flip a code: with 4
                    // bits, by a tenth of a number.
                    let bound = if kv_type == KvType::Q4 && batch > 7 { 5e-2 } else { 1e-4 };
                    assert_close(&all_logits(&mut session, &tokens), &expected, bound, &what);
                    session.reset();
                    let last = session.prefill(&tokens).unwrap().to_vec();
                    assert_close(&[last], &expected[32..], bound, &what);
                }
            }
        }
    }
}

#[test]
fn prefill_is_as_exact_as_token_by_token() {
    let logits = |encoding, batch| {
        let plan = Plan { encoding, ..llama() };
        let (model, tokens) = (plan.build().open(), tokens(64, plan.config.vocab_len));
        all_logits(&mut session(&model, KvType::F32, 1, batch), &tokens)
    };
    let exact = logits(Encoding::F32, 1);
    let error = |found: Vec<Vec<f32>>| -> f64 {
        let pairs = found.iter().flatten().zip(exact.iter().flatten());
        pairs.map(|(found, exact)| f64::from(found - exact).powi(2)).sum::<f64>().sqrt()
    };
    for encoding in [Encoding::Q4, Encoding::Q4G64, Encoding::Q8] {
        let (single, many) = (error(logits(encoding, 1)), error(logits(encoding, 64)));
        assert!(many < 1.2 * single, "{encoding}: error {many} of 64 tokens at once, {single} one by one");
    }
}

#[test]
fn threads_do_not_change_logits() {
    let mut plan = llama();
    everything(&mut plan);
    let (model, tokens) = (plan.build().open(), tokens(40, plan.config.vocab_len));
    let mut expected: Option<Vec<Vec<f32>>> = None;
    for threads in [1, 2, 3, 8] {
        let mut session = session(&model, KvType::F16, threads, 16);
        assert_eq!(session.threads(), threads);
        let mut found = all_logits(&mut session, &tokens[..30]);
        found.extend(tokens[30..].iter().map(|&token| session.step(token).unwrap().to_vec()));
        let expected = expected.get_or_insert_with(|| found.clone());
        // A kernel may group rows differently at the end of a band.
        assert_close(&found, &widen(expected), 1e-6, &format!("{threads} threads"));
    }
}

#[test]
fn cache_types_cost_little() {
    let (plan, tokens) = (llama(), tokens(40, 301));
    let model = plan.build().open();
    let exact = widen(&all_logits(&mut session(&model, KvType::F32, 1, 16), &tokens));
    for (kv_type, bound) in [(KvType::F16, 2e-3), (KvType::Q8, 4e-2), (KvType::Q4, 0.4)] {
        let found = all_logits(&mut session(&model, kv_type, 1, 16), &tokens);
        assert_close(&found, &exact, bound, kv_type.name());
        assert_ne!(widen(&found), exact, "{kv_type} rounds");
    }
}

#[test]
fn truncated_sequences_go_on_as_if_nothing_had_been() {
    let (plan, tokens) = (llama(), tokens(20, 301));
    let model = plan.build().open();
    let mut session = session(&model, KvType::F16, 1, 16);
    let expected = session.prefill(&tokens).unwrap().to_vec();
    session.truncate(9);
    session.truncate(100);
    assert_eq!(session.tokens(), &tokens[..9]);
    session.prefill(&[5, 6, 7]).unwrap();
    session.truncate(9);
    // The chunks differ from those before.
    let found = session.prefill(&tokens[9..]).unwrap().to_vec();
    assert_eq!(session.logits(), found);
    assert_close(&[found], &widen(std::slice::from_ref(&expected)), 1e-4, "after a truncation");
    session.reset();
    assert_eq!(session.prefill(&tokens).unwrap(), expected);
}

#[test]
fn long_contexts_use_the_long_frequencies() {
    let mut plan = llama();
    let table = &mut plan.config.rope[0];
    table.long_inv_freq = Some(table.inv_freq.iter().map(|inv_freq| inv_freq / 3.0).collect());
    table.long_from = Some(32);
    let (model, tokens) = (plan.build().open(), tokens(12, 301));
    let run = |model: &Arc<Model>, context_len| {
        let options = SessionOptions { context_len: Some(context_len), ..SessionOptions::default() };
        all_logits(&mut Session::new(Arc::clone(model), options).unwrap(), &tokens)
    };
    let (short, long) = (run(&model, 32), run(&model, 33));
    assert_ne!(short, long);
    let mut plan = llama();
    plan.config.rope[0].inv_freq.iter_mut().for_each(|inv_freq| *inv_freq /= 3.0);
    assert_eq!(long, run(&plan.build().open(), 33));
}

#[test]
fn layers_may_be_wider_than_the_stream() {
    let mut plan = llama();
    plan.config.layers.truncate(2);
    each(&mut plan, |layer| attention(layer).query_heads = vec![4; 4]);
    let built = plan.build();
    let tokens = tokens(6, 301);
    let found = all_logits(&mut session(&built.open(), KvType::F32, 1, 4), &tokens);
    assert_close(&found, &oracle::logits(&plan.config, &built, &tokens), 1e-4, "wide attention");
}
