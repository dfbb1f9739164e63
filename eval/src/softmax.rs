//! Log probabilities from logits, in f64.

/// Normalisation of one position's logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Masses {
    /// `ln Σ exp(logit)`: `ln p` of a token is its logit minus this.
    pub log_sum: f64,
    /// `ln` of the total probability of the tokens not kept; negative infinity if all are kept.
    pub tail_log: f64,
}

/// Sums the logits of a position. The reference and the compared model use the same arithmetic, so
/// that a model's divergence from itself is exactly 0.
///
/// `kept` has one element per logit. The error is the first token whose logit is not finite.
pub(crate) fn masses(logits: &[f32], kept: &[bool]) -> Result<Masses, usize> {
    let largest = f64::from(logits[largest(logits)?]);
    let (mut kept_sum, mut tail_sum, mut has_tail) = (0.0f64, 0.0f64, false);
    for (&logit, &is_kept) in logits.iter().zip(kept) {
        let mass = (f64::from(logit) - largest).exp();
        if is_kept {
            kept_sum += mass;
        } else {
            tail_sum += mass;
            has_tail = true;
        }
    }
    let log_total = (kept_sum + tail_sum).ln();
    // A tail too small for f64 becomes the smallest number. This can make a divergence smaller,
    // never larger.
    let tail_log =
        if has_tail { tail_sum.max(f64::MIN_POSITIVE).ln() - log_total } else { f64::NEG_INFINITY };
    Ok(Masses { log_sum: largest + log_total, tail_log })
}

/// The token with the largest logit; the first of equals. The error is the first token whose logit
/// is not finite.
pub(crate) fn largest(logits: &[f32]) -> Result<usize, usize> {
    if let Some(token) = logits.iter().position(|logit| !logit.is_finite()) {
        return Err(token);
    }
    let (mut best, mut best_logit) = (0, f32::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best_logit {
            (best, best_logit) = (token, logit);
        }
    }
    Ok(best)
}

/// The `count` tokens with the largest logits, in ascending token order; of equal logits the first.
pub(crate) fn likeliest(logits: &[f32], count: usize, order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..logits.len() as u32);
    if count < order.len() {
        let logit = |token: &u32| logits[*token as usize];
        order.select_nth_unstable_by(count, |a, b| logit(b).total_cmp(&logit(a)).then(a.cmp(b)));
        order.truncate(count);
        order.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masses_are_those_of_a_softmax() {
        let logits = [1.0f32, -2.0, 0.5, 100.0, 99.0];
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit - 100.0).exp()).sum();
        let found = masses(&logits, &[true; 5]).unwrap();
        assert!((found.log_sum - (100.0 + sum.ln())).abs() < 1e-12);
        assert_eq!(found.tail_log, f64::NEG_INFINITY);
        let found = masses(&logits, &[true, true, true, true, false]).unwrap();
        assert!((found.tail_log.exp() - (-1f64).exp() / sum).abs() < 1e-15);
    }

    #[test]
    fn a_tail_that_vanishes_is_finite() {
        let found = masses(&[2000.0, 0.0], &[true, false]).unwrap();
        assert!(found.tail_log.is_finite() && found.tail_log < -700.0, "{found:?}");
    }

    #[test]
    fn what_is_not_finite_is_named() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(masses(&[0.0, 1.0, wrong, wrong], &[true; 4]), Err(2));
        }
    }

    #[test]
    fn the_likeliest_come_in_ascending_order_and_the_first_of_equals() {
        let logits = [1.0, 3.0, 3.0, -1.0, 3.0, 7.0];
        let mut order = Vec::new();
        let mut of = |count| {
            likeliest(&logits, count, &mut order);
            order.clone()
        };
        assert_eq!(of(1), [5]);
        assert_eq!(of(3), [1, 2, 5]);
        assert_eq!(of(6), [0, 1, 2, 3, 4, 5]);
        assert_eq!(largest(&logits[..5]), Ok(1));
    }
}
