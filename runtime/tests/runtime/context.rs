//! A context that fills up.

use crate::generation::{chain, outcome, session};
use crate::support::{attention, llama};
use pith_format::Role;
use pith_runtime::{
    DraftModel, Drafter, FullContext, GenerateOptions, Ledger, Lookup, Outcome, Phase, RuntimeError, Sampler,
    SamplerOptions, Session, StopReason,
};

/// A drafter without model or text, which drafts nothing.
struct Nothing;

impl Drafter for Nothing {
    fn most(&self) -> usize {
        4
    }

    fn begin(&mut self, _: &[u32]) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn push(&mut self, _: u32) {}

    fn draft(&mut self, _: usize, _: &mut Sampler, _: &mut pith_runtime::Draft) -> Result<(), RuntimeError> {
        Ok(())
    }
}

fn reply(
    session: &mut Session,
    drafter: &mut dyn Drafter,
    prompt: &[u32],
    options: &GenerateOptions,
) -> Result<(Outcome, Ledger), RuntimeError> {
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    let mut ledger = Ledger::new();
    let generation = session.generate(prompt, &mut sampler, options.clone());
    let outcome = outcome(generation.with_drafter(drafter).with_ledger(&mut ledger))?;
    Ok((outcome, ledger))
}

fn shifting(keep: usize, max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens: Some(max_tokens),
        ignore_eos: true,
        full_context: FullContext::Shift { keep },
        ..GenerateOptions::default()
    }
}

#[test]
fn a_full_context_shifts_and_the_reply_goes_on() {
    let model = chain().build().open();
    for keep in [0, 1, 3, 6] {
        let mut session = session(&model, 8);
        let (outcome, ledger) = reply(&mut session, &mut Nothing, &[0, 1, 2], &shifting(keep, 100)).unwrap();
        assert_eq!((outcome.reason, outcome.tokens.len()), (StopReason::MaxTokens, 100));
        assert!(outcome.tokens.iter().enumerate().all(|(index, &token)| token as usize == (index + 3) % 12));
        // 102 tokens ran in total; a shift drops half of the tokens not kept.
        let block = (8 - keep) / 2;
        assert_eq!(outcome.shifts, (102usize - 8).div_ceil(block), "{keep}");
        assert_eq!(session.tokens()[..keep.min(3)], [0, 1, 2][..keep.min(3)]);
        let last = 8.min(session.position()) - keep;
        let expected: Vec<u32> = (102 - last..102).map(|index| (index % 12) as u32).collect();
        assert_eq!(session.tokens()[keep..], expected);
        assert_eq!(ledger.totals(Phase::Decode).tokens, 99);
    }
}

#[test]
fn what_follows_a_shift_is_what_follows_the_shortened_text() {
    let mut plan = llama();
    let chain = chain();
    (plan.config.vocab_len, plan.tokenizer) = (12, chain.tokenizer);
    // A window, and positions from a table: a shift must leave no trace of either.
    attention(&mut plan.config.layers[1]).window = Some(5);
    plan.roles.push(Role::PositionEmbedding);
    let model = plan.build().open();
    let prompt = [3, 1, 4, 1, 5, 9];
    let mut session = session(&model, 20);
    let (outcome, _) = reply(&mut session, &mut Nothing, &prompt, &shifting(2, 40)).unwrap();
    let all = [&prompt[..], &outcome.tokens].concat();
    let mut fresh = crate::generation::session(&model, 20);
    for (index, &token) in outcome.tokens.iter().enumerate() {
        let before = &all[..prompt.len() + index];
        let blocks = before.len().saturating_sub(20).div_ceil(9);
        let context = [&before[..2], &before[2 + 9 * blocks..]].concat();
        fresh.reset();
        // Token by token and all at once agree only up to rounding; the largest logit must lead by
        // more.
        let logits = fresh.prefill(&context).unwrap();
        let best = logits.iter().copied().fold(f32::MIN, f32::max);
        assert!(logits[token as usize] >= best - 1e-4, "token {index}");
    }
    assert_eq!(outcome.shifts, 3);
}

#[test]
fn drafts_and_shifts_go_together() {
    let model = chain().build().open();
    let (expected, _) = reply(&mut session(&model, 16), &mut Nothing, &[0, 1], &shifting(1, 90)).unwrap();
    let mut lookup = Lookup::new(6).unwrap();
    let mut draft = DraftModel::new(session(&model, 16), &model, 6).unwrap();
    let mut short = DraftModel::new(session(&model, 12), &model, 6).unwrap();
    let drafters: [&mut dyn Drafter; 3] = [&mut lookup, &mut draft, &mut short];
    for (drafter, least) in drafters.into_iter().zip([40, 60, 10]) {
        let (found, ledger) = reply(&mut session(&model, 16), drafter, &[0, 1], &shifting(1, 90)).unwrap();
        assert_eq!((&found.tokens, &found.reason, found.shifts), (&expected.tokens, &expected.reason, 11));
        assert!(found.speculation.accepted > least, "{:?}, {least}", found.speculation);
        assert_eq!(ledger.totals(Phase::Decode).tokens, 89);
    }
}

#[test]
fn a_conversation_longer_than_the_context_is_shortened_and_mostly_kept() {
    let model = chain().build().open();
    let mut session = session(&model, 16);
    let mut conversation = vec![0];
    let mut reused = Vec::new();
    for _ in 0..12 {
        let (outcome, _) = reply(&mut session, &mut Nothing, &conversation, &shifting(2, 5)).unwrap();
        assert_eq!(outcome.prompt_tokens, conversation.len());
        reused.push(outcome.reused_tokens);
        conversation.extend(outcome.tokens);
    }
    assert_eq!(conversation.len(), 61);
    assert!(conversation.iter().enumerate().all(|(index, &token)| token as usize == index % 12));
    // The cuts are where the session made them: all but the last token is present.
    assert!(reused.iter().skip(1).all(|&count| count >= 2), "{reused:?}");
    assert!(reused.iter().filter(|&&count| count >= 8).count() >= 8, "{reused:?}");
}

#[test]
fn a_prompt_too_long_is_an_error_unless_the_context_shifts() {
    let model = chain().build().open();
    let prompt: Vec<u32> = (0..30).map(|index| index % 12).collect();
    let stop = GenerateOptions { max_tokens: Some(3), ..GenerateOptions::default() };
    let error = reply(&mut session(&model, 10), &mut Nothing, &prompt, &stop).err().unwrap();
    assert!(matches!(error, RuntimeError::ContextFull { position: 0, new: 30, context_len: 10 }));
    let (outcome, _) = reply(&mut session(&model, 10), &mut Nothing, &prompt, &shifting(1, 3)).unwrap();
    assert_eq!((outcome.tokens, outcome.prompt_tokens, outcome.shifts), (vec![6, 7, 8], 30, 6));
}

#[test]
fn shifts_that_cannot_be_are_refused() {
    let model = chain().build().open();
    for keep in [7, 8, 1000] {
        let error = reply(&mut session(&model, 8), &mut Nothing, &[0], &shifting(keep, 3)).err().unwrap();
        assert_eq!(
            error.to_string(),
            format!("number of tokens to keep is {keep}, expected 2 less than the context of 8 at most")
        );
    }
    let endless = GenerateOptions { max_tokens: None, ..shifting(1, 0) };
    let error = reply(&mut session(&model, 8), &mut Nothing, &[0], &endless).err().unwrap().to_string();
    assert!(error.contains("tokens to generate is not given, expected a number"), "{error}");
}
