//! The operations as formulas, in f64. Never optimised: the other kernels are tested against this.

use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::attention::ATTENTION_TAIL;
use crate::{Attention, AttentionScratch, Kernels, KvRows};
use pith_format::{ActivationFunction, Matrix, Operation};

/// Kernels written for correctness alone.
pub struct Reference;

impl Kernels for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn mat_vec(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [f32]) {
        assert_eq!(x.tokens(), 1);
        narrow(&mat_vec(w, x), y);
    }

    fn mat_mul(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        assert_eq!(y.len(), x.tokens());
        for (token, y) in y.iter_mut().enumerate() {
            narrow(&mat_vec(w, x.token(token)), y);
        }
    }

    fn packs(&self) -> bool {
        // What it sets is read by all others in their tests.
        true
    }

    fn quantize(&self, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        quantize(x, codes, scales, sums);
    }

    fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        narrow(&rms_norm(x, weight, epsilon), out);
    }

    fn layer_norm(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32, out: &mut [f32]) {
        narrow(&layer_norm(x, weight, bias, epsilon), out);
    }

    fn rope(&self, x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
        let turned = rope(x, head_dim, cos, sin);
        narrow(&turned, x);
    }

    fn softmax(&self, x: &mut [f32]) {
        let result = softmax(x);
        narrow(&result, x);
    }

    fn activate(&self, function: ActivationFunction, x: &mut [f32]) {
        for x in x {
            *x = activation(function, f64::from(*x)) as f32;
        }
    }

    fn activate_gated(&self, function: ActivationFunction, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = (activation(function, f64::from(*gate)) * f64::from(*up)) as f32;
        }
    }

    fn scores(&self, queries: &[f32], keys: KvRows<'_>, scale: f32, out: &mut [f32]) {
        narrow(&scores(queries, keys, scale), out);
    }

    fn mix(&self, weights: &[f32], values: KvRows<'_>, out: &mut [f32]) {
        narrow(&mix(weights, values), out);
    }

    fn attention(&self, task: &Attention<'_>, scratch: &mut AttentionScratch, records: &mut [f32]) {
        task.check(scratch, records);
        let mut parts = vec![0.0; records.len()];
        narrow(&attention(task), &mut parts);
        add_records(task.record_len(), &parts, records);
    }

    fn merge_attention(&self, head_dim: usize, parts: &[f32], total: &mut [f32]) {
        assert_eq!(parts.len(), total.len());
        add_records(head_dim + ATTENTION_TAIL, parts, total);
    }
}

fn add_records(record_len: usize, parts: &[f32], total: &mut [f32]) {
    let wide = |record: &[f32]| -> Vec<f64> { record.iter().map(|&value| f64::from(value)).collect() };
    for (part, total) in parts.chunks_exact(record_len).zip(total.chunks_exact_mut(record_len)) {
        narrow(&sum_of_records(&wide(total), &wide(part)), total);
    }
}

/// Sum of two records: both scaled to the larger of their exponents.
fn sum_of_records(a: &[f64], b: &[f64]) -> Vec<f64> {
    let head_dim = a.len() - ATTENTION_TAIL;
    if a[head_dim + 1] == 0.0 || b[head_dim + 1] == 0.0 {
        return if a[head_dim + 1] == 0.0 { b } else { a }.to_vec();
    }
    let exponent = a[head_dim].max(b[head_dim]);
    let (a_factor, b_factor) = ((a[head_dim] - exponent).exp2(), (b[head_dim] - exponent).exp2());
    let mut sum: Vec<f64> = a.iter().zip(b).map(|(a, b)| a_factor * a + b_factor * b).collect();
    sum[head_dim] = exponent;
    sum
}

fn narrow(from: &[f64], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from as f32;
    }
}

/// Activations of one token in the form that its operation multiplies.
pub fn operand_values(operation: Operation, x: Operand<'_>) -> Vec<f64> {
    match operation {
        Operation::Float => x.floats[..x.cols()].iter().map(|&value| f64::from(value)).collect(),
        Operation::Integer => x.codes[..x.cols()]
            .iter()
            .enumerate()
            .map(|(col, &code)| f64::from(code) * f64::from(x.scales[col / ACTIVATION_GROUP]))
            .collect(),
    }
}

