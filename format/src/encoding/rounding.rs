//! Rounding to the nearest level: the choice of scales, then of codes.

use super::{Codes, Grouped, TILE_ROWS};
use half::f16;

/// Rounds a tile (16 × `cols`, row-major) group by group into `bytes`.
///
/// `importance`: weight of the squared error per column; `None` for equal weights.
pub fn encode(grouped: &Grouped, cols: usize, weights: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) {
    assert_eq!(weights.len(), TILE_ROWS * cols);
    assert!(importance.is_none_or(|importance| importance.len() == cols));
    let mut levels = vec![0i8; TILE_ROWS * cols];
    let (mut scales, mut factors) = (Vec::new(), Vec::new());
    for (weights, levels) in weights.chunks_exact(cols).zip(levels.chunks_exact_mut(cols)) {
        round_row(grouped, weights, importance, levels, &mut scales, &mut factors);
    }
    (grouped.pack)(&Codes { levels: &levels, scales: &scales, factors: &factors }, bytes);
}

/// Rounds one row of a tile: levels in place; appends its scales and factors.
pub fn round_row(
    grouped: &Grouped,
    weights: &[f32],
    importance: Option<&[f32]>,
    levels: &mut [i8],
    scales: &mut Vec<f16>,
    factors: &mut Vec<i8>,
) {
    let group = grouped.group_cols;
    let importance_of = |index: usize| importance.map(|importance| &importance[index * group..][..group]);
    if grouped.factors.is_empty() {
        for (index, (weights, levels)) in
            weights.chunks_exact(group).zip(levels.chunks_exact_mut(group)).enumerate()
        {
            let scale = fit(grouped, weights, importance_of(index));
            round(grouped, weights, scale.to_f32(), levels);
            scales.push(scale);
        }
        return;
    }
    let fitted = weights.chunks_exact(group).enumerate();
    let fitted = fitted.map(|(index, weights)| fit(grouped, weights, importance_of(index)));
    let scale = shared_scale(grouped, fitted);
    scales.push(scale);
    for (index, (weights, levels)) in
        weights.chunks_exact(group).zip(levels.chunks_exact_mut(group)).enumerate()
    {
        let factor = fit_factor(grouped, weights, importance_of(index), scale.to_f32());
        round(grouped, weights, scale.to_f32() * f32::from(factor), levels);
        factors.push(factor);
    }
}

/// The scale of a row whose groups would have these scales on their own: the largest factor reaches
/// the largest of them.
pub fn shared_scale(grouped: &Grouped, fitted: impl Iterator<Item = f16>) -> f16 {
    let largest = fitted.fold(0.0f32, |largest, scale| largest.max(scale.to_f32().abs()));
    let factor = grouped.factors.iter().copied().max().expect("an encoding with factors");
    f16::from_f32(largest / f32::from(factor))
}

/// The factor with the least error for a group, given the scale.
pub fn fit_factor(grouped: &Grouped, weights: &[f32], importance: Option<&[f32]>, scale: f32) -> i8 {
    let nearest = Nearest::new(grouped);
    let mut best = (f32::INFINITY, grouped.factors[0]);
    for &factor in grouped.factors {
        let value = scale * f32::from(factor);
        if value == 0.0 {
            break;
        }
        let error = nearest.error(weights, importance, value);
        if error < best.0 {
            best = (error, factor);
        }
    }
    best.1
}

/// The levels nearest to `weights / scale`; where `scale` is 0, all are the level nearest to zero.
pub fn round(grouped: &Grouped, weights: &[f32], scale: f32, levels: &mut [i8]) {
    Nearest::new(grouped).round(weights, scale, levels);
}

