//! From a prompt to text: choose, stream, stop.

use crate::error::RuntimeError;
use crate::ledger::{Ledger, Phase};
use crate::sampler::Sampler;
use crate::session::Session;
use crate::stop::{Passed, StopFilter};
use std::ops::ControlFlow;
use std::sync::Arc;

/// When to stop.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate; as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Text ends before the first of these that appears.
    pub stops: Vec<String>,
    /// Goes on after a token that ends a reply.
    pub ignore_eos: bool,
}

/// Why it stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended its reply with this token.
    EndOfText(u32),
    /// This stop string appeared.
    StopString(String),
    /// As many tokens as asked for.
    MaxTokens,
    /// The context holds no more.
    ContextFull,
    /// The receiver of the text asked for it.
    Interrupted,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why it stopped.
    pub reason: StopReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of those, the ones that the session had already.
    pub reused_tokens: usize,
    /// Generated tokens, without the one that ended the reply.
    pub tokens: Vec<u32>,
    /// Their text, special tokens left out, up to a stop string.
    pub text: String,
}

/// Generates a continuation of `prompt`, the whole sequence from its beginning: what the session has of it already is
/// not computed again, so a conversation goes on cheaply.
///
/// `on_text` receives the text piece by piece, never a part of a character and never one of a stop string; it can
/// break off. The session afterwards holds the prompt and the generated tokens but the last, whose logits nobody
/// asked for. `ledger` records the forward calls: the prompt's as one, then one a token; choosing a token and
/// handing out its text are not in it.
pub fn generate(
    session: &mut Session,
    sampler: &mut Sampler,
    prompt: &[u32],
    options: &GenerateOptions,
    ledger: &mut Ledger,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Outcome, RuntimeError> {
    let model = Arc::clone(session.model());
    let mut stream = model.tokenizer()?.stream();
    let mut filter = StopFilter::new(&options.stops);
    let mut text = String::new();
    let mut emit = |piece: &str, text: &mut String| {
        text.push_str(piece);
        if piece.is_empty() { ControlFlow::Continue(()) } else { on_text(piece) }
    };

    ledger.start();
    let reused_tokens = session.resume(prompt)?;
    ledger.record(Phase::Prefill, prompt.len() - reused_tokens, session.last_traffic());
    prompt.iter().for_each(|&token| sampler.accept(token));

    let mut tokens = Vec::new();
    let reason = loop {
        if options.max_tokens == Some(tokens.len()) {
            break StopReason::MaxTokens;
        }
        let token = sampler.sample(session.logits())?;
        if model.config().eos.contains(&token) && !options.ignore_eos {
            break StopReason::EndOfText(token);
        }
        tokens.push(token);
        sampler.accept(token);
        let flow = match filter.push(&stream.push(token).unwrap_or_default()) {
            Passed::Text(piece) => emit(&piece, &mut text),
            Passed::Stop(piece, index) => {
                // The end comes anyway.
                let _ = emit(&piece, &mut text);
                break StopReason::StopString(options.stops[index].clone());
            }
        };
        if flow.is_break() {
            break StopReason::Interrupted;
        }
        if session.position() == session.context_len() {
            break StopReason::ContextFull;
        }
        if options.max_tokens != Some(tokens.len()) {
            ledger.start();
            session.step(token)?;
            ledger.record(Phase::Decode, 1, session.last_traffic());
        }
    };

    // What was held back was no stop string after all, unless it becomes one with the last bytes.
    let mut reason = reason;
    if !matches!(reason, StopReason::StopString(_) | StopReason::Interrupted) {
        let rest = match filter.push(&stream.finish()) {
            Passed::Text(piece) => piece + &filter.finish(),
            Passed::Stop(piece, index) => {
                reason = StopReason::StopString(options.stops[index].clone());
                piece
            }
        };
        let _ = emit(&rest, &mut text);
    }
    Ok(Outcome { reason, prompt_tokens: prompt.len(), reused_tokens, tokens, text })
}