/// `y[r] = Σ_c w[r,c] · x[c]`.
pub fn mat_vec(w: Matrix<'_>, x: Operand<'_>) -> Vec<f64> {
    assert_eq!(w.cols(), x.cols());
    let values = operand_values(w.encoding().operation(), x);
    let mut row_values = vec![0.0; w.cols()];
    (0..w.rows())
        .map(|row| {
            w.decode_row(row, &mut row_values);
            row_values.iter().zip(&values).map(|(&w, x)| f64::from(w) * x).sum()
        })
        .collect()
}

/// [`Kernels::quantize`], one value at a time.
pub fn quantize(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    assert_eq!(x.len(), codes.len());
    assert_eq!((x.len(), x.len()), (scales.len() * ACTIVATION_GROUP, sums.len() * ACTIVATION_GROUP));
    for (group, (x, codes)) in
        x.chunks_exact(ACTIVATION_GROUP).zip(codes.chunks_exact_mut(ACTIVATION_GROUP)).enumerate()
    {
        let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let scale = largest / 127.0;
        let (scale, inverse) = if scale >= f32::MIN_POSITIVE { (scale, 1.0 / scale) } else { (0.0, 0.0) };
        for (code, x) in codes.iter_mut().zip(x) {
            *code = (x * inverse).round_ties_even() as i8;
        }
        scales[group] = scale;
        sums[group] = codes.iter().map(|&code| i32::from(code)).sum();
    }
}

/// `x / √(mean(x²) + ε) · weight`.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f64> {
    assert_eq!(x.len(), weight.len());
    let mean_square = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
    let root = (mean_square + f64::from(epsilon)).sqrt();
    x.iter().zip(weight).map(|(&x, &w)| f64::from(x) / root * f64::from(w)).collect()
}

/// `(x − mean) / √(var + ε) · weight + bias`.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32) -> Vec<f64> {
    assert_eq!(x.len(), weight.len());
    assert!(bias.is_none_or(|bias| bias.len() == x.len()));
    let len = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / len;
    let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / len;
    let root = (variance + f64::from(epsilon)).sqrt();
    let bias_at = |i: usize| bias.map_or(0.0, |bias| f64::from(bias[i]));
    (0..x.len()).map(|i| (f64::from(x[i]) - mean) / root * f64::from(weight[i]) + bias_at(i)).collect()
}

