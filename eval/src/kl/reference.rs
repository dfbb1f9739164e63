//! The original's kept logits, and the comparison with them.

use crate::about::About;
use crate::error::EvalError;
use crate::kl::divergence::{Divergence, TokenDivergence};
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

    /// Runs another model of the same vocabulary over the same windows. `progress` counts windows.
    pub fn compare(&self, model: &mut impl Logits, progress: &dyn Progress) -> Result<Divergence, EvalError> {
        Ok(Divergence::of(self, &self.compare_tokens(model, progress)?))
    }

    /// [`compare`](Reference::compare) token by token, so that two candidates can be compared in
    /// pairs.
    pub fn compare_tokens(
        &self,
        model: &mut impl Logits,
        progress: &dyn Progress,
    ) -> Result<Vec<TokenDivergence>, EvalError> {
        self.check(model)?;
        let mut marks = vec![self.is_exact(); self.vocab_len];
        let mut tokens = Vec::with_capacity(self.positions.len());
        run(model, &self.windows, progress, |next, logits| {
            tokens.push(self.compare_position(tokens.len(), next, logits, &mut marks)?);
            Ok(())
        })?;
        Ok(tokens)
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

    /// Compares one position. `marks` is restored before returning.
    fn compare_position(
        &self,
        index: usize,
        next: u32,
        logits: &[f32],
        marks: &mut [bool],
    ) -> Result<TokenDivergence, usize> {
        let position = &self.positions[index];
        let kept = &self.logits[index * self.kept_len..][..self.kept_len];
        let ids = if self.is_exact() { &[][..] } else { &self.ids[index * self.kept_len..][..self.kept_len] };
        ids.iter().for_each(|&token| marks[token as usize] = true);
        let masses = masses(logits, marks);
        ids.iter().for_each(|&token| marks[token as usize] = false);
        let masses = masses?;
        let term = |p_logit: f32, q_logit: f32| {
            let log_p = f64::from(p_logit) - position.log_sum;
            log_p.exp() * (log_p - (f64::from(q_logit) - masses.log_sum))
        };
        let pairs = kept.iter();
        let sum: f64 = if self.is_exact() {
            pairs.zip(logits).map(|(&p, &q)| term(p, q)).sum()
        } else {
            let tail = position.tail_log.exp() * (position.tail_log - masses.tail_log);
            pairs.zip(ids).map(|(&p, &token)| term(p, logits[token as usize])).sum::<f64>() + tail
        };
        Ok(TokenDivergence {
            // A divergence is never negative; rounding alone can make it so, by about 1e-16.
            kl: sum.max(0.0),
            log_p: f64::from(position.next_logit) - position.log_sum,
            log_q: f64::from(logits[next as usize]) - masses.log_sum,
            same_top: largest(logits)? == position.best as usize,
        })
    }
}

