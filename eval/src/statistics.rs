//! Means, percentiles, intervals, tests.

use serde::Serialize;

/// The normal distribution's 97.5 % point: 95 % lie within so many standard deviations.
const Z_95: f64 = 1.959_963_984_540_054;

/// A mean, or a figure made of means.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Its standard error, tokens taken as independent; `None` for fewer than two values.
    pub standard_error: Option<f64>,
}

impl Estimate {
    /// Mean of some values, at least one: standard deviation (with `n − 1`) over `√n`.
    pub fn mean(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let count = values.len();
        assert!(count > 0, "a mean of nothing");
        let value = values.clone().sum::<f64>() / count as f64;
        let standard_error = (count > 1).then(|| {
            let squares: f64 = values.map(|each| (each - value).powi(2)).sum();
            (squares / (count - 1) as f64 / count as f64).sqrt()
        });
        Self { value, standard_error }
    }

    /// `exp` of it; the error is carried over to first order.
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        Self { value, standard_error: self.standard_error.map(|error| value * error) }
    }

    /// `√` of it, 0 or more; the error is carried over to first order, and is unknown at 0.
    pub fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        let error = self.standard_error.filter(|_| value > 0.0);
        Self { value, standard_error: error.map(|error| 0.5 * error / value) }
    }
}

/// How values are spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// The mean's standard error; `None` for fewer than two values.
    pub standard_error: Option<f64>,
    /// Half are less.
    pub median: f64,
    /// 90 % are less.
    pub percentile_90: f64,
    /// 95 % are less.
    pub percentile_95: f64,
    /// 99 % are less.
    pub percentile_99: f64,
    /// 99.9 % are less.
    pub percentile_99_9: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some values, at least one; sorts them.
    pub fn of(values: &mut [f64]) -> Self {
        let Estimate { value: mean, standard_error } = Estimate::mean(values.iter().copied());
        values.sort_unstable_by(f64::total_cmp);
        Self {
            mean,
            standard_error,
            median: percentile(values, 0.5),
            percentile_90: percentile(values, 0.9),
            percentile_95: percentile(values, 0.95),
            percentile_99: percentile(values, 0.99),
            percentile_99_9: percentile(values, 0.999),
            max: values[values.len() - 1],
        }
    }
}

/// The value below which `fraction` (0 to 1) of `sorted` lie, linear between neighbours: the first is at 0, the last at
/// 1. Panics if there is none.
pub fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, part) = (place as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    (1.0 - part) * sorted[below] + part * sorted[above]
}

/// How many of some cases, with a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Cases that were so.
    pub count: usize,
    /// All cases.
    pub total: usize,
    /// `count / total`.
    pub share: f64,
    /// Where the 95 % interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

impl Share {
    /// Wilson's score interval (1927), which stays within 0 and 1 and is of use at both ends. Panics if there are no
    /// cases, or fewer than `count`.
    pub fn of(count: usize, total: usize) -> Self {
        assert!(total > 0 && count <= total, "{count} of {total}");
        let (n, share) = (total as f64, count as f64 / total as f64);
        let z2 = Z_95 * Z_95;
        let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z_95 / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
        // At the ends rounding would leave 1e-17 and more.
        let low = if count == 0 { 0.0 } else { (middle - half).max(0.0) };
        let high = if count == total { 1.0 } else { (middle + half).min(1.0) };
        Self { count, total, share, low, high }
    }
}

/// McNemar's exact test: how likely it is, were both models equally good, that among the cases where one alone is right
/// the two numbers differ as much as `first` and `second` or more. Two-sided; 1 where there are no such cases.
pub fn mcnemar(first: usize, second: usize) -> f64 {
    let count = first + second;
    // ln of C(n, i) / 2^n, from one i to the next, so that nothing overflows.
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

    #[test]
    fn means_have_the_error_of_a_sample() {
        let found = Estimate::mean([1.0, 2.0, 3.0, 4.0].into_iter());
        close(found.value, 2.5);
        close(found.standard_error.unwrap(), (5.0f64 / 3.0 / 4.0).sqrt());
        assert_eq!(Estimate::mean([7.0].into_iter()), Estimate { value: 7.0, standard_error: None });
        let root = Estimate { value: 4.0, standard_error: Some(0.4) }.sqrt();
        close(root.value, 2.0);
        close(root.standard_error.unwrap(), 0.1);
        assert_eq!(Estimate { value: 0.0, standard_error: Some(0.0) }.sqrt().standard_error, None);
        close(Estimate { value: 0.0, standard_error: Some(0.5) }.exp().standard_error.unwrap(), 0.5);
    }

    #[test]
    fn percentiles_lie_between_neighbours() {
        let values: Vec<f64> = (0..=10).map(f64::from).collect();
        for (fraction, expected) in [(0.0, 0.0), (0.5, 5.0), (0.25, 2.5), (0.999, 9.99), (1.0, 10.0)] {
            close(percentile(&values, fraction), expected);
        }
        close(percentile(&[3.0], 0.9), 3.0);
        close(percentile(&[1.0, 2.0], 0.5), 1.5);
        let spread = Spread::of(&mut [4.0, 1.0, 3.0, 2.0]);
        assert_eq!((spread.mean, spread.median, spread.max), (2.5, 2.5, 4.0));
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
        // Of very many nothing overflows: 40 standard deviations apart.
        assert!(mcnemar(30_000, 40_000) < 1e-300);
        assert!(mcnemar(35_000, 35_000) == 1.0);
    }
}
