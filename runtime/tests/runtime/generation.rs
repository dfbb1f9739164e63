//! Generation by a model whose tokens follow each other in a fixed order.

use crate::support::{Plan, llama};
use pith_format::Role;
use pith_runtime::{
    Draft, Drafter, GenerateOptions, Generation, Ledger, Model, Outcome, Phase, RuntimeError, Sampler,
    SamplerOptions, Session, SessionOptions, StopReason,
};
use std::sync::Arc;

/// Tokens in the model's order, in the letters of byte-level vocabularies: `Ã` and `©` are the two
/// bytes of `é`, `Ġ` is a space.
pub const CHAIN: [&str; 12] = ["S", "H", "ell", "oĠ", "caf", "Ã", "©", "Ġ<", "/e", "nd", ">", "E"];

/// The token that ends a reply.
pub const EOS: u32 = 11;

/// Token `i` is followed by token `i + 1`, the last by the first: embeddings are unit vectors,
/// layers add nothing.
pub fn chain() -> Plan {
    let mut plan = llama();
    plan.config.vocab_len = CHAIN.len();
    plan.config.bos = Some(0);
    plan.config.eos = vec![EOS];
    plan.config.tied_head = false;
    plan.config.layers.truncate(1);
    plan.weight = |role, row, col| match role {
        Role::TokenEmbedding => Some(f32::from(row == col)),
        Role::Head => Some(f32::from(row == (col + 1) % CHAIN.len())),
        Role::AttentionOutput | Role::Down => Some(0.0),
        Role::OutputNorm => Some(1.0),
        _ => None,
    };
    let tokenizer = pith_tokenizer::source::from_tokenizer_json(tokenizer_json().as_bytes()).unwrap();
    plan.tokenizer = Some(tokenizer.to_blob());
    plan
}

/// The description of the chain's tokenizer.
pub fn tokenizer_json() -> String {
    let vocab: Vec<String> = CHAIN.iter().enumerate().map(|(id, text)| format!("\"{text}\":{id}")).collect();
    format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}},
        "post_processor":null,
        "decoder":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}},
        "model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,
        "end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"vocab":{{{}}},"merges":[]}}}}"#,
        vocab.join(",")
    )
}

pub fn session(model: &Arc<Model>, context_len: usize) -> Session {
    let options =
        SessionOptions { context_len: Some(context_len), threads: Some(1), ..SessionOptions::default() };
    Session::new(Arc::clone(model), options).unwrap()
}

/// Greedy generation; returns the text pieces and the outcome.
fn run(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
) -> Result<(Vec<String>, Outcome), RuntimeError> {
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    let mut generation = session.generate(prompt, &mut sampler, options.clone());
    let (mut pieces, mut ids) = (Vec::new(), Vec::new());
    for token in &mut generation {
        let token = token?;
        pieces.push(token.text);
        ids.extend((!token.is_end).then_some(token.id));
    }
    assert!(generation.next().is_none(), "it goes on after its end");
    let outcome = generation.finish();
    assert_eq!(ids, outcome.tokens);
    pieces.retain(|piece| !piece.is_empty());
    assert_eq!(pieces.concat(), outcome.text);
    Ok((pieces, outcome))
}

/// The outcome of a generation that runs to its end.
pub fn outcome(mut generation: Generation<'_>) -> Result<Outcome, RuntimeError> {
    generation.try_for_each(|token| token.map(drop))?;
    Ok(generation.finish())
}

pub fn stops(stops: &[&str]) -> GenerateOptions {
    GenerateOptions { stops: stops.iter().map(|stop| stop.to_string()).collect(), ..Default::default() }
}

#[test]
fn a_reply_ends_with_its_token_and_characters_come_whole() {
    let model = chain().build().open();
    let (pieces, outcome) = run(&mut session(&model, 64), &[0], &GenerateOptions::default()).unwrap();
    assert_eq!(outcome.reason, StopReason::EndOfText(EOS));
    assert_eq!(pieces, ["H", "ell", "o ", "caf", "é", " <", "/e", "nd", ">"]);
    assert_eq!((outcome.prompt_tokens, outcome.tokens), (1, (1..11).collect()));
}

#[test]
fn a_stop_string_over_tokens_is_neither_shown_nor_kept() {
    let model = chain().build().open();
    let (pieces, outcome) = run(&mut session(&model, 64), &[0], &stops(&["</end>", "never"])).unwrap();
    assert_eq!(outcome.reason, StopReason::StopString("</end>".into()));
    assert_eq!(pieces, ["H", "ell", "o ", "caf", "é", " "]);
    assert_eq!(outcome.tokens.last(), Some(&10));
}

