//! Error bounds of kernels against `reference`, all computed here from the inputs.
//!
//! One f32 rounding errs by at most u = ε/2 of its result (below the normal numbers by 2⁻¹⁵⁰). A
//! sum of n terms in any order, each with a few roundings, errs by at most n·ε·Σ|terms|.

use pith_format::encoding::Multiplier;
use pith_format::{ActivationFunction, Encoding, Matrix};
use pith_kernels::{Attention, Kernels, Operand, reference};

pub const EPSILON: f64 = f32::EPSILON as f64;
/// The smallest normal f32.
pub const SMALLEST: f64 = f32::MIN_POSITIVE as f64;
/// Error of an f32 exponential with an exact argument, in units of ε.
const EXP_ERROR: f64 = 4.0;

/// An expected value and its error bound.
#[derive(Clone, Copy, Debug)]
pub struct Bounded {
    pub value: f64,
    pub error: f64,
}

/// Distance from an f32 of this size to the next one.
fn ulp(value: f64) -> f64 {
    (value.abs() * EPSILON).max(SMALLEST * EPSILON)
}

/// `Σ terms`, each a product that a kernel may round twice.
///
/// A product of scales that underflows errs by 2⁻¹⁵⁰ and is then multiplied by up to 127 · 128 per
/// column: below 2⁻¹²⁶ for each.
pub fn sum(terms: impl Iterator<Item = f64>) -> Bounded {
    sum_of(terms.map(|term| (term, term.abs())))
}

/// [`sum`] of terms that are sums of parts themselves, each with the magnitude of its parts.
fn sum_of(terms: impl Iterator<Item = (f64, f64)>) -> Bounded {
    let (mut value, mut magnitude, mut count) = (0.0, 0.0, 0.0);
    for (term, parts) in terms {
        (value, magnitude, count) = (value + term, magnitude + parts, count + 1.0);
    }
    Bounded { value, error: count * EPSILON * magnitude + ulp(value) + count * SMALLEST }
}

/// The minima of all weights: what is left of them with codes of 0. Empty where the encoding has
/// none.
fn minima(w: Matrix<'_>) -> Vec<f32> {
    let encoding = w.encoding();
    let Some((grouped, minimum)) = encoding.grouped().and_then(|grouped| Some((grouped, grouped.minimum?)))
    else {
        return Vec::new();
    };
    let groups = encoding.tile_cols() / grouped.group_cols;
    let parameters =
        |multiplier: Multiplier| multiplier.half_bytes(groups) + multiplier.integer_bytes(groups);
    let code_bytes = encoding.tile_bytes() - parameters(grouped.scale) - parameters(minimum);
    let mut bytes = w.bytes().parts.concat();
    bytes.chunks_exact_mut(encoding.tile_bytes()).for_each(|tile| tile[..code_bytes].fill(0));
    let w = Matrix::new(encoding, w.rows(), w.cols(), &bytes).unwrap();
    let mut minima = vec![0.0; w.rows() * w.cols()];
    minima.chunks_exact_mut(w.cols()).enumerate().for_each(|(row, out)| w.decode_row(row, out));
    minima
}

/// Products of a matrix, and the bounds that kernels keep.
pub struct Products {
    encoding: Encoding,
    exact: Vec<Bounded>,
    rounded: Vec<Bounded>,
}

impl Products {
    /// The bounds that `kernel` keeps, token by token and row by row.
    pub fn by(&self, kernel: &dyn Kernels) -> &[Bounded] {
        if kernel.rounds_again(self.encoding) { &self.rounded } else { &self.exact }
    }
}

