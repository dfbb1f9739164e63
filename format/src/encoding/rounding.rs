//! Rounding to the nearest level: the choice of scales and minima, then of codes.

pub use super::levels::{Affine, Nearest, ROUNDED_COLS, round_small};
use super::multiplier::LARGEST_ZERO;
use super::{Codes, Grouped, Multiplier, TILE_ROWS};
use half::f16;

/// What a row of a tile stores once for all its groups; 0 where groups have their own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shared {
    /// Multiplied with the factors of the scales.
    pub scale: f32,
    /// Multiplied with the factors of the minima.
    pub minimum: f32,
}

/// What is stored for one group, beside its row's [`Shared`]. Values are 0 where a factor counts,
/// factors are 0 where there are none. A zero point is the factor of a minimum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stored {
    /// The group's own scale.
    pub scale: f32,
    /// Factor of the shared scale.
    pub factor: i8,
    /// The group's own minimum.
    pub minimum: f32,
    /// Factor of the shared minimum.
    pub min_factor: i8,
}

impl Stored {
    /// What is stored for a group of padding: zeros, or the first factors.
    pub fn padding(grouped: &Grouped) -> Self {
        let first = |multiplier: Option<Multiplier>| {
            multiplier.and_then(|multiplier| multiplier.factors().first().copied()).unwrap_or(0)
        };
        Self { factor: first(Some(grouped.scale)), min_factor: first(grouped.minimum), ..Self::default() }
    }

    /// The scale and minimum that the group's weights are decoded with.
    pub fn affine(&self, grouped: &Grouped, shared: Shared) -> Affine {
        let scale = match grouped.scale {
            Multiplier::Factors(_) => grouped.scale.product(shared.scale, self.factor),
            _ => self.scale,
        };
        let minimum = match grouped.minimum {
            None => 0.0,
            Some(minimum @ Multiplier::Factors(_)) => minimum.product(shared.minimum, self.min_factor),
            Some(Multiplier::Zero { shift }) => Multiplier::minimum(shift, scale, self.min_factor),
            Some(_) => self.minimum,
        };
        Affine { scale, minimum }
    }
}

/// Scales, minima and their factors of some rows, in the order in which [`Codes`] wants them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// Scales of groups or of rows of tiles.
    pub scales: Vec<f32>,
    /// Factors of groups.
    pub factors: Vec<i8>,
    /// Minima of groups or of rows of tiles.
    pub minima: Vec<f32>,
    /// Factors of minima.
    pub min_factors: Vec<i8>,
}

impl Parameters {
    /// Adds one row of a tile.
    pub fn push(&mut self, grouped: &Grouped, shared: Shared, groups: &[Stored]) {
        match grouped.scale {
            Multiplier::Factors(_) => {
                self.scales.push(shared.scale);
                self.factors.extend(groups.iter().map(|group| group.factor));
            }
            _ => self.scales.extend(groups.iter().map(|group| group.scale)),
        }
        match grouped.minimum {
            Some(Multiplier::Factors(_)) => {
                self.minima.push(shared.minimum);
                self.min_factors.extend(groups.iter().map(|group| group.min_factor));
            }
            Some(Multiplier::Zero { .. }) => {
                self.min_factors.extend(groups.iter().map(|group| group.min_factor));
            }
            Some(_) => self.minima.extend(groups.iter().map(|group| group.minimum)),
            None => {}
        }
    }

    /// Adds the rows of another.
    pub fn append(&mut self, mut other: Self) {
        self.scales.append(&mut other.scales);
        self.factors.append(&mut other.factors);
        self.minima.append(&mut other.minima);
        self.min_factors.append(&mut other.min_factors);
    }

    /// With the levels of the same rows.
    pub fn codes<'a>(&'a self, levels: &'a [i8]) -> Codes<'a> {
        let Self { scales, factors, minima, min_factors } = self;
        Codes { levels, scales, factors, minima, min_factors }
    }
}

/// Rounds a tile (16 × `cols`, row-major) group by group into `bytes`.
///
/// `importance`: weight of the squared error per column; `None` for equal weights.
pub fn encode(grouped: &Grouped, cols: usize, weights: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) {
    assert_eq!(weights.len(), TILE_ROWS * cols);
    assert!(importance.is_none_or(|importance| importance.len() == cols));
    let mut levels = vec![0i8; TILE_ROWS * cols];
    let mut parameters = Parameters::default();
    for (weights, levels) in weights.chunks_exact(cols).zip(levels.chunks_exact_mut(cols)) {
        round_row(grouped, weights, importance, levels, &mut parameters);
    }
    (grouped.pack)(&parameters.codes(&levels), bytes);
}

