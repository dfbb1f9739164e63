//! A text as windows of tokens.

use crate::error::EvalError;
use crate::logits::first_token;
use pith_runtime::{Model, RuntimeError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Tokens of a window, unless asked otherwise: llama.cpp's.
pub const DEFAULT_CONTEXT_LEN: usize = 512;

/// Which positions of a window are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scored {
    /// From the middle on, so that each has half a window before it: llama.cpp's way.
    #[default]
    SecondHalf,
    /// Every one that has a token after it.
    All,
}

impl fmt::Display for Scored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Scored::SecondHalf => "second-half",
            Scored::All => "all",
        })
    }
}

/// How a text is cut.
#[derive(Clone, Copy, Debug)]
pub struct WindowOptions {
    /// Tokens of a window.
    pub context_len: usize,
    /// Which positions are scored.
    pub scored: Scored,
    /// Whether windows begin with the model's [first token](first_token), where it has one.
    pub first_token: bool,
    /// Takes no more than that many tokens of the text.
    pub token_limit: Option<usize>,
}

impl Default for WindowOptions {
    fn default() -> Self {
        Self {
            context_len: DEFAULT_CONTEXT_LEN,
            scored: Scored::default(),
            first_token: true,
            token_limit: None,
        }
    }
}

/// Windows of as many tokens each, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// `windows × context_len`, at least one window.
    pub(crate) tokens: Vec<u32>,
    pub(crate) context_len: usize,
    pub(crate) scored: Scored,
    /// [`text_hash`] of what the tokens came of.
    pub(crate) text_hash: Option<u64>,
}

impl Windows {
    /// Cuts a text as `llama-perplexity` does: the whole text is tokenized, special tokens spelled in it being text; a line
    /// feed at its very end is left out; the first token goes before it. Then it is [cut](Windows::cut).
    pub fn of_text(model: &Model, text: &str, options: &WindowOptions) -> Result<Self, EvalError> {
        let first = if options.first_token { first_token(model) } else { None };
        let body = text.strip_suffix('\n').unwrap_or(text);
        let body = model.tokenizer()?.encode_plain(body).map_err(RuntimeError::from)?;
        let mut tokens: Vec<u32> = first.into_iter().chain(body).collect();
        tokens.truncate(options.token_limit.unwrap_or(usize::MAX));
        let windows = Self::cut(tokens, options.context_len, first, options.scored)?;
        Ok(Self { text_hash: Some(text_hash(text)), ..windows })
    }

    /// Cuts tokens into windows; what does not fill the last is left out. In every window `first`, where there is one,
    /// takes the place of the first token.
    ///
    /// Fails where no token of a window would be scored, or where the tokens do not fill one.
    pub fn cut(
        mut tokens: Vec<u32>,
        context_len: usize,
        first: Option<u32>,
        scored: Scored,
    ) -> Result<Self, EvalError> {
        if positions(context_len, scored).is_empty() {
            return Err(EvalError::Context { context_len, scored });
        }
        let (token_count, window_count) = (tokens.len(), tokens.len() / context_len);
        if window_count == 0 {
            return Err(EvalError::ShortText { token_count, context_len });
        }
        tokens.truncate(window_count * context_len);
        if let Some(first) = first {
            tokens.chunks_exact_mut(context_len).for_each(|window| window[0] = first);
        }
        Ok(Self { tokens, context_len, scored, text_hash: None })
    }

    /// Each window's tokens.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.tokens.chunks_exact(self.context_len)
    }

    /// How many windows there are.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.context_len
    }

    /// All windows' tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens of a window.
    pub fn context_len(&self) -> usize {
        self.context_len
    }

    /// Which positions are scored.
    pub fn scored(&self) -> Scored {
        self.scored
    }

    /// The positions of a window whose logits are scored, each against the token after it.
    pub fn positions(&self) -> Range<usize> {
        positions(self.context_len, self.scored)
    }

    /// Tokens scored in all windows together.
    pub fn scored_count(&self) -> usize {
        self.count() * self.positions().len()
    }

    /// [`text_hash`] of the text, where it was one.
    pub fn text_hash(&self) -> Option<u64> {
        self.text_hash
    }
}

/// Tells texts apart: xxh3 of 64 bits.
pub fn text_hash(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

fn positions(context_len: usize, scored: Scored) -> Range<usize> {
    let first = match scored {
        Scored::SecondHalf => context_len / 2,
        Scored::All => 0,
    };
    first..context_len.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_with_the_first_token_and_leave_out_a_rest() {
        let windows = Windows::cut((0..11).collect(), 4, Some(99), Scored::SecondHalf).unwrap();
        assert_eq!(windows.iter().collect::<Vec<_>>(), [[99, 1, 2, 3], [99, 5, 6, 7]]);
        assert_eq!((windows.count(), windows.positions(), windows.scored_count()), (2, 2..3, 2));
        let windows = Windows::cut((0..11).collect(), 5, None, Scored::All).unwrap();
        assert_eq!(windows.tokens(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!((windows.positions(), windows.scored_count()), (0..4, 8));
    }

    /// `first = n_ctx / 2`, `n_ctx - 1 - first` positions from there, in llama.cpp's words.
    #[test]
    fn the_second_half_is_that_of_llama_cpp() {
        for context_len in [3, 4, 255, 256, 512] {
            let first = context_len / 2;
            let positions = positions(context_len, Scored::SecondHalf);
            assert_eq!((positions.start, positions.len()), (first, context_len - 1 - first));
        }
    }

    #[test]
    fn too_little_is_said_with_its_numbers() {
        for (context_len, scored) in [(0, Scored::All), (1, Scored::All), (2, Scored::SecondHalf)] {
            let message = Windows::cut(vec![0; 9], context_len, None, scored).unwrap_err().to_string();
            assert!(message.contains(&format!("of {context_len} tokens")), "{message}");
        }
        let message = Windows::cut(vec![0; 9], 10, None, Scored::All).unwrap_err().to_string();
        assert!(message.contains("9 tokens") && message.contains("needs 10"), "{message}");
    }
}
