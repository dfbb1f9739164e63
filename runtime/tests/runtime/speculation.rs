//! Speculation does not change the text.

use crate::generation::{CHAIN, EOS, chain, outcome, session, stops};
use crate::support::{Plan, attention, is_emulated, llama};
use pith_format::Encoding;
use pith_runtime::{
    Distribution, Draft, DraftModel, Drafter, GenerateOptions, KvType, Ledger, Lookup, Model, Outcome, Phase,
    RuntimeError, Sampler, SamplerOptions, Session, SessionOptions, StopReason,
};
use std::collections::HashMap;
use std::sync::Arc;

/// A random model over the chain's vocabulary, with this many layers.
fn random(layers: usize) -> Plan {
    let mut plan = llama();
    let chain = chain();
    plan.config.layers.truncate(layers);
    (plan.config.vocab_len, plan.config.bos, plan.config.eos) =
        (CHAIN.len(), chain.config.bos, chain.config.eos);
    plan.tokenizer = chain.tokenizer;
    // A tied head repeats the same token.
    plan.config.tied_head = false;
    plan
}

/// The complete result of a reply.
#[derive(Debug, PartialEq)]
struct Trace {
    reason: StopReason,
    tokens: Vec<u32>,
    pieces: Vec<String>,
    session: Vec<u32>,
    decoded: usize,
    /// The sampler's next token.
    next: u32,
}

/// A reply, with a drafter if given, left after this many pieces of text.
fn reply(
    session: &mut Session,
    drafter: Option<&mut dyn Drafter>,
    sampling: &SamplerOptions,
    prompt: &[u32],
    options: &GenerateOptions,
    patience: usize,
) -> (Trace, Outcome) {
    let mut sampler = Sampler::new(sampling.clone()).unwrap();
    let (mut ledger, mut pieces) = (Ledger::new(), Vec::new());
    let generation = session.generate(prompt, &mut sampler, options.clone()).with_ledger(&mut ledger);
    let mut generation = match drafter {
        None => generation,
        Some(drafter) => generation.with_drafter(drafter),
    };
    for token in &mut generation {
        pieces.extend(Some(token.unwrap().text).filter(|text| !text.is_empty()));
        if pieces.len() == patience {
            break;
        }
    }
    let outcome = generation.finish();
    let decode = ledger.totals(Phase::Decode);
    assert_eq!(decode.drafted, outcome.speculation.drafted);
    assert_eq!(decode.tokens, outcome.speculation.passes + outcome.speculation.accepted);
    assert_eq!(ledger.costs().len(), 1 + outcome.speculation.passes);
    let logits: Vec<f32> = (0..12).map(|token| ((token * 7) % 12) as f32 / 4.0).collect();
    let trace = Trace {
        reason: outcome.reason.clone(),
        tokens: outcome.tokens.clone(),
        pieces,
        session: session.tokens().to_vec(),
        decoded: decode.tokens,
        next: sampler.sample(&logits).unwrap(),
    };
    (trace, outcome)
}

/// Drafts a given text, from the sequence's position on.
struct Script {
    text: Vec<u32>,
    position: usize,
    most: usize,
}

impl Drafter for Script {
    fn most(&self) -> usize {
        self.most
    }

    fn begin(&mut self, sequence: &[u32]) -> Result<(), RuntimeError> {
        self.position = sequence.len();
        Ok(())
    }

    fn push(&mut self, _token: u32) {
        self.position += 1;
    }

    fn draft(&mut self, most: usize, _: &mut Sampler, draft: &mut Draft) -> Result<(), RuntimeError> {
        assert!((1..=self.most).contains(&most));
        // One more than requested; the excess is cut off.
        self.text.iter().skip(self.position).take(most + 1).for_each(|&token| draft.push(token));
        Ok(())
    }
}