/// Rounds one row of a tile: levels in place; appends its parameters.
pub fn round_row(
    grouped: &Grouped,
    weights: &[f32],
    importance: Option<&[f32]>,
    levels: &mut [i8],
    parameters: &mut Parameters,
) {
    let group = grouped.group_cols;
    let importance_of = |index: usize| importance.map(|importance| &importance[index * group..][..group]);
    let fitted = weights.chunks_exact(group).enumerate();
    let fitted: Vec<Affine> =
        fitted.map(|(index, weights)| fit(grouped, weights, importance_of(index))).collect();
    let shared = share(grouped, fitted.iter().copied());
    let groups = weights.chunks_exact(group).zip(levels.chunks_exact_mut(group)).zip(fitted).enumerate();
    let stored: Vec<Stored> = groups
        .map(|(index, ((weights, levels), fitted))| {
            let stored = choose(grouped, weights, importance_of(index), fitted, shared);
            round(grouped, weights, stored.affine(grouped, shared), levels);
            stored
        })
        .collect();
    parameters.push(grouped, shared, &stored);
}

/// What a row of a tile shares whose groups would have these scales and minima on their own: the
/// largest factor reaches the largest of them.
pub fn share(grouped: &Grouped, fitted: impl Iterator<Item = Affine>) -> Shared {
    let (mut scale, mut minimum) = (0.0f32, 0.0f32);
    for fitted in fitted {
        (scale, minimum) = (scale.max(fitted.scale.abs()), minimum.max(fitted.minimum.abs()));
    }
    let part = |largest: f32, multiplier: Option<Multiplier>| match multiplier {
        Some(multiplier @ Multiplier::Factors(factors)) => {
            multiplier.storable(largest / f32::from(largest_of(factors)))
        }
        _ => 0.0,
    };
    Shared { scale: part(scale, Some(grouped.scale)), minimum: part(minimum, grouped.minimum) }
}

/// The largest factor; of a table without positive ones, the largest magnitude.
fn largest_of(factors: &[i8]) -> i8 {
    let largest = factors.iter().copied().max().unwrap_or(0);
    let smallest = factors.iter().copied().min().unwrap_or(0);
    if largest > 0 { largest } else { smallest.saturating_neg() }
}

/// What to store for a group that would have `fitted` on its own: the factors with the least error.
pub fn choose(
    grouped: &Grouped,
    weights: &[f32],
    importance: Option<&[f32]>,
    fitted: Affine,
    shared: Shared,
) -> Stored {
    let mut stored = Stored::default();
    match grouped.minimum {
        Some(Multiplier::Zero { shift }) => return with_zero(grouped, weights, importance, fitted, shift),
        None => {}
        Some(Multiplier::Factors(factors)) => {
            stored.min_factor = nearest_factor(factors, fitted.minimum, shared.minimum);
        }
        Some(multiplier) => stored.minimum = multiplier.storable(fitted.minimum),
    }
    let minimum = stored.minimum + shared.minimum * f32::from(stored.min_factor);
    let raised: Vec<f32>;
    let weights = match grouped.minimum {
        None => weights,
        Some(_) => {
            raised = weights.iter().map(|weight| weight - minimum).collect();
            &raised
        }
    };
    match grouped.scale {
        Multiplier::Half | Multiplier::Fraction { .. } | Multiplier::Float9 | Multiplier::Zero { .. } => {
            stored.scale = grouped.scale.storable(fitted.scale);
        }
        Multiplier::Exponent => {
            let near = grouped.scale.storable(fitted.scale.abs());
            let candidates = [near, 2.0 * near, near / 2.0].map(|scale| grouped.scale.storable(scale));
            stored.scale = least_error(grouped, weights, importance, candidates.into_iter(), |scale| scale);
        }
        Multiplier::Factors(factors) => {
            let value = |factor: i8| shared.scale * f32::from(factor);
            let near = nearest_factor(factors, fitted.scale, shared.scale);
            // Of long tables only the factors around the fitted scale.
            let is_candidate = |factor: i8| factors.len() <= 16 || factor.abs_diff(near) <= REACH;
            let candidates = factors.iter().copied().filter(|&factor| is_candidate(factor));
            stored.factor = least_error(grouped, weights, importance, candidates, value);
        }
    }
    stored
}