/// `w · x` for every token and row: `cols · ε · Σ|w·x|`, where a weight with a minimum counts as
/// both of its parts. With packed activations a kernel that [rounds
/// again](Kernels::rounds_again) does so in steps of at most twice a row's maximum / 127.
pub fn mat_mul(w: Matrix<'_>, x: Operand<'_>) -> Products {
    let mut rows = vec![0.0f32; w.rows() * w.cols()];
    for (index, row) in rows.chunks_exact_mut(w.cols()).enumerate() {
        w.decode_row(index, row);
    }
    let minima = minima(w);
    let (mut exact, mut rounded) = (Vec::new(), Vec::new());
    for token in 0..x.tokens() {
        let values = reference::operand_values(w.encoding().operation(), x.token(token));
        let magnitude: f64 = values.iter().map(|x| x.abs()).sum();
        for (index, row) in rows.chunks_exact(w.cols()).enumerate() {
            let minimum = |col: usize| f64::from(minima.get(index * w.cols() + col).copied().unwrap_or(0.0));
            let parts = |col: usize, w: f64| (w - minimum(col)).abs() + minimum(col).abs();
            let largest =
                row.iter().enumerate().map(|(col, &w)| parts(col, f64::from(w))).fold(0.0, f64::max);
            let terms = row.iter().zip(&values).enumerate();
            let bounded = sum_of(terms.map(|(col, (&w, x))| {
                let w = f64::from(w);
                (w * x, parts(col, w) * x.abs())
            }));
            let step = if x.packed.is_empty() { 0.0 } else { largest / 127.0 * magnitude };
            rounded.push(Bounded { error: bounded.error + step, ..bounded });
            exact.push(bounded);
        }
    }
    Products { encoding: w.encoding(), exact, rounded }
}

/// The mean of n squares has a relative error of n·ε, its root half of that; then a quotient and
/// two products.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<Bounded> {
    let relative = (x.len() as f64 + 8.0) * EPSILON;
    let expected = reference::rms_norm(x, weight, epsilon);
    expected.into_iter().map(|value| Bounded { value, error: relative * value.abs() + SMALLEST }).collect()
}

/// Let δ be the error of x − mean: n·ε·mean|x| from the mean, ε·(|x| + |mean|) from the difference.
/// The deviation errs by δ + n·ε of itself, the result by
/// `|w| / deviation · (δ + |x − mean| / deviation · that)`.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32) -> Vec<Bounded> {
    let len = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / len;
    let mean_magnitude = x.iter().map(|&x| f64::from(x).abs()).sum::<f64>() / len;
    let largest = x.iter().fold(0.0, |largest, &x| f64::from(x).abs().max(largest));
    let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / len;
    let deviation = (variance + f64::from(epsilon)).sqrt();
    let delta = EPSILON * (len * mean_magnitude + largest + mean.abs());
    let expected = reference::layer_norm(x, weight, bias, epsilon);
    let bound = |i: usize, value: f64| {
        let (weight, bias) = (f64::from(weight[i]).abs(), bias.map_or(0.0, |bias| f64::from(bias[i]).abs()));
        let distance = (f64::from(x[i]) - mean).abs() / deviation;
        let deviation_error = delta + (len + 8.0) * EPSILON * deviation;
        weight / deviation * (delta + distance * deviation_error)
            + 2.0 * EPSILON * (bias + value.abs())
            + SMALLEST
    };
    expected.into_iter().enumerate().map(|(i, value)| Bounded { value, error: bound(i, value) }).collect()
}

/// Two products and their sum.
pub fn rope(x: &[f32], head_dim: usize, cos: &[f32], sin: &[f32]) -> Vec<Bounded> {
    let expected = reference::rope(x, head_dim, cos, sin);
    let half = cos.len();
    let magnitude = |i: usize| match i % head_dim {
        dim if dim >= 2 * half => 0.0,
        dim => {
            let (dim, first) = (dim % half, i - i % head_dim);
            let (a, b) = (f64::from(x[first + dim]).abs(), f64::from(x[first + dim + half]).abs());
            let (cos, sin) = (f64::from(cos[dim]).abs(), f64::from(sin[dim]).abs());
            a * cos.max(sin) + b * cos.max(sin)
        }
    };
    let error = |i: usize| if magnitude(i) == 0.0 { 0.0 } else { 2.0 * EPSILON * magnitude(i) + SMALLEST };
    expected.into_iter().enumerate().map(|(i, value)| Bounded { value, error: error(i) }).collect()
}

