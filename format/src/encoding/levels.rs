//! The levels nearest to weights, and sums over them. Rounding spends nearly all its time here, so the
//! sums are compiled for each instruction set and the best is chosen at run time; all give the same
//! result.

use super::Grouped;

/// Scale and minimum of a group: `weight = scale · level + minimum`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Affine {
    /// Multiplies the levels.
    pub scale: f32,
    /// 0 where the encoding has no minima.
    pub minimum: f32,
}

impl Affine {
    /// `1 / scale`; 0 where f32 cannot hold it.
    pub fn inverse(&self) -> f32 {
        let inverse = 1.0 / self.scale;
        if inverse.is_finite() { inverse } else { 0.0 }
    }
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
            _ if grouped.is_even() => Kind::Integers(Integers { low, high }),
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

    pub(super) fn round(&self, weights: &[f32], affine: Affine, levels: &mut [i8]) {
        let inverse = affine.inverse();
        for (level, &weight) in levels.iter_mut().zip(weights) {
            *level = self.level((weight - affine.minimum) * inverse) as i8;
        }
    }

    /// The sums with the levels that `affine` chooses.
    pub(super) fn line(&self, weights: &[f32], importance: Option<&[f32]>, affine: Affine) -> Line {
        match self.0 {
            Kind::Integers(levels) => {
                pulp::Arch::new().dispatch(Sums { weights, importance, affine, levels })
            }
            Kind::Four(levels) => pulp::Arch::new().dispatch(Sums { weights, importance, affine, levels }),
            Kind::Eight(levels) => pulp::Arch::new().dispatch(Sums { weights, importance, affine, levels }),
            Kind::Sixteen(levels) => pulp::Arch::new().dispatch(Sums { weights, importance, affine, levels }),
        }
    }

    /// `Σ importance · (weight − scale · level)²` with the nearest levels.
    pub(super) fn error(&self, weights: &[f32], importance: Option<&[f32]>, scale: f32) -> f32 {
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

/// A sum of errors.
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
const SUMS: usize = ROUNDED_COLS;

/// Weights are rounded in groups of a multiple of this many.
pub const ROUNDED_COLS: usize = 16;

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

/// The sums of a [`Line`].
struct Sums<'a, L> {
    weights: &'a [f32],
    importance: Option<&'a [f32]>,
    affine: Affine,
    levels: L,
}

impl<L: Levels> Sums<'_, L> {
    #[inline(always)]
    fn add(
        &self,
        inverse: f32,
        weights: &[f32; SUMS],
        importance: &[f32; SUMS],
        sums: &mut [[f32; SUMS]; 6],
    ) {
        let Affine { scale, minimum } = self.affine;
        for index in 0..SUMS {
            let (weight, share) = (weights[index], importance[index]);
            let level = self.levels.nearest((weight - minimum) * inverse);
            let difference = weight - (scale * level + minimum);
            sums[0][index] += share * (difference * difference);
            sums[1][index] += share;
            sums[2][index] += share * level;
            sums[3][index] += share * (level * level);
            sums[4][index] += share * weight;
            sums[5][index] += share * (level * weight);
        }
    }
}

impl<L: Levels> pulp::WithSimd for Sums<'_, L> {
    type Output = Line;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Line {
        let (mut sums, inverse) = ([[0.0f32; SUMS]; 6], self.affine.inverse());
        let weights = self.weights.as_chunks().0;
        match self.importance {
            None => weights.iter().for_each(|weights| self.add(inverse, weights, &[1.0; SUMS], &mut sums)),
            Some(importance) => {
                let pairs = weights.iter().zip(importance.as_chunks().0);
                pairs.for_each(|(weights, importance)| self.add(inverse, weights, importance, &mut sums));
            }
        }
        let [error, total, level, level_square, weight, product] = sums.map(|sums| sums.iter().sum());
        Line { error, total, level, level_square, weight, product }
    }
}

/// `x.round_ties_even()` for |x| up to 2²², in two additions: beyond 2²³ a float has no fraction.
/// Without SSE4.1 the standard function is a call per value.
pub fn round_small(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³
    (x + SHIFT) - SHIFT
}

/// Sums over a group's weights, weighted by importance, for a line through levels and weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Of squared errors.
    pub error: f32,
    /// Of importance.
    total: f32,
    level: f32,
    level_square: f32,
    weight: f32,
    product: f32,
}

impl Line {
    /// Scale and minimum by least squares; `None` where all levels are equal.
    pub fn fitted(&self) -> Option<Affine> {
        let determinant = self.total * self.level_square - self.level * self.level;
        let scale = (self.total * self.product - self.level * self.weight) / determinant;
        let minimum = (self.level_square * self.weight - self.level * self.product) / determinant;
        (determinant > 0.0 && scale > 0.0 && minimum.is_finite()).then_some(Affine { scale, minimum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_round_half_to_even() {
        for x in [0.0f32, 0.5, 1.5, 2.5, -0.5, -1.5, -7.5, 126.5, 0.49999997, -127.0, 3.2] {
            assert_eq!(round_small(x), x.round_ties_even(), "{x}");
        }
    }
}
