//! Comparison of a model with the original.

use crate::error::EvalError;
use crate::kl::divergence::{Divergence, TokenDivergence};
use crate::kl::reference::{Reference, run};
use crate::logits::Logits;
use crate::softmax::{largest, masses};
use pith_format::Progress;

impl Reference {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kl::reference::tests::{Rule, rough, windows};
    use crate::scored::Scored;
    use crate::windows::Windows;

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
}