/// See [`Kernels::rope`].
pub fn rope(x: &[f32], head_dim: usize, cos: &[f32], sin: &[f32]) -> Vec<f64> {
    let half = cos.len();
    assert!(sin.len() == half && 2 * half <= head_dim && x.len().is_multiple_of(head_dim));
    let mut out: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    for head in out.chunks_exact_mut(head_dim) {
        for i in 0..half {
            let (a, b, cos, sin) = (head[i], head[i + half], f64::from(cos[i]), f64::from(sin[i]));
            (head[i], head[i + half]) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
    out
}

/// See [`Kernels::softmax`].
pub fn softmax(x: &[f32]) -> Vec<f64> {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = x.iter().map(|&x| (f64::from(x) - f64::from(largest)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// One non-linearity.
pub fn activation(function: ActivationFunction, x: f64) -> f64 {
    match function {
        ActivationFunction::Silu => x / (1.0 + (-x).exp()),
        // Φ(x) = ½·erfc(−x/√2) keeps its precision where it is close to 0.
        ActivationFunction::Gelu => 0.5 * x * erfc(-x / std::f64::consts::SQRT_2),
        // ½(1 + tanh u) = 1 / (1 + e^(−2u)) keeps it too.
        ActivationFunction::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            x / (1.0 + (-2.0 * inner).exp())
        }
    }
}

/// Complementary error function, relative error about 1e-14: the Taylor series of erf below 1.5, a
/// continued fraction beyond.
pub fn erfc(x: f64) -> f64 {
    let magnitude = x.abs();
    let complement = if magnitude < 1.5 {
        let (mut term, mut sum) = (magnitude, magnitude);
        for n in 1..60 {
            term *= -magnitude * magnitude / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        1.0 - sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        // exp(−x²)/√π · 1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …))))
        let fraction = (1..200).rev().fold(magnitude, |tail, k| magnitude + f64::from(k) / 2.0 / tail);
        (-magnitude * magnitude).exp() / (std::f64::consts::PI.sqrt() * fraction)
    };
    if x < 0.0 { 2.0 - complement } else { complement }
}

/// See [`Kernels::scores`].
pub fn scores(queries: &[f32], keys: KvRows<'_>, scale: f32) -> Vec<f64> {
    let head_dim = keys.head_dim();
    let dot = |query: &[f32], position: usize| -> f64 {
        (0..head_dim).map(|dim| f64::from(query[dim]) * f64::from(keys.get(position, dim))).sum()
    };
    queries
        .chunks_exact(head_dim)
        .flat_map(|query| (0..keys.positions()).map(move |position| (query, position)))
        .map(|(query, position)| f64::from(scale) * dot(query, position))
        .collect()
}

/// See [`Kernels::mix`].
pub fn mix(weights: &[f32], values: KvRows<'_>) -> Vec<f64> {
    let positions = values.positions();
    assert!(positions > 0 && weights.len().is_multiple_of(positions));
    weights
        .chunks_exact(positions)
        .flat_map(|weights| (0..values.head_dim()).map(move |dim| (weights, dim)))
        .map(|(weights, dim)| {
            (0..positions)
                .map(|position| f64::from(weights[position]) * f64::from(values.get(position, dim)))
                .sum()
        })
        .collect()
}

/// Scores of one query head of `task`, for the positions that its token sees.
pub fn attention_scores(task: &Attention<'_>, token: usize, head: usize) -> Vec<f64> {
    let query = &task.token(token)[head * task.keys.head_dim()..][..task.keys.head_dim()];
    let scores = scores(query, task.keys.slice(task.visible(token)), task.scale);
    let capped = |score: f64| match task.softcap {
        Some(cap) => f64::from(cap) * (score / f64::from(cap)).tanh(),
        None => score,
    };
    scores.into_iter().map(capped).collect()
}

/// Records of [`Kernels::attention`], over a run of any length.
pub fn attention(task: &Attention<'_>) -> Vec<f64> {
    let mut records = Vec::new();
    for (token, head) in (0..task.tokens).flat_map(|token| (0..task.group).map(move |head| (token, head))) {
        let values = task.values.slice(task.visible(token));
        let scores = attention_scores(task, token, head);
        if scores.is_empty() {
            records.extend(vec![0.0; task.record_len()]);
            continue;
        }
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let weighted = |dim: usize| {
            let values = (0..values.positions()).map(|position| f64::from(values.get(position, dim)));
            values.zip(&weights).map(|(value, weight)| value * weight).sum::<f64>()
        };
        records.extend((0..values.head_dim()).map(weighted));
        records.extend([largest * std::f64::consts::LOG2_E, weights.iter().sum()]);
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erfc_has_its_known_values() {
        // Abramowitz and Stegun, table 7.1; erfc(5) from table 7.3.
        for (x, erf) in [(0.0, 0.0), (0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650)] {
            assert!((1.0 - erfc(x) - erf).abs() < 1e-10 && (erfc(-x) - 1.0 - erf).abs() < 1e-10, "{x}");
        }
        assert!((erfc(5.0) / 1.537_459_794_428_035e-12 - 1.0).abs() < 1e-12);
        let (below, above) = (erfc(1.5f64.next_down()), erfc(1.5));
        assert!((below / above - 1.0).abs() < 1e-13, "the two formulas meet: {below} and {above}");
    }

    #[test]
    fn quantize_takes_the_largest_to_127() {
        let mut x = [0.0f32; 64];
        (x[3], x[4], x[40]) = (-2.0, 1.0, 1e-40);
        let (mut codes, mut scales, mut sums) = ([1i8; 64], [0.0; 2], [0; 2]);
        quantize(&x, &mut codes, &mut scales, &mut sums);
        assert_eq!((codes[3], codes[4], codes[40]), (-127, 64, 0));
        assert_eq!((scales, sums), ([2.0 / 127.0, 0.0], [-63, 0]));
    }
}
