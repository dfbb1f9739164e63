//! Half-quadratic quantization (Badri and Shaji, "Half-Quadratic Quantization of Large Machine
//! Learning Models", 2023): scales fitted without statistics. Few large errors count less than many
//! small ones.
//!
//! Reduces the sum of `|w − s·q|^p`, `p < 1`, in alternating steps: shrinkage of the errors gives
//! the outliers `e`, then least squares fits the scale to `w − e`. Stops at the first step that
//! does not reduce the sum.

use super::Rounded;
use pith_format::Encoding;
use pith_format::encoding::rounding::{Affine, Parameters, Shared, Stored, choose, fit, round, share};
use pith_format::encoding::{Grouped, Multiplier};
use rayon::prelude::*;

/// The norm's exponent, the weight of the quadratic part at the first step, and its growth: the
/// authors' values.
const NORM: f32 = 0.7;
const WEIGHT: f32 = 10.0;
const GROWTH: f32 = 1.01;
const STEPS: usize = 20;

/// Rounds `rows × cols` weights.
pub fn hqq(encoding: Encoding, weights: &[f32], cols: usize) -> Rounded {
    let rows = weights.len() / cols;
    let mut out = Rounded::new(encoding, rows, cols);
    let (grouped, stride, tile_cols) = (out.grouped(), out.stride, encoding.tile_cols());
    let group = grouped.group_cols;
    let rounded: Vec<Parameters> = weights
        .par_chunks_exact(cols)
        .zip(out.levels.par_chunks_exact_mut(stride))
        .map(|(weights, levels)| {
            let mut padded = weights.to_vec();
            padded.resize(stride, 0.0);
            let mut parameters = Parameters::default();
            for (weights, levels) in padded.chunks_exact(tile_cols).zip(levels.chunks_exact_mut(tile_cols)) {
                let fitted: Vec<Affine> =
                    weights.chunks_exact(group).map(|weights| half_quadratic(&grouped, weights)).collect();
                let shared = share(&grouped, fitted.iter().copied());
                let groups = weights.chunks_exact(group).zip(levels.chunks_exact_mut(group)).zip(fitted);
                let stored: Vec<Stored> = groups
                    .map(|((weights, levels), fitted)| {
                        let stored = nearest_stored(&grouped, weights, fitted, shared);
                        round(&grouped, weights, stored.affine(&grouped, shared), levels);
                        stored
                    })
                    .collect();
                parameters.push(&grouped, shared, &stored);
            }
            parameters
        })
        .collect();
    out.set_parameters(rounded);
    out
}

/// What is stored for a group, with the factor that comes closest to the wanted scale. (The one of
/// the least squared error would undo the norm's work.)
fn nearest_stored(grouped: &Grouped, weights: &[f32], fitted: Affine, shared: Shared) -> Stored {
    let stored = choose(grouped, weights, None, fitted, shared);
    let distance = |factor: i8| (shared.scale * f32::from(factor) - fitted.scale).abs();
    match grouped.scale {
        Multiplier::Factors(factors) if shared.scale != 0.0 => {
            let nearest = factors.iter().copied().min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
            Stored { factor: nearest.expect("a table of factors is not empty"), ..stored }
        }
        _ => stored,
    }
}

/// Scale and minimum of one group. The minimum is that of the least squares.
fn half_quadratic(grouped: &Grouped, weights: &[f32]) -> Affine {
    let fitted = fit(grouped, weights, None);
    let raised: Vec<f32> = weights.iter().map(|weight| weight - fitted.minimum).collect();
    Affine { scale: half_quadratic_scale(grouped, &raised, fitted.scale), ..fitted }
}

/// The scale of weights less their minimum, from a first one on.
fn half_quadratic_scale(grouped: &Grouped, weights: &[f32], first: f32) -> f32 {
    let (mut best, mut levels) = (first, vec![0i8; weights.len()]);
    let largest = weights.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
    if best == 0.0 {
        return best;
    }
    let mut least = norm(grouped, weights, best, largest, &mut levels);
    let mut weight = WEIGHT;
    for _ in 0..STEPS {
        round(grouped, weights, Affine { scale: best, minimum: 0.0 }, &mut levels);
        let (mut product, mut square) = (0.0f32, 0.0f32);
        for (&w, &level) in weights.iter().zip(&levels) {
            let level = f32::from(level);
            // In units of the group's largest weight, so that the constants suit every layer.
            let outlier = largest * shrunk((w - best * level) / largest, weight);
            product += level * (w - outlier);
            square += level * level;
        }
        if square == 0.0 {
            break;
        }
        let next = Multiplier::Half.storable(product / square);
        let found =
            if next == 0.0 { f32::INFINITY } else { norm(grouped, weights, next, largest, &mut levels) };
        if found >= least {
            break;
        }
        (best, least) = (next, found);
        weight *= GROWTH;
    }
    best
}

/// `sign(x) · max(0, |x| − |x|^(p−1) / β)`.
fn shrunk(x: f32, weight: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.signum() * (x.abs() - x.abs().powf(NORM - 1.0) / weight).max(0.0) }
}

/// `Σ (|w − s·q| / largest)^p` with the nearest levels, which it writes to `levels`.
fn norm(grouped: &Grouped, weights: &[f32], scale: f32, largest: f32, levels: &mut [i8]) -> f32 {
    round(grouped, weights, Affine { scale, minimum: 0.0 }, levels);
    let errors =
        weights.iter().zip(levels.iter()).map(|(&w, &level)| (w - scale * f32::from(level)).abs() / largest);
    errors.map(|error| error.powf(NORM)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(count: usize) -> Vec<f32> {
        let mut state = 5u32;
        let mut next = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|i| (next() + next() + next()) * if i % 37 == 0 { 6.0 } else { 1.0 }).collect()
    }

    #[test]
    fn the_norm_never_rises() {
        for &encoding in Encoding::ALL {
            let Some(grouped) = encoding.grouped() else { continue };
            for weights in weights(64 * 20).chunks_exact(64) {
                let weights = &weights[..grouped.group_cols.min(64)];
                let fitted = fit(&grouped, weights, None);
                let raised: Vec<f32> = weights.iter().map(|weight| weight - fitted.minimum).collect();
                let largest = raised.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
                let mut levels = vec![0; raised.len()];
                let mut of = |affine: Affine| norm(&grouped, &raised, affine.scale, largest, &mut levels);
                let (plain, found) = (of(fitted), of(half_quadratic(&grouped, weights)));
                assert!(found <= plain, "{encoding}: {found} after {plain}");
            }
        }
    }

    #[test]
    fn outliers_are_what_errors_leave_beyond_a_threshold() {
        assert_eq!(shrunk(0.0, 10.0), 0.0);
        assert_eq!(shrunk(0.01, 10.0), 0.0);
        assert!((shrunk(-1.0, 10.0) + 0.9).abs() < 1e-6);
    }

    #[test]
    fn zeros_stay_zeros() {
        let rounded = hqq(Encoding::Q4NL, &[0.0; 256], 128);
        assert!(rounded.values(128).iter().all(|&value| value == 0.0));
    }
}
