//! The text of a reply as it grows, and what ends it.

use crate::error::RuntimeError;
use crate::generate::{GenerateOptions, StopReason};
use crate::model::Model;
use crate::stop::{Passed, StopFilter};
use pith_tokenizer::Stream;
use std::ops::ControlFlow;

/// A reply that grows token by token.
pub(crate) struct Reply<'a, F> {
    model: &'a Model,
    pub options: &'a GenerateOptions,
    stream: Stream<'a>,
    filter: StopFilter<'a>,
    pub tokens: Vec<u32>,
    text: String,
    on_text: F,
}

impl<'a, F: FnMut(&str) -> ControlFlow<()>> Reply<'a, F> {
    /// Without a token yet. Fails where the model has no tokenizer.
    pub fn new(model: &'a Model, options: &'a GenerateOptions, on_text: F) -> Result<Self, RuntimeError> {
        let (stream, filter) = (model.tokenizer()?.stream(), StopFilter::new(&options.stops));
        Ok(Self { model, options, stream, filter, tokens: Vec::new(), text: String::new(), on_text })
    }

    /// Whether it has as many tokens as it may have.
    pub fn is_long_enough(&self) -> bool {
        self.options.max_tokens == Some(self.tokens.len())
    }

    /// Whether the model ends its reply with `token`.
    pub fn ends_with(&self, token: u32) -> bool {
        self.model.config().eos.contains(&token) && !self.options.ignore_eos
    }

    /// Appends a token; `None` where the reply goes on.
    pub fn push(&mut self, token: u32) -> Option<StopReason> {
        self.tokens.push(token);
        let flow = match self.filter.push(&self.stream.push(token).unwrap_or_default()) {
            Passed::Text(piece) => emit(&piece, &mut self.text, &mut self.on_text),
            Passed::Stop(piece, index) => {
                // The end comes anyway.
                let _ = emit(&piece, &mut self.text, &mut self.on_text);
                return Some(StopReason::StopString(self.options.stops[index].clone()));
            }
        };
        flow.is_break().then_some(StopReason::Interrupted)
    }

    /// Hands out what was held back: no stop string after all, unless it becomes one with the last bytes.
    pub fn finish(self, mut reason: StopReason) -> (StopReason, Vec<u32>, String) {
        let Reply { options, stream, mut filter, tokens, mut text, mut on_text, .. } = self;
        if !matches!(reason, StopReason::StopString(_) | StopReason::Interrupted) {
            let rest = match filter.push(&stream.finish()) {
                Passed::Text(piece) => piece + &filter.finish(),
                Passed::Stop(piece, index) => {
                    reason = StopReason::StopString(options.stops[index].clone());
                    piece
                }
            };
            let _ = emit(&rest, &mut text, &mut on_text);
        }
        (reason, tokens, text)
    }
}

fn emit(
    piece: &str,
    text: &mut String,
    on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
) -> ControlFlow<()> {
    text.push_str(piece);
    if piece.is_empty() { ControlFlow::Continue(()) } else { on_text(piece) }
}