/// The scale with the least squared error between `weights` and `scale · level`.
///
/// Candidates are the scale that puts the largest weight on an outermost level, and a few around
/// it. Where levels are not uniform or few, or errors are weighted, the best candidate is refined
/// by least squares on its levels.
pub fn fit(grouped: &Grouped, weights: &[f32], importance: Option<&[f32]>) -> f16 {
    let extreme = weights.iter().copied().fold(0.0f32, |best, w| if w.abs() > best.abs() { w } else { best });
    if extreme == 0.0 {
        return f16::ZERO;
    }
    let nearest = Nearest::new(grouped);
    let (low, high) = grouped.range();
    let mut best = (f32::INFINITY, f16::ZERO);
    let mut consider = |scale: f32| {
        let scale = f16::from_f32(scale.clamp(-65504.0, 65504.0));
        if scale.to_f32() == 0.0 {
            return;
        }
        let error = nearest.error(weights, importance, scale.to_f32());
        if error < best.0 {
            best = (error, scale);
        }
    };
    // In an asymmetric range, the extreme weight goes to the long side.
    consider(extreme / low);
    if grouped.levels.len() <= 64 {
        for step in -8..=8 {
            consider(extreme / (low * (1.0 + step as f32 * 0.0125)));
            consider(extreme / (high * (1.0 + step as f32 * 0.0125)));
        }
    }
    if importance.is_some() || !grouped.is_uniform() || grouped.levels.len() < 16 {
        // Smaller scales, which clip a far outlier and suit the other weights better.
        for step in 1..=8 {
            consider(extreme / (low * (1.1 + step as f32 * 0.05)));
            consider(extreme / (high * (1.1 + step as f32 * 0.05)));
        }
        for _ in 0..2 {
            let scale = least_squares(&nearest, weights, importance, best.1.to_f32());
            let error = nearest.error(weights, importance, scale.to_f32());
            if scale != f16::ZERO && error < best.0 {
                best = (error, scale);
            }
        }
    }
    best.1
}

/// The least-squares scale for the levels chosen by `scale`.
fn least_squares(nearest: &Nearest, weights: &[f32], importance: Option<&[f32]>, scale: f32) -> f16 {
    let mut levels = vec![0; weights.len()];
    nearest.round(weights, scale, &mut levels);
    let (mut product, mut square) = (0.0, 0.0);
    for (index, (&weight, &level)) in weights.iter().zip(&levels).enumerate() {
        let weighted = importance.map_or(1.0, |importance| importance[index]) * f32::from(level);
        product += weighted * weight;
        square += weighted * f32::from(level);
    }
    if square > 0.0 { f16::from_f32((product / square).clamp(-65504.0, 65504.0)) } else { f16::ZERO }
}

/// Search for the nearest level.
#[derive(Clone, Copy, Debug)]
pub struct Nearest(Kind);

/// Short level tables have their own kind, since each step costs as much as everything else.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Integers(Integers),
    Four(Steps<3>),
    Eight(Steps<7>),
    Sixteen(Steps<15>),
}

impl Nearest {
    /// The search for an encoding's levels.
    pub fn new(grouped: &Grouped) -> Self {
        let (low, high) = grouped.range();
        Self(match grouped.levels.len() {
            _ if grouped.is_uniform() => Kind::Integers(Integers { low, high }),
            0..=4 => Kind::Four(Steps::new(grouped.levels)),
            5..=8 => Kind::Eight(Steps::new(grouped.levels)),
            _ => Kind::Sixteen(Steps::new(grouped.levels)),
        })
    }

    /// The level nearest to `x`, a weight divided by its scale.
    pub fn level(&self, x: f32) -> f32 {
        match &self.0 {
            Kind::Integers(integers) => integers.nearest(x),
            Kind::Four(steps) => steps.nearest(x),
            Kind::Eight(steps) => steps.nearest(x),
            Kind::Sixteen(steps) => steps.nearest(x),
        }
    }

    fn round(&self, weights: &[f32], scale: f32, levels: &mut [i8]) {
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        for (level, &weight) in levels.iter_mut().zip(weights) {
            *level = self.level(weight * inverse) as i8;
        }
    }

    /// `Σ importance · (weight − scale · level)²` with the nearest levels.
    fn error(&self, weights: &[f32], importance: Option<&[f32]>, scale: f32) -> f32 {
        match self.0 {
            Kind::Integers(levels) => Errors { weights, importance, scale, levels }.sum(),
            Kind::Four(levels) => Errors { weights, importance, scale, levels }.sum(),
            Kind::Eight(levels) => Errors { weights, importance, scale, levels }.sum(),
            Kind::Sixteen(levels) => Errors { weights, importance, scale, levels }.sum(),
        }
    }
}

/// Levels of one kind.
trait Levels: Copy {
    /// The level nearest to `x`.
    fn nearest(&self, x: f32) -> f32;
}

/// All integers in a range.
#[derive(Clone, Copy, Debug)]
struct Integers {
    low: f32,
    high: f32,
}

impl Levels for Integers {
    #[inline(always)]
    fn nearest(&self, x: f32) -> f32 {
        round_small(x.clamp(self.low, self.high))
    }
}

/// Up to `COUNT + 1` levels, as steps at the middles between them.
#[derive(Clone, Copy, Debug)]
struct Steps<const COUNT: usize> {
    lowest: f32,
    /// Unused middles are never reached.
    middles: [f32; COUNT],
    heights: [f32; COUNT],
}