/// [`choose`] of a scale with its zero point: the best of the scales next to the fitted one, each
/// with the zero points next to the fitted minimum.
fn with_zero(
    grouped: &Grouped,
    weights: &[f32],
    importance: Option<&[f32]>,
    fitted: Affine,
    shift: u32,
) -> Stored {
    let nearest = Nearest::new(grouped);
    // Weights far from zero need a scale whose zero points reach them.
    let far = -fitted.minimum * (1u32 << shift) as f32 / f32::from(LARGEST_ZERO);
    let near = grouped.scale.storable(fitted.scale.max(far));
    let mut raised = vec![0.0; weights.len()];
    let mut best = (f32::INFINITY, Stored::default());
    let scales = [near, near * (31.0 / 32.0), near * (17.0 / 16.0)];
    for scale in scales.map(|scale| grouped.scale.storable(scale)) {
        let zero = (-fitted.minimum / scale * (1u32 << shift) as f32).round();
        for zero in [zero, zero - 1.0, zero + 1.0] {
            let zero = zero.clamp(0.0, f32::from(LARGEST_ZERO)) as i8;
            let minimum = Multiplier::minimum(shift, scale, zero);
            raised.iter_mut().zip(weights).for_each(|(raised, weight)| *raised = weight - minimum);
            let error = nearest.error(&raised, importance, scale);
            if error < best.0 {
                best = (error, Stored { scale, min_factor: zero, ..Stored::default() });
            }
        }
    }
    best.1
}

/// Distance from the factor nearest to a fitted scale, within which others are tried.
const REACH: u8 = 3;

/// The factor whose product with `shared` is nearest to `value`.
fn nearest_factor(factors: &[i8], value: f32, shared: f32) -> i8 {
    let distance = |factor: i8| (shared * f32::from(factor) - value).abs();
    let nearest = factors.iter().copied().min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    nearest.expect("a table of factors is not empty")
}

/// The candidate with the least error; the first one where every scale is 0.
fn least_error<T: Copy>(
    grouped: &Grouped,
    weights: &[f32],
    importance: Option<&[f32]>,
    mut candidates: impl Iterator<Item = T>,
    value: impl Fn(T) -> f32,
) -> T {
    let nearest = Nearest::new(grouped);
    let error = |candidate: T| match value(candidate) {
        0.0 => f32::INFINITY,
        scale => nearest.error(weights, importance, scale),
    };
    let first = candidates.next().expect("there is a candidate");
    let mut best = (error(first), first);
    for candidate in candidates {
        let error = error(candidate);
        if error < best.0 {
            best = (error, candidate);
        }
    }
    best.1
}

/// The levels nearest to `(weights − minimum) / scale`; where `scale` is 0, all are the level
/// nearest to zero.
pub fn round(grouped: &Grouped, weights: &[f32], affine: Affine, levels: &mut [i8]) {
    Nearest::new(grouped).round(weights, affine, levels);
}

/// The scale and minimum with the least squared error between `weights` and
/// `scale · level + minimum`, on their own: not yet the product of shared values and factors.
pub fn fit(grouped: &Grouped, weights: &[f32], importance: Option<&[f32]>) -> Affine {
    match grouped.minimum {
        None => Affine { scale: fit_scale(grouped, weights, importance), minimum: 0.0 },
        Some(minimum) => {
            let below_zero = matches!(minimum, Multiplier::Factors(_) | Multiplier::Zero { .. });
            fit_affine(grouped, weights, importance, below_zero)
        }
    }
}

