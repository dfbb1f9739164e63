//! Shares of cases, and the comparison of two models on the same cases.

use super::NORMAL_95;
use serde::Serialize;

/// A share of cases with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Cases counted.
    pub count: usize,
    /// All cases.
    pub total: usize,
    /// `count / total`.
    pub share: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
}

impl Share {
    /// Wilson's score interval (1927), which stays within 0 and 1 and works at both ends. Panics if
    /// there are no cases, or fewer than `count`.
    pub fn of(count: usize, total: usize) -> Self {
        assert!(total > 0 && count <= total, "{count} of {total}");
        let (n, share) = (total as f64, count as f64 / total as f64);
        let z2 = NORMAL_95 * NORMAL_95;
        let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = NORMAL_95 / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
        // At the ends rounding would leave 1e-17 and more.
        let low = if count == 0 { 0.0 } else { (middle - half).max(0.0) };
        let high = if count == total { 1.0 } else { (middle + half).min(1.0) };
        Self { count, total, share, low, high }
    }
}

/// McNemar's exact test. `first` and `second` are the cases that only one model answers correctly.
/// Returns the two-sided probability of a difference at least as large if both models were equally
/// good; 1 if both are 0.
pub fn mcnemar(first: usize, second: usize) -> f64 {
    let count = first + second;
    // Computed as ln of C(n, i) / 2^n, term by term, against overflow.
    let mut log_term = -(count as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for index in 0..=first.min(second) {
        tail += log_term.exp();
        log_term += ((count - index) as f64 / (index + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found}, expected {expected}");
    }

    /// Values of R's `binom::binom.wilson`.
    #[test]
    fn shares_have_wilson_intervals() {
        let share = Share::of(8, 10);
        assert!(
            (share.low - 0.490_162_5).abs() < 1e-6 && (share.high - 0.943_317_8).abs() < 1e-6,
            "{share:?}"
        );
        let (none, all) = (Share::of(0, 100), Share::of(100, 100));
        assert!(none.low == 0.0 && (none.high - 0.036_993_5).abs() < 1e-6, "{none:?}");
        assert!(all.high == 1.0 && (all.low - (1.0 - none.high)).abs() < 1e-12, "{all:?}");
    }

    #[test]
    fn mcnemar_is_a_fair_coin() {
        close(mcnemar(0, 0), 1.0);
        close(mcnemar(0, 5), 2.0 / 32.0);
        close(mcnemar(5, 0), 2.0 / 32.0);
        close(mcnemar(1, 9), 2.0 * 11.0 / 1024.0);
        close(mcnemar(4, 5), 1.0);
        // Very many cases do not overflow: 40 standard deviations apart.
        assert!(mcnemar(30_000, 40_000) < 1e-300);
        assert!(mcnemar(35_000, 35_000) == 1.0);
    }
}
