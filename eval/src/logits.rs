//! Sources of logits.

use crate::about::About;
use pith_runtime::{Model, RuntimeError, Session};
use pith_tokenizer::Tokenizer;
use std::ops::Range;

/// A source of logits for the tokens of a sequence: a [`Session`], or a model without a file.
pub trait Logits {
    /// Number of logits per position.
    fn vocab_len(&self) -> usize;

    /// Runs `tokens` as a new sequence. Calls `each` with every position of `wanted`, in order, and
    /// the logits after the token there. Panics if `wanted` ends beyond `tokens`.
    fn logits(
        &mut self,
        tokens: &[u32],
        wanted: Range<usize>,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError>;

    /// Identity of the model, if it comes from a file.
    fn about(&self) -> Option<About> {
        None
    }

    /// The model's tokenizer, if it has one. Token spellings distinguish vocabularies of the same
    /// length.
    fn tokenizer(&self) -> Option<&Tokenizer> {
        None
    }
}

impl Logits for Session {
    fn vocab_len(&self) -> usize {
        self.model().config().vocab_len
    }

    fn logits(
        &mut self,
        tokens: &[u32],
        wanted: Range<usize>,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.reset();
        let (before, tokens) = tokens[..wanted.end].split_at(wanted.start);
        if tokens.is_empty() {
            return Ok(());
        }
        if !before.is_empty() {
            self.prefill(before)?;
        }
        self.logits_of(tokens, each)
    }

    fn about(&self) -> Option<About> {
        Some(About::of(self))
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.model().tokenizer().ok()
    }
}

/// The token that begins a model's sequences: the configuration's, or else the first token that the
/// tokenizer puts before a text.
pub fn first_token(model: &Model) -> Option<u32> {
    let of_tokenizer = || model.tokenizer().ok()?.prefix_ids().first().copied();
    model.config().bos.or_else(of_tokenizer)
}