/// Candidates are the scale that puts the largest weight on an outermost level, and a few around
/// it. Where levels are not uniform or few, or errors are weighted, the best candidate is refined
/// by least squares on its levels.
fn fit_scale(grouped: &Grouped, weights: &[f32], importance: Option<&[f32]>) -> f32 {
    let extreme = weights.iter().copied().fold(0.0f32, |best, w| if w.abs() > best.abs() { w } else { best });
    if extreme == 0.0 {
        return 0.0;
    }
    let nearest = Nearest::new(grouped);
    let (low, high) = grouped.range();
    let mut best = (f32::INFINITY, 0.0);
    let mut consider = |scale: f32| {
        let scale = match grouped.scale {
            Multiplier::Fraction { .. } => grouped.scale.storable(scale),
            _ => f16::from_f32(scale.clamp(-65504.0, 65504.0)).to_f32(),
        };
        if scale == 0.0 {
            return;
        }
        let error = nearest.error(weights, importance, scale);
        if error < best.0 {
            best = (error, scale);
        }
    };
    // In an asymmetric range, the extreme weight goes to the long side.
    consider(extreme / low);
    let is_fine = grouped.levels.len() > 64;
    if is_fine {
        // Steps are so small that nothing should be clipped: those that the other side needs.
        let other = weights.iter().fold(0.0f32, |other, weight| other.max(-weight * extreme.signum()));
        consider(extreme.signum() * (other / -high).min(extreme.abs() / low));
    } else {
        for step in -8..=8 {
            consider(extreme / (low * (1.0 + step as f32 * 0.0125)));
            consider(extreme / (high * (1.0 + step as f32 * 0.0125)));
        }
    }
    if importance.is_some() || !(grouped.is_uniform() || is_fine) || grouped.levels.len() < 16 {
        // Smaller scales, which clip a far outlier and suit the other weights better.
        for step in 1..=8 {
            consider(extreme / (low * (1.1 + step as f32 * 0.05)));
            consider(extreme / (high * (1.1 + step as f32 * 0.05)));
        }
        for _ in 0..2 {
            let scale = least_squares(&nearest, weights, importance, best.1);
            let error = nearest.error(weights, importance, scale);
            if scale != 0.0 && error < best.0 {
                best = (error, scale);
            }
        }
    }
    best.1
}

/// Steps to either side of the range of the weights.
const RANGE_STEPS: i32 = 4;

/// Share of the range that a step changes.
const RANGE_STEP: f32 = 0.06;

/// Candidates are ranges around that of the weights, each refined by least squares on its levels,
/// which begin at 0. `below_zero`: the minimum must not be above 0.
fn fit_affine(grouped: &Grouped, weights: &[f32], importance: Option<&[f32]>, below_zero: bool) -> Affine {
    let nearest = Nearest::new(grouped);
    let (low, high) = weights
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &weight| (low.min(weight), high.max(weight)));
    let low = if below_zero { low.min(0.0) } else { low };
    let steps = f32::from(grouped.code_range().1);
    let mut best = (f32::INFINITY, Affine { scale: 0.0, minimum: low });
    if high <= low {
        return best.1;
    }
    for step in -RANGE_STEPS..=RANGE_STEPS {
        let scale = (high - low) / (steps * (1.0 + step as f32 * RANGE_STEP));
        let mut candidate = Affine { scale, minimum: (high + low - scale * steps) / 2.0 };
        for _ in 0..3 {
            if below_zero {
                candidate.minimum = candidate.minimum.min(0.0);
            }
            let line = nearest.line(weights, importance, candidate);
            if line.error < best.0 {
                best = (line.error, candidate);
            }
            match line.fitted() {
                Some(next) if next != candidate => candidate = next,
                _ => break,
            }
        }
    }
    best.1
}

/// The least-squares scale for the levels chosen by `scale`.
fn least_squares(nearest: &Nearest, weights: &[f32], importance: Option<&[f32]>, scale: f32) -> f32 {
    let mut levels = vec![0; weights.len()];
    nearest.round(weights, Affine { scale, minimum: 0.0 }, &mut levels);
    let (mut product, mut square) = (0.0, 0.0);
    for (index, (&weight, &level)) in weights.iter().zip(&levels).enumerate() {
        let weighted = importance.map_or(1.0, |importance| importance[index]) * f32::from(level);
        product += weighted * weight;
        square += weighted * f32::from(level);
    }
    let scale = if square > 0.0 { (product / square).clamp(-65504.0, 65504.0) } else { 0.0 };
    f16::from_f32(scale).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encoding;

    #[test]
    fn the_nearest_of_all_levels_is_found() {
        for &encoding in Encoding::ALL {
            let Some(grouped) = encoding.grouped() else { continue };
            for step in -1200..1200 {
                let x = step as f32 / 9.0;
                let mut found = [0i8];
                round(&grouped, &[x], Affine { scale: 1.0, minimum: 0.0 }, &mut found);
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
            let of = |fitted: Affine| {
                let raised: Vec<f32> = weights.iter().map(|weight| weight - fitted.minimum).collect();
                Nearest::new(&grouped).error(&raised, Some(importance), fitted.scale)
            };
            let (plain, weighted) = (fit(&grouped, weights, None), fit(&grouped, weights, Some(importance)));
            assert!(of(weighted) <= of(plain), "{encoding}");
        }
    }
}