/// `x − max` is rounded, so its power errs by `ε · |x − max|`; the sum of n positive terms errs by
/// n·ε.
pub fn softmax(x: &[f32]) -> Vec<Bounded> {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let expected = reference::softmax(x);
    let error = |x: f32, value: f64| {
        let distance = (f64::from(largest) - f64::from(x)).min(1e3);
        value * EPSILON * (x_len(&expected) + 2.0 * (distance + EXP_ERROR) + 2.0) + 2.0 * SMALLEST
    };
    x.iter().zip(&expected).map(|(&x, &value)| Bounded { value, error: error(x, value) }).collect()
}

/// A score is a sum of `head_dim` products with a few roundings; a cap adds a few ε of it. Let δ be
/// the largest error of a score. A weight errs by a factor of e^δ, and so does the sum of the
/// weights. A power errs by its argument's distance from the largest score and by [`EXP_ERROR`];
/// sums over n positions err by n·ε. All of this is relative to `Σ|w·v| / Σw`.
pub fn attention(task: &Attention<'_>) -> Vec<Bounded> {
    let (head_dim, len) = (task.keys.head_dim(), task.record_len());
    let records = reference::attention(task);
    let mut out = Vec::new();
    for (index, record) in records.chunks_exact(len).enumerate() {
        let (token, head) = (index / task.group, index % task.group);
        let (keys, values) = (task.keys.slice(task.visible(token)), task.values.slice(task.visible(token)));
        let query = &task.queries[token * task.stride + head * head_dim..][..head_dim];
        let scores = reference::attention_scores(task, token, head);
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let delta = (0..scores.len()).map(|position| {
            let products = (0..head_dim).map(|dim| {
                f64::from(task.scale) * f64::from(query[dim]) * f64::from(keys.get(position, dim))
            });
            sum(products).error
        });
        let cap = task.softcap.map_or(0.0, |cap| 4.0 * EPSILON * f64::from(cap));
        // Conversion to units of log₂ e and back: two more roundings of the score itself.
        let delta = delta.fold(0.0, f64::max) + cap + 4.0 * EPSILON * largest.abs();
        let relative = |score: f64| {
            let distance = (largest - score).min(200.0);
            (2.0 * delta).exp_m1() + EPSILON * (2.0 * x_len(&scores) + 4.0 * distance + 2.0 * EXP_ERROR + 8.0)
        };
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let total_error: f64 =
            weights.iter().zip(&scores).map(|(weight, &score)| weight * relative(score)).sum::<f64>() / total;
        for (dim, record) in record.iter().enumerate().take(head_dim) {
            let terms = weights.iter().zip(&scores).enumerate().map(|(position, (weight, &score))| {
                let value = f64::from(values.get(position, dim)).abs();
                value * (weight / total * (relative(score) + total_error) + SMALLEST)
            });
            let value = record / total;
            out.push(Bounded { value, error: terms.sum::<f64>() + ulp(value) });
        }
    }
    out
}

fn x_len(values: &[f64]) -> f64 {
    values.len() as f64
}

/// The exponent's argument has a few roundings (2 units of ε of its size). The power adds
/// [`EXP_ERROR`], the quotient or products around it 4. A power beyond f32 makes the result 0, off
/// by less than `|x| · 2⁻¹²⁶`.
pub fn activation(function: ActivationFunction, x: f32) -> Bounded {
    let wide = f64::from(x);
    let value = reference::activation(function, wide);
    let argument = match function {
        ActivationFunction::Silu => wide.abs(),
        ActivationFunction::GeluTanh => 2.0 * 0.7979 * wide.abs() * (1.0 + 0.044715 * wide * wide),
        // erfc(z) = exp(−z² + p(t)) with |p| < 3 and coefficients good to one ε.
        ActivationFunction::Gelu => wide * wide / 2.0 + 3.0,
    };
    // Where the power errs by so much, the function has long reached 0 or x.
    let relative = EPSILON * (2.0 * argument.min(200.0) + EXP_ERROR + 4.0);
    Bounded { value, error: relative * value.abs() + (wide.abs() + 1.0) * SMALLEST }
}

/// Panics with the place and both values where `found` lies outside the bound of `expected`.
#[track_caller]
pub fn assert_within(what: &str, found: &[f32], expected: &[Bounded]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (&found, &Bounded { value, error })) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(found) - value).abs();
        assert!(
            off <= error,
            "{what}, value {index}: {found:e} is {off:e} from {value:e}, allowed {error:e}"
        );
    }
}
