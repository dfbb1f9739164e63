//! The original's kept logits.

use crate::about::About;
use crate::error::EvalError;
use crate::logits::Logits;
use crate::softmax::{largest, likeliest, masses};
use crate::windows::Windows;
use pith_format::{Progress, Unit};
use pith_meter::statistics::Estimate;
use pith_tokenizer::Tokenizer;
use xxhash_rust::xxh3::Xxh3;

/// Default number of tokens kept per position.
pub const DEFAULT_KEPT: usize = 256;

/// Vocabularies up to this length keep every token by default: the divergence is exact.
pub const EXACT_VOCAB_LEN: usize = 2048;

/// The original's logits at every scored position: those of the most likely tokens, and the total
/// probability of the others. Logits are kept in f32, as computed; sums are in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub(super) about: Option<About>,
    pub(super) windows: Windows,
    pub(super) vocab_len: usize,
    pub(super) kept_len: usize,
    /// Checksum of the spelling of the windows' tokens.
    pub(super) spelled: Option<u64>,
    pub(super) positions: Vec<Position>,
    /// `positions × kept_len`, ascending in each position; empty where every token is kept.
    pub(super) ids: Vec<u32>,
    /// `positions × kept_len`, in the order of `ids`.
    pub(super) logits: Vec<f32>,
}

/// Data of a position besides its kept logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Position {
    /// `ln Σ exp(logit)` over the vocabulary.
    pub log_sum: f64,
    /// `ln` of the probability of the tokens not kept.
    pub tail_log: f64,
    /// Logit of the next token in the text.
    pub next_logit: f32,
    /// The most likely token.
    pub best: u32,
}

impl Reference {
    /// Runs the original over the windows.
    ///
    /// Keeps the `kept` most likely tokens per position. `None` keeps all tokens of vocabularies up
    /// to [`EXACT_VOCAB_LEN`], and [`DEFAULT_KEPT`] of longer ones. A position takes 24 bytes, plus
    /// 8 per kept token, or 4 where all are kept. `progress` counts windows.
    pub fn compute(
        model: &mut impl Logits,
        windows: Windows,
        kept: Option<usize>,
        progress: &dyn Progress,
    ) -> Result<Self, EvalError> {
        let vocab_len = model.vocab_len();
        let default = if vocab_len <= EXACT_VOCAB_LEN { vocab_len } else { DEFAULT_KEPT };
        let kept_len = kept.unwrap_or(default).min(vocab_len);
        if kept_len == 0 {
            return Err(EvalError::Kept { found: 0 });
        }
        let mut reference = Self {
            about: model.about(),
            spelled: model.tokenizer().map(|tokenizer| spelled(tokenizer, windows.tokens())),
            windows,
            vocab_len,
            kept_len,
            positions: Vec::new(),
            ids: Vec::new(),
            logits: Vec::new(),
        };
        reference.reserve()?;
        let windows = reference.windows.clone();
        let mut order = Vec::new();
        let mut marks = vec![kept_len == vocab_len; vocab_len];
        run(model, &windows, progress, |next, logits| reference.push(next, logits, &mut order, &mut marks))?;
        Ok(reference)
    }

    /// Checks that a model has the reference's vocabulary, as far as the text's tokens show it.
    pub fn check(&self, model: &impl Logits) -> Result<(), EvalError> {
        let (reference, found) = (self.vocab_len, model.vocab_len());
        if reference != found {
            return Err(EvalError::VocabularyLength { reference, found });
        }
        let tokenizer_of = |about: &Option<About>| about.as_ref().and_then(|about| about.tokenizer.clone());
        let known = tokenizer_of(&self.about);
        if known.is_some() && known == tokenizer_of(&model.about()) {
            return Ok(());
        }
        match (self.spelled, model.tokenizer()) {
            (Some(expected), Some(tokenizer)) if spelled(tokenizer, self.windows.tokens()) != expected => {
                Err(EvalError::Vocabulary)
            }
            _ => Ok(()),
        }
    }