/// The chain with a tokenizer in the style of sentencepiece: a text's first space is not shown.
#[test]
fn a_reply_keeps_the_space_before_its_first_word() {
    let mut plan = chain();
    let json = tokenizer_json().replace('Ġ', "▁").replacen("\"H\"", "\"▁H\"", 1);
    let (before, after) = json.split_once("\"decoder\":").unwrap();
    let (_, model) = after.split_once("\"model\":").unwrap();
    let decoder = r#"{"type":"Sequence","decoders":[
        {"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},
        {"type":"Strip","content":" ","start":1,"stop":0}]}"#;
    let json = format!("{before}\"decoder\":{decoder},\"model\":{model}");
    let tokenizer = pith_tokenizer::source::from_tokenizer_json(json.as_bytes()).unwrap();
    plan.tokenizer = Some(tokenizer.to_blob());
    let model = plan.build().open();
    let (pieces, outcome) = run(&mut session(&model, 64), &[0], &stops(&["caf"])).unwrap();
    assert_eq!(pieces, [" H", "ell", "o "]);
    let whole = [&[0], &outcome.tokens[..3]].concat();
    assert_eq!(tokenizer.decode(&whole, true).unwrap(), format!("S{}", outcome.text));
    // The first token alone is a stop string with its space.
    let (pieces, outcome) = run(&mut session(&model, 64), &[0], &stops(&[" H"])).unwrap();
    assert_eq!((pieces.len(), outcome.reason), (0, StopReason::StopString(" H".into())));
}

#[test]
fn what_was_held_back_for_nothing_is_shown_at_the_end() {
    let model = chain().build().open();
    let (pieces, outcome) = run(&mut session(&model, 64), &[6], &stops(&["</end>!"])).unwrap();
    assert_eq!(outcome.reason, StopReason::EndOfText(EOS));
    assert_eq!(pieces, [" ", "</end>"]);
}

#[test]
fn as_many_tokens_as_asked_for_and_no_more() {
    let model = chain().build().open();
    for count in [0, 1, 5] {
        let mut session = session(&model, 64);
        let options = GenerateOptions { max_tokens: Some(count), ..Default::default() };
        let (_, outcome) = run(&mut session, &[0], &options).unwrap();
        assert_eq!((outcome.reason, outcome.tokens.len()), (StopReason::MaxTokens, count));
        assert_eq!(session.position(), count.max(1), "the last token has not been run");
    }
    // At the end an incomplete character becomes a replacement character.
    let options = GenerateOptions { max_tokens: Some(2), ..Default::default() };
    let (pieces, _) = run(&mut session(&model, 64), &[3], &options).unwrap();
    assert_eq!(pieces, ["caf", "\u{fffd}"]);
}

#[test]
fn a_full_context_ends_the_reply() {
    let model = chain().build().open();
    let mut session = session(&model, 6);
    let options = GenerateOptions { ignore_eos: true, ..Default::default() };
    let (_, outcome) = run(&mut session, &[10, 11], &options).unwrap();
    // Four more tokens run; the logits of the last choose another, which does not fit.
    assert_eq!((outcome.reason, outcome.tokens), (StopReason::ContextFull, vec![0, 1, 2, 3, 4]));
    let error = run(&mut session, &[0; 7], &options).unwrap_err();
    assert!(matches!(error, RuntimeError::ContextFull { position: 0, new: 7, context_len: 6 }));
}

/// A session left at any token continues as if it had not been left: without drafts, and with
/// drafts of right, wrong and mixed text.
#[test]
fn a_reply_can_be_left_at_any_token() {
    let model = chain().build().open();
    let options = GenerateOptions { ignore_eos: true, max_tokens: Some(20), ..Default::default() };
    let (_, whole) = run(&mut session(&model, 64), &[0], &options).unwrap();
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    for most in [0, 1, 4, 9] {
        for wrong_every in [2, 5, 100] {
            for count in 0..20 {
                let mut session = session(&model, 64);
                let mut drafter = Guess { position: 0, most, wrong_every };
                let mut ledger = Ledger::new();
                let mut generation = session
                    .generate(&[0], &mut sampler, options.clone())
                    .with_drafter(&mut drafter)
                    .with_ledger(&mut ledger);
                let ids: Vec<u32> = generation.by_ref().take(count).map(|token| token.unwrap().id).collect();
                assert_eq!(ids, whole.tokens[..count]);
                if count % 2 == 0 {
                    let outcome = generation.finish();
                    assert_eq!((outcome.reason, outcome.tokens), (StopReason::Interrupted, ids.clone()));
                } else {
                    drop(generation);
                }
                // The prompt, and all tokens except the last.
                let run_tokens = count.saturating_sub(1);
                let expected = [&[0], &ids[..run_tokens]].concat();
                assert_eq!(session.tokens(), &expected[..if count == 0 { 0 } else { expected.len() }]);
                assert_eq!(ledger.totals(Phase::Decode).tokens, run_tokens);
                let (_, rest) = run(&mut session, &[&[0], &ids[..]].concat(), &options).unwrap();
                assert_eq!(rest.tokens[..20 - count], whole.tokens[count..]);
            }
        }
    }
}

