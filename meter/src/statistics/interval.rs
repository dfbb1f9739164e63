//! Means of repeated measurements, with confidence intervals.

use super::{Estimate, student_95};
use serde::Serialize;

/// A mean and its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Half of the 95 % confidence interval; `None` for a single value.
    pub half_width: Option<f64>,
    /// Number of values.
    pub count: usize,
}

/// Comparison of two variants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Mean of the second minus the first, over pairs run one after the other.
    pub difference: Interval,
    /// Mean of the second over the first's; `None` if the difference is within the noise.
    pub ratio: Option<f64>,
}

impl Interval {
    /// The mean of `values` with its Student's t interval; `None` if there are no values or one is
    /// not finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count == 0 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let Estimate { value: mean, standard_error } = Estimate::mean(values.iter().copied());
        let half_width = standard_error.map(|error| student_95(count - 1) * error);
        Some(Self { mean, half_width, count })
    }

    /// Both ends of the interval; `None` for a single value.
    pub fn ends(&self) -> Option<[f64; 2]> {
        self.half_width.map(|half| [self.mean - half, self.mean + half])
    }

    /// The interval of the values multiplied by `by`.
    pub fn scaled(self, by: f64) -> Self {
        Self { mean: self.mean * by, half_width: self.half_width.map(|half| half * by.abs()), ..self }
    }
}

/// Compares two variants measured in alternating windows. The i-th window of one is paired with the
/// i-th of the other, so heat and other slow drifts cancel. `None` for fewer than two pairs.
pub fn compare(first: &[f64], second: &[f64]) -> Option<Comparison> {
    let differences: Vec<f64> = first.iter().zip(second).map(|(first, second)| second - first).collect();
    let difference = Interval::of(&differences)?;
    let [low, high] = difference.ends()?;
    let pairs = differences.len();
    let (first, second) = (Interval::of(&first[..pairs])?, Interval::of(&second[..pairs])?);
    let ratio = ((low > 0.0 || high < 0.0) && first.mean != 0.0).then(|| second.mean / first.mean);
    Some(Comparison { difference, ratio })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_that_of_the_textbook() {
        let interval = Interval::of(&[5.0, 6.0, 7.0, 8.0, 9.0]).unwrap();
        // t(4) · sqrt(2.5 / 5)
        assert!((interval.mean - 7.0).abs() < 1e-12);
        assert!((interval.half_width.unwrap() - 2.77645 * 0.5f64.sqrt()).abs() < 1e-4);
        assert_eq!(Interval::of(&[3.0]).unwrap().half_width, None);
        assert!(Interval::of(&[]).is_none() && Interval::of(&[1.0, f64::NAN]).is_none());
    }

    #[test]
    fn a_difference_within_the_noise_has_no_ratio() {
        let noise = compare(&[10.0, 12.0, 11.0], &[11.0, 11.5, 11.2]).unwrap();
        assert_eq!(noise.ratio, None);
        // Both drift, and still one is larger by a tenth.
        let clear = compare(&[10.0, 12.0, 14.0], &[11.0, 13.1, 15.5]).unwrap();
        assert!((clear.ratio.unwrap() - 39.6 / 36.0).abs() < 1e-12);
        assert!(compare(&[1.0], &[2.0]).is_none());
    }
}
