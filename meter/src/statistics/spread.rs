//! Means of many values, and their spread.

use serde::Serialize;

/// A mean, or a figure derived from means.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Its standard error, for independent tokens; `None` for fewer than two values.
    pub standard_error: Option<f64>,
}

impl Estimate {
    /// Mean of one or more values: standard deviation (with `n − 1`) over `√n`.
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

    /// `exp` of the estimate; the error is propagated to first order.
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        Self { value, standard_error: self.standard_error.map(|error| value * error) }
    }

    /// `√` of the estimate, which is 0 or more; the error is propagated to first order and unknown
    /// at 0.
    pub fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        let error = self.standard_error.filter(|_| value > 0.0);
        Self { value, standard_error: error.map(|error| 0.5 * error / value) }
    }
}

/// The spread of values.
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
    /// The spread of one or more values; sorts them.
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

/// Median, least and greatest of a few measurements, too few for a meaningful mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MedianRange {
    /// Half of the values are less.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl MedianRange {
    /// `None` for no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Self { median: percentile(&sorted, 0.5), min, max })
    }
}

/// The value below which `fraction` (0 to 1) of `sorted` lies, linear between neighbours. The first
/// value is at 0, the last at 1. Panics if `sorted` is empty.
pub fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, part) = (place as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    (1.0 - part) * sorted[below] + part * sorted[above]
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

    #[test]
    fn medians_of_odd_even_and_no_counts() {
        assert_eq!(MedianRange::of([3.0, 1.0, 9.0]), Some(MedianRange { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(MedianRange::of([4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
        assert_eq!(MedianRange::of([]), None);
    }
}
