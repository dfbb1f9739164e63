//! Windows of tokens, cut from a text.

use crate::error::EvalError;
use crate::logits::first_token;
use crate::scored::Scored;
use pith_runtime::{Model, RuntimeError};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Default length of a window in tokens, the same as llama.cpp's.
pub const DEFAULT_CONTEXT_LEN: usize = 512;

/// Options for cutting a text.
#[derive(Clone, Copy, Debug)]
pub struct WindowOptions {
    /// Length of a window in tokens.
    pub context_len: usize,
    /// Scored positions of a window.
    pub scored: Scored,
    /// Whether windows begin with the model's [first token](first_token), where it has one.
    pub first_token: bool,
    /// Most tokens taken from the text.
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

/// Consecutive windows of equal length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// `windows × context_len`, at least one window.
    pub(crate) tokens: Vec<u32>,
    pub(crate) context_len: usize,
    pub(crate) scored: Scored,
    /// [`text_hash`] of the source text.
    pub(crate) text_hash: Option<u64>,
}

impl Windows {
    /// Cuts a text as `llama-perplexity` does. The whole text is tokenized, with special tokens in
    /// it read as text. A line feed at the very end is left out, and the first token goes before
    /// the text. The result is then [cut](Windows::cut).
    pub fn of_text(model: &Model, text: &str, options: &WindowOptions) -> Result<Self, EvalError> {
        let first = if options.first_token { first_token(model) } else { None };
        let body = text.strip_suffix('\n').unwrap_or(text);
        let body = model.tokenizer()?.encode_plain(body).map_err(RuntimeError::from)?;
        let mut tokens: Vec<u32> = first.into_iter().chain(body).collect();
        tokens.truncate(options.token_limit.unwrap_or(usize::MAX));
        let windows = Self::cut(tokens, options.context_len, first, options.scored)?;
        Ok(Self { text_hash: Some(text_hash(text)), ..windows })
    }

    /// Cuts tokens into windows; an incomplete last window is dropped. `first`, if given, replaces
    /// the first token of every window.
    ///
    /// Fails where no token of a window would be scored, or where the tokens do not fill one
    /// window.
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

    /// Number of windows.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.context_len
    }

    /// All windows' tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Length of a window in tokens.
    pub fn context_len(&self) -> usize {
        self.context_len
    }

    /// Scored positions of a window.
    pub fn scored(&self) -> Scored {
        self.scored
    }

    /// Scored positions of a window; the logits at each are scored against the next token.
    pub fn positions(&self) -> Range<usize> {
        positions(self.context_len, self.scored)
    }

    /// Number of tokens scored in all windows.
    pub fn scored_count(&self) -> usize {
        self.count() * self.positions().len()
    }

    /// [`text_hash`] of the text, if the windows came from a text.
    pub fn text_hash(&self) -> Option<u64> {
        self.text_hash
    }
}

/// Hash that identifies a text: 64-bit xxh3.
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

    /// In llama.cpp's terms: `first = n_ctx / 2`, then `n_ctx - 1 - first` positions.
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