/// Calls `each` for all scored positions in order, with the following token and the logits; its
/// error is the first token whose logit is not finite.
fn run(
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
    use crate::windows::Scored;
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

    fn rough(after: u32, token: u32) -> f32 {
        (after as f32 * 1.7 + token as f32 * 2.9).sin() * 4.0
    }

    fn rougher(after: u32, token: u32) -> f32 {
        rough(after, token) + (after as f32 * 3.1 + token as f32 * 0.7).cos() * 0.3
    }

    #[test]
    fn two_tokens_by_hand() {
        // p = (3/4, 1/4), q = (1/2, 1/2), for any constant added to the logits.
        let mut p = Rule(2, |_, token| [3f32.ln() + 5.0, 5.0][token as usize]);
        let mut q = Rule(2, |_, _| -7.0);
        let windows = Windows::cut(vec![0, 0, 0, 1], 4, None, Scored::All).unwrap();
        let reference = Reference::compute(&mut p, windows, None, &()).unwrap();
        let found = reference.compare(&mut q, &()).unwrap();
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((found.kl.mean - expected).abs() < 1e-6 * expected, "{} {expected}", found.kl.mean);
        // The text continues with 0, 0, 1.
        let perplexity = (0.75f64 * 0.75 * 0.25).powf(-1.0 / 3.0);
        assert!((found.reference_perplexity.value - perplexity).abs() < 1e-6);
        assert!((found.perplexity.value - 2.0).abs() < 1e-12);
        assert!((found.perplexity_ratio.value - 2.0 / perplexity).abs() < 1e-6);
        assert!((found.delta_p.value - (-0.25 - 0.25 + 0.25) / 3.0).abs() < 1e-6);
        assert!((found.delta_p_rms.value - 0.25).abs() < 1e-6);
        // Of equal logits the first counts.
        assert_eq!((found.token_count, found.top1.count, found.exact), (3, 3, true));
    }

    #[test]
    fn a_tail_is_one_token() {
        // p = (1/2, 1/4, 1/8, 1/8), q = (1/4, 1/4, 1/3, 1/6); two tokens kept.
        let of = |p: [f32; 4]| Rule(4, move |_, token| p[token as usize].ln());
        let windows = Windows::cut(vec![0; 2], 2, None, Scored::All).unwrap();
        let reference =
            Reference::compute(&mut of([0.5, 0.25, 0.125, 0.125]), windows, Some(2), &()).unwrap();
        let found = reference.compare(&mut of([0.25, 0.25, 1.0 / 3.0, 1.0 / 6.0]), &()).unwrap();
        let expected = 0.5 * 2f64.ln() + 0.25 * 0.5f64.ln();
        assert!((found.kl.mean - expected).abs() < 1e-6, "{} {expected}", found.kl.mean);
        assert_eq!((found.kept_len, found.exact), (2, false));
    }

    #[test]
    fn a_model_does_not_diverge_from_itself() {
        for kept in [None, Some(1), Some(5), Some(36), Some(37), Some(1000)] {
            let reference = Reference::compute(&mut Rule(37, rough), windows(37), kept, &()).unwrap();
            let found = reference.compare(&mut Rule(37, rough), &()).unwrap();
            assert_eq!((found.kl.mean, found.kl.max, found.top1.share), (0.0, 0.0, 1.0), "{kept:?}");
            assert_eq!((found.perplexity_ratio.value, found.delta_p_rms.value), (1.0, 0.0));
        }
    }

    #[test]
    fn keeping_fewer_tokens_never_makes_it_larger() {
        let of = |kept| {
            let reference = Reference::compute(&mut Rule(37, rough), windows(37), kept, &()).unwrap();
            reference.compare_tokens(&mut Rule(37, rougher), &()).unwrap()
        };
        let mut before = of(Some(1));
        for kept in [2, 3, 8, 20, 36, 37] {
            let after = of(Some(kept));
            for (less, more) in before.iter().zip(&after) {
                assert!(less.kl <= more.kl + 1e-12, "{kept}: {less:?} {more:?}");
                // Kept tokens are summed separately from the tail.
                assert!((less.log_p - more.log_p).abs() + (less.log_q - more.log_q).abs() < 1e-12);
            }
            before = after;
        }
        assert!(before.iter().all(|token| token.kl > 0.0));
    }

    #[test]
    fn a_logit_that_is_not_finite_is_named() {
        let wrong = |after: u32, token: u32| if (after, token) == (2, 5) { f32::NAN } else { 0.0 };
        let windows = || Windows::cut(vec![1, 1, 1, 1, 2, 1], 3, None, Scored::All).unwrap();
        let message = |error: EvalError| error.to_string();
        let expected = "window 1, position 1: the logit of token 5 is NaN";
        let found = Reference::compute(&mut Rule(9, wrong), windows(), None, &()).unwrap_err();
        assert!(message(found).starts_with(expected));
        for kept in [None, Some(3)] {
            let reference = Reference::compute(&mut Rule(9, rough), windows(), kept, &()).unwrap();
            let found = reference.compare(&mut Rule(9, wrong), &()).unwrap_err();
            assert!(message(found).starts_with(expected));
        }
    }

    #[test]
    fn another_vocabulary_is_refused_and_so_is_keeping_nothing() {
        let reference = Reference::compute(&mut Rule(37, rough), windows(37), None, &()).unwrap();
        let message = reference.compare(&mut Rule(38, rough), &()).unwrap_err().to_string();
        assert!(message.contains("38") && message.contains("37"), "{message}");
        let error = Reference::compute(&mut Rule(37, rough), windows(37), Some(0), &()).unwrap_err();
        assert!(matches!(error, EvalError::Kept { found: 0 }));
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