#[test]
fn a_small_batch_gives_the_bits_of_single_steps() {
    let tokens = crate::support::tokens(40, 301);
    let counts: &[usize] = if is_emulated() { &[2, 3, 5, 8] } else { &[2, 3, 4, 5, 8, 11] };
    // One of each kind of kernel; the kernels' own suite has all.
    const KINDS: &[Encoding] =
        &[Encoding::F16, Encoding::Q8, Encoding::Q4, Encoding::Q4NL, Encoding::Q6K, Encoding::Q8N3];
    for encoding in if is_emulated() { KINDS } else { Encoding::ALL } {
        let mut plan = llama();
        plan.encoding = *encoding;
        attention(&mut plan.config.layers[1]).window = Some(9);
        let model = plan.build().open();
        for kernels in pith_kernels::available() {
            // The reference kernels are slow, and compute every token separately.
            if kernels.name() == "reference" {
                continue;
            }
            // The cache type is independent of the weights' encoding.
            let all = !is_emulated() || *encoding == Encoding::Q4;
            for kv_type in KvType::ALL.into_iter().filter(|&kv_type| all || kv_type == KvType::F16) {
                let threads: &[usize] = if is_emulated() { &[2] } else { &[1, 2] };
                for &threads in threads {
                    let options = SessionOptions {
                        kv_type,
                        threads: Some(threads),
                        kernels: Some(kernels.name().into()),
                        ..SessionOptions::default()
                    };
                    let mut single = Session::new(Arc::clone(&model), options.clone()).unwrap();
                    let mut session = Session::new(Arc::clone(&model), options).unwrap();
                    let what = format!("{encoding}, {}, {kv_type}, {threads} threads", kernels.name());
                    single.prefill(&tokens[..4]).unwrap();
                    session.prefill(&tokens[..4]).unwrap();
                    for &count in counts {
                        let at = session.position();
                        let batch = &tokens[at..at + count];
                        session.step_all(batch).unwrap();
                        for (index, &token) in batch.iter().enumerate() {
                            let expected = single.step(token).unwrap();
                            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
                            let all = session.logits_at(index).iter().zip(expected).all(same);
                            assert!(all, "{what}: token {index} of {count}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn whatever_is_drafted_a_reply_ends_as_it_does_without() {
    let model = chain().build().open();
    let greedy = SamplerOptions::greedy();
    let limits = [None, Some(0), Some(1), Some(2), Some(7), Some(20)];
    let stop_lists: [&[&str]; 4] = [&[], &["</end>"], &["o c", "never"], &["é"]];
    // The model's own text, and the same with every eleventh or second token wrong.
    let right: Vec<u32> = (0..60).map(|index| index % 12).collect();
    let wrong = |every: usize| -> Vec<u32> {
        right.iter().enumerate().map(|(i, &t)| if i % every == every - 1 { 3 } else { t }).collect()
    };
    let texts = [right.clone(), wrong(11), wrong(2), Vec::new()];
    let mut accepted = 0;
    let limits = if is_emulated() { &limits[4..] } else { &limits };
    for (context_len, patience) in [(64, 99), (9, 99), (64, 3)] {
        for &max_tokens in limits {
            for (stop_list, ignore_eos) in stop_lists.iter().flat_map(|stops| [(stops, false), (stops, true)])
            {
                let options = GenerateOptions { max_tokens, ignore_eos, ..stops(stop_list) };
                let run = |drafter: Option<&mut dyn Drafter>| {
                    reply(&mut session(&model, context_len), drafter, &greedy, &[0, 1], &options, patience)
                };
                let (expected, plain) = run(None);
                assert_eq!(plain.speculation.passes, expected.decoded);
                for (text, most) in texts.iter().flat_map(|text| [1, 2, 5, 8, 30].map(|most| (text, most))) {
                    let mut script = Script { text: text.clone(), position: 0, most };
                    let (found, outcome) = run(Some(&mut script));
                    assert_eq!(found, expected, "{options:?}, {most} of {text:?} in {context_len}");
                    accepted += outcome.speculation.accepted;
                }
            }
        }
    }
    assert!(accepted > 1000, "{accepted}");
}

#[test]
fn greedy_text_is_that_of_plain_decoding() {
    let model = random(3).build().open();
    let small = random(1).build().open();
    let options = GenerateOptions { ignore_eos: true, max_tokens: Some(45), ..Default::default() };
    let (mut drafted, mut accepted) = (0, 0);
    for penalty in [1.0, 1.3] {
        let greedy = SamplerOptions { repeat_penalty: penalty, repeat_window: 8, ..SamplerOptions::greedy() };
        for prompt in [&[0][..], &[3, 4, 5, 3, 4], &[7, 7, 1, 2, 9, 10, 7], &[1, 2, 3, 1, 2, 3, 1, 2]] {
            let (expected, _) = reply(&mut session(&model, 64), None, &greedy, prompt, &options, 999);
            assert_eq!(expected.tokens.len(), 45);
            for &most in if is_emulated() { &[2, 9][..] } else { &[1, 2, 4, 9, 14] } {
                let draft = |model| DraftModel::new(session(model, 64), &small, most).unwrap();
                let (mut same, mut other) = (draft(&model), draft(&small));
                let mut lookup = Lookup::new(most).unwrap();
                let drafters: [&mut dyn Drafter; 3] = [&mut lookup, &mut same, &mut other];
                for (index, drafter) in drafters.into_iter().enumerate() {
                    let (found, outcome) =
                        reply(&mut session(&model, 64), Some(drafter), &greedy, prompt, &options, 999);
                    assert_eq!(found, expected, "drafter {index}, {most} tokens after {prompt:?}");
                    let speculation = outcome.speculation;
                    if index == 1 {
                        // The same model drafts exactly the model's own tokens.
                        assert_eq!(speculation.acceptance(), Some(1.0));
                        assert!(
                            speculation.passes <= 44usize.div_ceil(most.min(4) + 1) + 2,
                            "{speculation:?}"
                        );
                    } else {
                        drafted += speculation.drafted;
                        accepted += speculation.accepted;
                    }
                }
            }
        }
    }
    assert!(0 < accepted && accepted < drafted, "{accepted} of {drafted}");
}

#[test]
fn a_drafter_goes_from_reply_to_reply() {
    let (model, small) = (random(3).build().open(), random(2).build().open());
    let greedy = SamplerOptions::greedy();
    let options = GenerateOptions { ignore_eos: true, max_tokens: Some(9), ..Default::default() };
    let mut lookup = Lookup::new(6).unwrap();
    let mut draft = DraftModel::new(session(&small, 64), &model, 6).unwrap();
    let drafters: [&mut dyn Drafter; 2] = [&mut lookup, &mut draft];
    for drafter in drafters {
        let (mut plain, mut drafted) = (session(&model, 64), session(&model, 64));
        let mut prompt = vec![0, 4, 5];
        for turn in 0..4 {
            let (expected, _) = reply(&mut plain, None, &greedy, &prompt, &options, 99);
            let (found, outcome) = reply(&mut drafted, Some(&mut *drafter), &greedy, &prompt, &options, 99);
            assert_eq!(found, expected);
            assert_eq!(outcome.reused_tokens > 0, turn > 0);
            // The third turn removes the second one.
            prompt.truncate(if turn == 2 { 5 } else { 99 });
            prompt.extend(&found.tokens);
            prompt.push(7);
        }
    }
}

#[test]
fn a_lookup_takes_the_draws_that_plain_decoding_takes() {
    let model = random(2).build().open();
    let options = GenerateOptions { ignore_eos: true, max_tokens: Some(50), ..Default::default() };
    let (mut drafted, mut accepted) = (0, 0);
    for seed in 0..if is_emulated() { 10 } else { 40 } {
        let sampling =
            SamplerOptions { temperature: 0.3, repeat_penalty: 0.8, seed, ..SamplerOptions::default() };
        let prompt = [0, 3, 4, 5, 6, 3, 4, 5, 6];
        let (expected, _) = reply(&mut session(&model, 64), None, &sampling, &prompt, &options, 999);
        let mut lookup = Lookup::new(8).unwrap();
        let (found, outcome) =
            reply(&mut session(&model, 64), Some(&mut lookup), &sampling, &prompt, &options, 999);
        assert_eq!(found, expected, "seed {seed}");
        drafted += outcome.speculation.drafted;
        accepted += outcome.speculation.accepted;
    }
    assert!(0 < accepted && accepted < drafted, "{accepted} of {drafted}");
}

/// Probabilities of every continuation of `prompt` by three tokens, from plain decoding.
fn law(model: &Arc<Model>, sampling: &SamplerOptions, prompt: &[u32]) -> HashMap<[u32; 3], f64> {
    let mut session = session(model, 64);
    let mut sampler = Sampler::new(sampling.clone()).unwrap();
    prompt.iter().for_each(|&token| sampler.accept(token));
    let mut after = |tokens: &[u32]| {
        session.resume(&[prompt, tokens].concat()).unwrap();
        let mut chances = Distribution::default();
        sampler.distribution(session.logits(), tokens, &mut chances).unwrap();
        chances.chances().to_vec()
    };
    let mut law = HashMap::new();
    for (a, p) in after(&[]) {
        for (b, q) in after(&[a]) {
            law.extend(after(&[a, b]).into_iter().map(|(c, r)| ([a, b, c], p * q * r)));
        }
    }
    law
}

#[test]
fn a_draft_models_text_is_distributed_as_plain_text() {
    let (model, small) = (random(2).build().open(), random(1).build().open());
    let prompt = [0, 5, 3];
    // One token more, so that the third can be drafted.
    let options = GenerateOptions { ignore_eos: true, max_tokens: Some(4), ..Default::default() };
    let cases = [
        SamplerOptions { temperature: 1.0, top_k: 6, top_p: 1.0, min_p: 0.0, ..SamplerOptions::default() },
        SamplerOptions { temperature: 1.4, top_k: 0, top_p: 0.8, repeat_penalty: 1.2, ..Default::default() },
    ];
    for sampling in cases {
        let law = law(&model, &sampling, &prompt);
        assert!((law.values().sum::<f64>() - 1.0).abs() < 1e-9);
        let mut session = session(&model, 64);
        let mut drafter = DraftModel::new(crate::generation::session(&small, 64), &model, 3).unwrap();
        let mut counts: HashMap<[u32; 3], u32> = HashMap::new();
        // Fewer draws give fewer cells of five or more.
        let (runs, least_freedom) = if is_emulated() { (1000, 8.0) } else { (6000, 40.0) };
        let (mut drafted, mut accepted) = (0, 0);
        for seed in 0..runs {
            let sampling = SamplerOptions { seed, ..sampling.clone() };
            let (found, outcome) = reply(&mut session, Some(&mut drafter), &sampling, &prompt, &options, 999);
            *counts.entry([found.tokens[0], found.tokens[1], found.tokens[2]]).or_default() += 1;
            drafted += outcome.speculation.drafted;
            accepted += outcome.speculation.accepted;
        }
        assert!(
            counts.keys().all(|tokens| law.contains_key(tokens)),
            "what the filters leave out is never said"
        );
        // Pearson's χ², with continuations expected less than five times merged.
        let expected = |p: f64| p * runs as f64;
        let term = |n: f64, e: f64| (n - e).powi(2) / e;
        let count = |tokens| f64::from(counts.get(tokens).copied().unwrap_or(0));
        let (mut rare, mut squares, mut cells) = ((0.0, 0.0), 0.0, 0);
        for (tokens, &p) in &law {
            if expected(p) < 5.0 {
                rare = (rare.0 + count(tokens), rare.1 + expected(p));
            } else {
                squares += term(count(tokens), expected(p));
                cells += 1;
            }
        }
        if rare.1 > 0.0 {
            squares += term(rare.0, rare.1);
            cells += 1;
        }
        let freedom = f64::from(cells - 1);
        println!("χ² {squares:.1} with {freedom} degrees of freedom, {accepted} of {drafted} accepted");
        assert!(
            freedom >= least_freedom && squares < freedom + 5.0 * (2.0 * freedom).sqrt(),
            "{squares}, {freedom}"
        );
        assert!(drafted / 10 < accepted && accepted < drafted * 9 / 10, "{accepted} of {drafted}");
    }
}

#[test]
fn a_call_of_several_tokens_is_one_cost() {
    let model = chain().build().open();
    let mut session = session(&model, 64);
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    let mut script = Script { text: (0..12).collect(), position: 0, most: 4 };
    let (options, mut ledger) = (GenerateOptions::default(), Ledger::new());
    let generation = session.generate(&[0], &mut sampler, options);
    let outcome = outcome(generation.with_drafter(&mut script).with_ledger(&mut ledger)).unwrap();
    assert_eq!(outcome.reason, StopReason::EndOfText(EOS));
    // 1 2 3 4 5, 6 7 8 9 10; the end is drafted and accepted, and is not a token of the reply.
    let costs: Vec<_> = ledger.costs().iter().map(|cost| (cost.tokens, cost.drafted)).collect();
    assert_eq!(costs, [(1, 0), (5, 4), (5, 4)]);
    let decode = ledger.totals(Phase::Decode);
    assert_eq!((decode.tokens, outcome.tokens.len()), (10, 10));
    assert_eq!(decode.traffic.weight_bytes, 2 * model.streamed_bytes());
    assert_eq!((outcome.speculation.passes, outcome.speculation.accepted), (2, 8));
}

#[test]
fn drafting_is_in_the_bytes() {
    let (model, small) = (random(2).build().open(), random(1).build().open());
    let mut session = session(&model, 64);
    let mut drafter = DraftModel::new(crate::generation::session(&small, 64), &model, 4).unwrap();
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    let options = GenerateOptions { ignore_eos: true, max_tokens: Some(20), ..Default::default() };
    let mut ledger = Ledger::new();
    let generation = session.generate(&[0, 1, 2], &mut sampler, options);
    outcome(generation.with_drafter(&mut drafter).with_ledger(&mut ledger)).unwrap();
    let total: u64 = ledger.costs().iter().map(|cost| cost.traffic.total_bytes()).sum();
    assert!(drafter.session().traffic().total_bytes() > 0);
    assert_eq!(total, session.traffic().total_bytes() + drafter.session().traffic().total_bytes());
}

#[test]
fn another_vocabulary_is_refused() {
    let built = [random(1).build(), random(1).build()];
    let mut plan = random(1);
    plan.tokenizer = Some(chain_with("ell", "alo"));
    let other = plan.build();
    let draft = |draft: &Arc<Model>, model: &Arc<Model>| DraftModel::new(session(draft, 8), model, 4).err();
    assert!(draft(&built[0].open(), &built[1].open()).is_none());
    let message = draft(&other.open(), &built[0].open()).unwrap().to_string();
    let (first, second) = (other.path.display(), built[0].path.display());
    assert_eq!(
        message,
        format!("{first} cannot draft for {second}: token 2 is \"alo\" in the first, \"ell\" in the other")
    );
    // One token more.
    let mut plan = random(1);
    plan.tokenizer = Some(chain_with("\"E\":11", "\"E\":11,\"X\":12"));
    plan.config.vocab_len = 13;
    let message = draft(&plan.build().open(), &built[0].open()).unwrap().to_string();
    assert!(message.ends_with("token 12 is \"X\" in the first, missing in the other"), "{message}");
    // No tokenizer.
    let mut plan = random(1);
    plan.tokenizer = None;
    assert!(matches!(draft(&plan.build().open(), &built[0].open()), Some(RuntimeError::NoTokenizer { .. })));
    let none = DraftModel::new(session(&built[0].open(), 8), &built[1].open(), 0).err().unwrap().to_string();
    assert_eq!(none, "number of tokens to draft is 0, expected at least 1");
}

/// The chain's tokenizer with part of its description replaced.
fn chain_with(old: &str, new: &str) -> Vec<u8> {
    let json = crate::generation::tokenizer_json();
    assert!(json.contains(old));
    pith_tokenizer::source::from_tokenizer_json(json.replace(old, new).as_bytes()).unwrap().to_blob()
}

#[test]
fn a_draft_model_may_have_fewer_logits_and_a_shorter_context() {
    let mut padded = random(2);
    padded.config.vocab_len = 16;
    let (model, small) = (padded.build().open(), random(1).build().open());
    let options = GenerateOptions { ignore_eos: true, max_tokens: Some(40), ..Default::default() };
    for seed in 0..20 {
        // Hot enough for tokens that the draft model lacks.
        let sampling = match seed {
            0 => SamplerOptions::greedy(),
            _ => {
                SamplerOptions { temperature: 3.0, top_p: 1.0, min_p: 0.0, seed, ..SamplerOptions::default() }
            }
        };
        let (expected, _) = reply(&mut session(&model, 64), None, &sampling, &[0, 3], &options, 999);
        for (draft, target, context_len) in [(&small, &model, 64), (&small, &model, 20), (&model, &small, 64)]
        {
            let mut drafter = DraftModel::new(session(draft, context_len), target, 5).unwrap();
            let (found, _) =
                reply(&mut session(target, 64), Some(&mut drafter), &sampling, &[0, 3], &options, 999);
            assert_eq!(found.tokens.len(), 40);
            if seed == 0 && Arc::ptr_eq(target, &model) {
                assert_eq!(found, expected);
            }
        }
    }
}

#[test]
fn a_draft_of_unknown_tokens_is_an_error_and_the_session_stays() {
    let model = chain().build().open();
    let mut session = session(&model, 64);
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    let mut script = Script { text: vec![0, 1, 2, 3, 77, 4], position: 0, most: 4 };
    let (options, mut ledger) = (GenerateOptions::default(), Ledger::new());
    let generation = session.generate(&[0], &mut sampler, options);
    let result = outcome(generation.with_drafter(&mut script).with_ledger(&mut ledger));
    assert!(matches!(result, Err(RuntimeError::Token { token: 77, vocab_len: 12, .. })));
    assert_eq!(session.tokens(), [0]);
}