/// Drafts the chain's tokens, with some wrong.
struct Guess {
    position: usize,
    most: usize,
    wrong_every: usize,
}

impl Drafter for Guess {
    fn most(&self) -> usize {
        self.most
    }

    fn begin(&mut self, sequence: &[u32]) -> Result<(), RuntimeError> {
        self.position = sequence.len();
        Ok(())
    }

    fn push(&mut self, _: u32) {
        self.position += 1;
    }

    fn draft(&mut self, most: usize, _: &mut Sampler, draft: &mut Draft) -> Result<(), RuntimeError> {
        for at in self.position..self.position + most {
            let right = at % CHAIN.len();
            draft
                .push(if at % self.wrong_every == self.wrong_every - 1 { (right + 5) % 12 } else { right }
                    as u32);
        }
        Ok(())
    }
}

#[test]
fn an_error_ends_a_reply() {
    let model = chain().build().open();
    let (mut session, mut sampler) = (session(&model, 64), Sampler::new(SamplerOptions::greedy()).unwrap());
    let mut generation = session.generate(&[12], &mut sampler, GenerateOptions::default());
    assert!(matches!(generation.next(), Some(Err(RuntimeError::Token { token: 12, .. }))));
    assert!(generation.next().is_none());
    let outcome = generation.finish();
    assert_eq!(
        (outcome.reason, outcome.tokens.len(), outcome.prompt_tokens),
        (StopReason::Interrupted, 0, 1)
    );
}

#[test]
fn a_conversation_is_not_computed_again() {
    let model = chain().build().open();
    let mut session = session(&model, 64);
    let options = GenerateOptions { max_tokens: Some(3), ..Default::default() };
    let (_, first) = run(&mut session, &[0, 1], &options).unwrap();
    assert_eq!((first.reused_tokens, session.tokens()), (0, &[0, 1, 2, 3][..]));
    // The model's three tokens, then a user's.
    let (_, second) = run(&mut session, &[0, 1, 2, 3, 4, 7], &options).unwrap();
    assert_eq!((second.reused_tokens, second.tokens), (4, vec![8, 9, 10]));
    // Repeated: only the last prompt token is computed, for its logits.
    let (_, third) = run(&mut session, &[0, 1, 2, 3, 4, 7], &options).unwrap();
    assert_eq!((third.reused_tokens, third.tokens), (5, vec![8, 9, 10]));
    let (_, other) = run(&mut session, &[5], &options).unwrap();
    assert_eq!((other.reused_tokens, other.tokens), (0, vec![6, 7, 8]));
}

#[test]
fn the_ledger_has_the_prompt_and_every_token() {
    let model = chain().build().open();
    let mut session = session(&model, 64);
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    let (options, mut ledger) = (GenerateOptions::default(), Ledger::new());
    let prompt = [0, 1, 2];
    let generation = session.generate(&prompt, &mut sampler, options).with_ledger(&mut ledger);
    let outcome = outcome(generation).unwrap();
    let (prefill, decode) = (ledger.totals(Phase::Prefill), ledger.totals(Phase::Decode));
    assert_eq!((prefill.tokens, decode.tokens), (3, outcome.tokens.len()));
    assert_eq!(decode.traffic.weight_bytes, decode.tokens as u64 * model.streamed_bytes());
    assert!(ledger.costs()[1..].iter().all(|cost| cost.tokens == 1));
    let total = prefill.traffic.total_bytes() + decode.traffic.total_bytes();
    assert_eq!(total, session.traffic().total_bytes());
}

#[test]
fn a_file_without_tokenizer_does_not_generate_text() {
    let model = llama().build().open();
    let error = run(&mut session(&model, 64), &[1], &GenerateOptions::default()).unwrap_err();
    assert!(matches!(error, RuntimeError::NoTokenizer { .. }));
}