impl<const COUNT: usize> Steps<COUNT> {
    fn new(levels: &[i8]) -> Self {
        assert!(levels.len() <= COUNT + 1);
        let (mut middles, mut heights) = ([f32::INFINITY; COUNT], [0.0; COUNT]);
        for (index, pair) in levels.windows(2).enumerate() {
            let (low, high) = (f32::from(pair[0]), f32::from(pair[1]));
            middles[index] = (low + high) / 2.0;
            heights[index] = high - low;
        }
        Self { lowest: f32::from(levels[0]), middles, heights }
    }
}

impl<const COUNT: usize> Levels for Steps<COUNT> {
    #[inline(always)]
    fn nearest(&self, x: f32) -> f32 {
        let mut level = self.lowest;
        for index in 0..COUNT {
            level += if x > self.middles[index] { self.heights[index] } else { 0.0 };
        }
        level
    }
}

/// A sum of errors. Rounding spends nearly all its time here, so the sum is compiled for each
/// instruction set and the best is chosen at run time; all give the same result.
struct Errors<'a, L> {
    weights: &'a [f32],
    importance: Option<&'a [f32]>,
    scale: f32,
    levels: L,
}

impl<L: Levels> Errors<'_, L> {
    fn sum(self) -> f32 {
        pulp::Arch::new().dispatch(self)
    }

    #[inline(always)]
    fn of(&self, weights: &[f32; SUMS], importance: &[f32; SUMS], sums: &mut [f32; SUMS]) {
        let inverse = 1.0 / self.scale;
        for index in 0..SUMS {
            let difference = weights[index] - self.scale * self.levels.nearest(weights[index] * inverse);
            sums[index] += importance[index] * (difference * difference);
        }
    }
}

/// Number of parallel sums, for vectorisation; divides the columns of every group.
const SUMS: usize = 16;

impl<L: Levels> pulp::WithSimd for Errors<'_, L> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> f32 {
        let mut sums = [0.0f32; SUMS];
        let weights = self.weights.as_chunks().0;
        match self.importance {
            None => weights.iter().for_each(|weights| self.of(weights, &[1.0; SUMS], &mut sums)),
            Some(importance) => {
                let pairs = weights.iter().zip(importance.as_chunks().0);
                pairs.for_each(|(weights, importance)| self.of(weights, importance, &mut sums));
            }
        }
        sums.iter().sum()
    }
}

/// `x.round_ties_even()` for |x| up to 2²², in two additions: beyond 2²³ a float has no fraction.
/// Without SSE4.1 the standard function is a call per value.
pub fn round_small(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³
    (x + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encoding;

    #[test]
    fn small_values_round_half_to_even() {
        for x in [0.0f32, 0.5, 1.5, 2.5, -0.5, -1.5, -7.5, 126.5, 0.49999997, -127.0, 3.2] {
            assert_eq!(round_small(x), x.round_ties_even(), "{x}");
        }
    }

    #[test]
    fn the_nearest_of_all_levels_is_found() {
        for &encoding in Encoding::ALL {
            let Some(grouped) = encoding.grouped() else { continue };
            for step in -1200..1200 {
                let x = step as f32 / 9.0;
                let mut found = [0i8];
                round(&grouped, &[x], 1.0, &mut found);
                let distance = |level: i8| (x - f32::from(level)).abs();
                let best = grouped.levels.iter().map(|&level| distance(level)).fold(f32::INFINITY, f32::min);
                assert!(distance(found[0]) <= best + 1e-5, "{encoding}: {x} became {}", found[0]);
            }
        }
    }

    #[test]
    fn errors_that_count_more_are_smaller() {
        let weights: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 / 32.0 - 1.0).powi(3)).collect();
        let importance: Vec<f32> = (0..64).map(|i| if i % 4 == 0 { 50.0 } else { 0.1 }).collect();
        for &encoding in Encoding::ALL {
            let Some(grouped) = encoding.grouped() else { continue };
            let group = grouped.group_cols.min(64);
            let (weights, importance) = (&weights[..group], &importance[..group]);
            let of = |scale: f16| Nearest::new(&grouped).error(weights, Some(importance), scale.to_f32());
            let (plain, weighted) = (fit(&grouped, weights, None), fit(&grouped, weights, Some(importance)));
            assert!(of(weighted) <= of(plain), "{encoding}");
        }
    }
}
