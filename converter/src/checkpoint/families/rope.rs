//! Frequencies of rotary embeddings, with every supported scaling.
//!
//! Computed in f64 and rounded once; `transformers` computes in f32 and differs by a few parts in
//! 10⁷.

use std::f64::consts::TAU;

use pith_format::RopeTable;

/// Changes of the unscaled frequencies.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scaling {
    /// No change.
    None,
    /// All are divided by one factor.
    Linear { factor: f64 },
    /// Each is divided by its own factor.
    Divided { factors: Vec<f64> },
    /// Llama 3.1: long wavelengths are divided, short ones kept, those between blended.
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
    /// YaRN: the same, blended by the dimension's index; sine and cosine grow too.
    Yarn { factor: f64, original: f64, beta_fast: f64, beta_slow: f64, truncate: bool, magnitude: f64 },
    /// LongRoPE: one set of divisors up to `original` tokens, another beyond.
    Long { short: Vec<f64>, long: Vec<f64>, original: usize, magnitude: f64 },
}

/// The table for `base` and `dim` rotated dimensions.
///
/// An odd `dim` is rounded up; the exponents remain those of `dim`. Lists of factors have one for
/// every frequency.
pub(super) fn table(base: f64, dim: usize, scaling: &Scaling) -> RopeTable {
    let plain: Vec<f64> =
        (0..dim.div_ceil(2)).map(|index| base.powf(-(2.0 * index as f64) / dim as f64)).collect();
    let divided = |factors: &[f64]| plain.iter().zip(factors).map(|(plain, factor)| plain / factor).collect();
    let (mut magnitude, mut long) = (1.0, None);
    let frequencies: Vec<f64> = match scaling {
        Scaling::None => plain,
        Scaling::Linear { factor } => plain.iter().map(|frequency| frequency / factor).collect(),
        Scaling::Divided { factors } => divided(factors),
        Scaling::Llama3 { factor, low, high, original } => {
            plain.iter().map(|&frequency| llama3(frequency, *factor, *low, *high, *original)).collect()
        }
        Scaling::Yarn { factor, original, beta_fast, beta_slow, truncate, magnitude: grown } => {
            magnitude = *grown;
            let range = yarn_range(base, dim, *original, [*beta_fast, *beta_slow], *truncate);
            plain.iter().enumerate().map(|(index, &plain)| yarn(plain, index, *factor, range)).collect()
        }
        Scaling::Long { short, long: beyond, original, magnitude: grown } => {
            magnitude = *grown;
            long = Some((divided(beyond), *original));
            divided(short)
        }
    };
    let rounded = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
    let (long_inv_freq, long_from) = long.map(|(values, from)| (rounded(values), from)).unzip();
    RopeTable {
        dim: dim.next_multiple_of(2),
        inv_freq: rounded(frequencies),
        magnitude: magnitude as f32,
        long_inv_freq,
        long_from,
    }
}

/// The factor of sine and cosine that the YaRN paper recommends.
pub(super) fn yarn_magnitude(factor: f64, weight: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

/// The factor of sine and cosine that the LongRoPE paper recommends.
pub(super) fn long_magnitude(factor: f64, original: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() }
}

fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let turns = original * frequency / TAU;
    if turns > high {
        frequency
    } else if turns < low {
        frequency / factor
    } else {
        let kept = (turns - low) / (high - low);
        (1.0 - kept) * frequency / factor + kept * frequency
    }
}

/// Indices between which YaRN blends from keeping to dividing.
fn yarn_range(base: f64, dim: usize, original: f64, betas: [f64; 2], truncate: bool) -> (f64, f64) {
    let index = |turns: f64| dim as f64 * (original / (turns * TAU)).ln() / (2.0 * base.ln());
    let [mut low, mut high] = betas.map(index);
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
    (low, if low == high { high + 0.001 } else { high })
}

fn yarn(frequency: f64, index: usize, factor: f64, (low, high): (f64, f64)) -> f64 {
    let divided = ((index as f64 - low) / (high - low)).clamp(0.0, 1.0);
    frequency / factor * divided + frequency * (1.0 - divided)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (&found, &expected) in found.iter().zip(expected) {
            assert!(
                (f64::from(found) - expected).abs() <= 1e-6 * expected.abs(),
                "{found} is not {expected}"
            );
        }
    }

    #[test]
    fn plain_and_linear() {
        close(&table(10000.0, 8, &Scaling::None).inv_freq, &[1.0, 0.1, 0.01, 0.001]);
        close(&table(10000.0, 4, &Scaling::Linear { factor: 8.0 }).inv_freq, &[0.125, 0.00125]);
        close(&table(100.0, 4, &Scaling::Divided { factors: vec![2.0, 5.0] }).inv_freq, &[0.5, 0.02]);
    }

    #[test]
    fn an_odd_width_is_rounded_up() {
        let table = table(1000.0, 3, &Scaling::None);
        assert_eq!(table.dim, 4);
        close(&table.inv_freq, &[1.0, 0.01]);
    }

    /// head_dim 16, theta 500, an original context of 32.
    #[test]
    fn llama3_has_three_bands() {
        let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 32.0 };
        let plain = table(500.0, 16, &Scaling::None).inv_freq;
        let scaled = table(500.0, 16, &scaling).inv_freq;
        // Turns within 32 positions: 32 / 2π = 5.09 for the first, 5.09 · 500^(-1/8) = 2.34 for the
        // second, …
        assert_eq!(scaled[0], plain[0]);
        let kept = (32.0 * 500f64.powf(-0.125) / TAU - 1.0) / 3.0;
        let second = 500f64.powf(-0.125) * (kept + (1.0 - kept) / 8.0);
        close(&scaled[1..2], &[second]);
        for index in 3..8 {
            assert_eq!(scaled[index], plain[index] / 8.0);
        }
    }

    #[test]
    fn long_factors_wait_beside_the_short() {
        let scaling =
            Scaling::Long { short: vec![1.0, 2.0], long: vec![4.0, 8.0], original: 32, magnitude: 1.25 };
        let table = table(100.0, 4, &scaling);
        close(&table.inv_freq, &[1.0, 0.05]);
        close(&table.long_inv_freq.unwrap(), &[0.25, 0.0125]);
        assert_eq!((table.long_from, table.magnitude), (Some(32), 1.25));
    }

    /// Qwen2.5's setting: factor 4 from 32,768 tokens on, theta 10⁶, head_dim 128. Its range is 23
    /// to 40: the index with 32 turns is 64·ln(32768/64π)/ln 10⁶ = 23.6, with one turn 39.6.
    #[test]
    fn yarn_keeps_short_waves_and_divides_long_ones() {
        let scaling = Scaling::Yarn {
            factor: 4.0,
            original: 32768.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            magnitude: yarn_magnitude(4.0, 1.0),
        };
        let plain = table(1e6, 128, &Scaling::None).inv_freq;
        let scaled = table(1e6, 128, &scaling);
        assert_eq!(scaled.inv_freq[..24], plain[..24]);
        close(&scaled.inv_freq[40..41], &[f64::from(plain[40]) / 4.0]);
        let share = (30.0 - 23.0) / 17.0;
        close(&scaled.inv_freq[30..31], &[1e6f64.powf(-60.0 / 128.0) * (1.0 - share + share / 4.0)]);
        assert!((f64::from(scaled.magnitude) - (0.1 * 4f64.ln() + 1.0)).abs() < 1e-7);
    }
}
