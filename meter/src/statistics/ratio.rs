//! Ratios of two sums over one run, such as joules per token, with confidence intervals.

use super::student_95;

/// Most windows per run for a confidence interval.
pub const MAX_WINDOWS: usize = 20;
/// Fewest windows, and fewest parts per window, for a confidence interval.
const MIN_WINDOWS: usize = 5;
const MIN_PARTS: usize = 4;

/// A ratio of two sums and its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The ratio of the sums over the whole run.
    pub mean: f64,
    /// Half the width of the 95 % confidence interval; `None` for too few parts.
    pub half_width: Option<f64>,
    /// Windows behind the interval; 0 without one.
    pub windows: usize,
}

impl Ratio {
    /// `r = Σ y / Σ x` over the parts `(y, x)` of a run, in order of time. `None` unless `Σ x` is
    /// positive.
    ///
    /// The interval is that of a ratio estimator (Cochran, Sampling Techniques, 6.4) over n
    /// consecutive windows with equally many parts: `t · √(n / (n - 1) · Σ (yᵢ - r·xᵢ)²) / Σ x`,
    /// with Student's t. Windows keep most of the correlation between neighbours inside.
    pub fn of(parts: &[(f64, f64)]) -> Option<Self> {
        let (above, below) = sums(parts);
        if below <= 0.0 {
            return None;
        }
        let mean = above / below;
        let count = (parts.len() / MIN_PARTS).min(MAX_WINDOWS);
        if count < MIN_WINDOWS {
            return Some(Self { mean, half_width: None, windows: 0 });
        }
        let bound = |window: usize| window * parts.len() / count;
        let squares: f64 = (0..count)
            .map(|window| sums(&parts[bound(window)..bound(window + 1)]))
            .map(|(above, below)| (above - mean * below).powi(2))
            .sum();
        let error = (squares * count as f64 / (count - 1) as f64).sqrt() / below;
        Some(Self { mean, half_width: Some(student_95(count - 1) * error), windows: count })
    }

    /// The same ratio without its interval.
    pub fn without_interval(self) -> Self {
        Self { half_width: None, windows: 0, ..self }
    }
}

fn sums(parts: &[(f64, f64)]) -> (f64, f64) {
    parts.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_parts_have_a_ratio_and_no_interval() {
        let ratio = Ratio::of(&[(2.0, 1.0); 19]).unwrap();
        assert_eq!(ratio, Ratio { mean: 2.0, half_width: None, windows: 0 });
        let ratio = Ratio::of(&[(2.0, 1.0); 20]).unwrap();
        assert_eq!(ratio, Ratio { mean: 2.0, half_width: Some(0.0), windows: 5 });
        assert_eq!(ratio.without_interval(), Ratio { mean: 2.0, half_width: None, windows: 0 });
        assert_eq!(Ratio::of(&[]), None);
        assert_eq!(Ratio::of(&[(1.0, 0.0)]), None);
    }

    /// About 95 of 100 intervals of noisy runs contain the true ratio.
    #[test]
    fn intervals_hold_the_true_ratio() {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let held = (0..400)
            .filter(|_| {
                let parts: Vec<(f64, f64)> = (0..200).map(|_| (1.0 + uniform(), 1.0)).collect();
                let ratio = Ratio::of(&parts).unwrap();
                (ratio.mean - 1.5).abs() <= ratio.half_width.unwrap()
            })
            .count();
        // Binomial: 400 · 0.95 ± 4 · 4.4.
        assert!((362..=397).contains(&held), "{held} of 400");
    }

    /// A stall makes a rate uncertain by the share of time it took, and the inverse rate by the
    /// same share.
    #[test]
    fn a_rate_is_as_unsure_as_its_inverse() {
        let mut parts = [(1.0, 0.5); 100];
        parts[50].1 = 10.0;
        let rate = Ratio::of(&parts).unwrap();
        let inverse = Ratio::of(&parts.map(|(above, below)| (below, above))).unwrap();
        assert!((rate.mean - 100.0 / 59.5).abs() < 1e-12 && (rate.mean * inverse.mean - 1.0).abs() < 1e-12);
        let relative = [rate, inverse].map(|ratio| ratio.half_width.unwrap() / ratio.mean);
        assert!((relative[0] - relative[1]).abs() < 1e-12, "{relative:?}");
        assert!(relative[0] > 0.2 && relative[0] < 0.5, "{relative:?}");
    }
}