    /// The original and the settings of its run, if it came from a file.
    pub fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// The text as tokens.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab_len(&self) -> usize {
        self.vocab_len
    }

    /// Tokens kept per position.
    pub fn kept_len(&self) -> usize {
        self.kept_len
    }

    /// Whether every token is kept. Divergences are then exact, otherwise lower bounds.
    pub fn is_exact(&self) -> bool {
        self.kept_len == self.vocab_len
    }

    /// Number of tokens scored.
    pub fn token_count(&self) -> usize {
        self.positions.len()
    }

    /// The original's perplexity on the text.
    pub fn perplexity(&self) -> Estimate {
        Estimate::mean(self.log_probabilities().map(|log_p| -log_p)).exp()
    }

    /// `ln p` of the scored tokens.
    pub(super) fn log_probabilities(&self) -> impl ExactSizeIterator<Item = f64> + Clone {
        self.positions.iter().map(|position| f64::from(position.next_logit) - position.log_sum)
    }

    fn reserve(&mut self) -> Result<(), EvalError> {
        let position_count = self.windows.scored_count();
        let kept = position_count.saturating_mul(self.kept_len);
        let ids = if self.is_exact() { 0 } else { kept };
        let room = self.positions.try_reserve_exact(position_count);
        let room = room.and_then(|()| self.logits.try_reserve_exact(kept));
        room.and_then(|()| self.ids.try_reserve_exact(ids)).map_err(|_| {
            let bytes = (position_count * size_of::<Position>()).saturating_add(4 * kept.saturating_add(ids));
            EvalError::Memory { position_count, kept_len: self.kept_len, bytes: bytes as u64 }
        })
    }

    /// Adds a position. `marks` is restored before returning.
    fn push(
        &mut self,
        next: u32,
        logits: &[f32],
        order: &mut Vec<u32>,
        marks: &mut [bool],
    ) -> Result<(), usize> {
        let best = largest(logits)? as u32;
        let masses = if self.is_exact() {
            self.logits.extend_from_slice(logits);
            masses(logits, marks)?
        } else {
            likeliest(logits, self.kept_len, order);
            self.logits.extend(order.iter().map(|&token| logits[token as usize]));
            self.ids.extend_from_slice(order);
            order.iter().for_each(|&token| marks[token as usize] = true);
            let masses = masses(logits, marks);
            order.iter().for_each(|&token| marks[token as usize] = false);
            masses?
        };
        let (log_sum, tail_log) = (masses.log_sum, masses.tail_log);
        self.positions.push(Position { log_sum, tail_log, next_logit: logits[next as usize], best });
        Ok(())
    }
}

/// Calls `each` for all scored positions in order, with the following token and the logits; its
/// error is the first token whose logit is not finite.
pub(super) fn run(
    model: &mut impl Logits,
    windows: &Windows,
    progress: &dyn Progress,
    mut each: impl FnMut(u32, &[f32]) -> Result<(), usize>,
) -> Result<(), EvalError> {
    progress.begin("scoring", windows.count() as u64, Unit::Windows);
    for (window, tokens) in windows.iter().enumerate() {
        let mut wrong = None;
        model.logits(tokens, windows.positions(), &mut |position, logits| {
            if wrong.is_none()
                && let Err(token) = each(tokens[position + 1], logits)
            {
                wrong = Some(EvalError::NotFinite { window, position, token, value: logits[token] });
            }
        })?;
        if let Some(error) = wrong {
            return Err(error);
        }
        progress.advance(1);
    }
    Ok(())
}

/// Checksum of the bytes of each token.
fn spelled(tokenizer: &Tokenizer, tokens: &[u32]) -> u64 {
    let mut hash = Xxh3::new();
    for &token in tokens {
        let bytes = tokenizer.token_bytes(token).unwrap_or_default();
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
    }
    hash.digest()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::scored::Scored;
    use pith_runtime::RuntimeError;
    use std::ops::Range;

    /// A model by a rule: the logit of token `t` after token `a`, at any position.
    pub struct Rule<F: Fn(u32, u32) -> f32>(pub usize, pub F);

    impl<F: Fn(u32, u32) -> f32> Logits for Rule<F> {
        fn vocab_len(&self) -> usize {
            self.0
        }

        fn logits(
            &mut self,
            tokens: &[u32],
            wanted: Range<usize>,
            each: &mut dyn FnMut(usize, &[f32]),
        ) -> Result<(), RuntimeError> {
            for position in wanted {
                let logits: Vec<f32> =
                    (0..self.0 as u32).map(|token| self.1(tokens[position], token)).collect();
                each(position, &logits);
            }
            Ok(())
        }
    }

    pub fn windows(vocab_len: u32) -> Windows {
        let tokens = (0..64u32).map(|index| (index * index + index / 7) % vocab_len).collect();
        Windows::cut(tokens, 8, None, Scored::All).unwrap()
    }

    pub fn rough(after: u32, token: u32) -> f32 {
        (after as f32 * 1.7 + token as f32 * 2.9).sin() * 4.0
    }

    #[test]
    fn small_vocabularies_are_kept_whole() {
        let of = |vocab_len: usize| {
            let reference = Reference::compute(&mut Rule(vocab_len, rough), windows(37), None, &()).unwrap();
            (reference.is_exact(), reference.kept_len(), reference.ids.len() / reference.token_count())
        };
        assert_eq!(of(EXACT_VOCAB_LEN), (true, EXACT_VOCAB_LEN, 0));
        assert_eq!(of(EXACT_VOCAB_LEN + 1), (false, DEFAULT_KEPT, DEFAULT_KEPT));
    }
}
