//! The path that runs everywhere: each encoding decodes its tiles to floats; vectors use `wide`.
//!
//! It runs every encoding of the table, since it needs only [`Encoding::decode`].

use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::attention::{ATTENTION_QUERIES, add};
use crate::{Attention, AttentionScratch, KV4_BYTES, KV4_GROUP, KV4_LEVELS, Kernels, KvRows};
use half::f16;
use half::slice::HalfFloatSliceExt;
use pith_format::encoding::MAX_TILE_COLS;
use pith_format::{ActivationFunction, Encoding, Matrix, Operation, TILE_ROWS};
use wide::f32x8;

/// Kernels that keep every provided body of [`Kernels`].
pub struct Portable;

impl Kernels for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }
}

/// Positions or tokens worked on together; bounded so that buffers stay on the stack.
const CHUNK: usize = 64;

/// Dimensions of a cached row worked on together, with the same bound.
const ROW_CHUNK: usize = 128;

/// See [`Kernels::mat_vec`].
pub fn mat_vec(w: Matrix<'_>, x: Operand<'_>, y: &mut [f32]) {
    mat_mul(w, x, &mut [y]);
}

/// See [`Kernels::mat_mul`]. Each tile is decoded once for all tokens of a chunk.
pub fn mat_mul(w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
    let rows = w.rows();
    x.assert_product(w, y);
    for start in (0..x.tokens()).step_by(CHUNK) {
        let tokens = start..x.tokens().min(start + CHUNK);
        for block_index in 0..w.block_count() {
            let mut sums = [[0.0f32; TILE_ROWS]; CHUNK];
            add_block(w, block_index, x, tokens.clone(), &mut sums);
            let first = block_index * TILE_ROWS;
            let count = TILE_ROWS.min(rows - first);
            for (token, sums) in tokens.clone().zip(&sums) {
                y[token][first..][..count].copy_from_slice(&sums[..count]);
            }
        }
    }
}

/// `sums[t][r] += Σ_c w[r,c] · x[t,c]` over one block of 16 rows.
fn add_block(
    w: Matrix<'_>,
    block_index: usize,
    x: Operand<'_>,
    tokens: std::ops::Range<usize>,
    sums: &mut [[f32; TILE_ROWS]; CHUNK],
) {
    let encoding = w.encoding();
    let block = w.block(block_index);
    // A line of floats is a column of the block and needs no decoding.
    match encoding {
        Encoding::F32 => return add_columns(block.as_chunks().0, floats_of_f32, x, tokens, sums),
        Encoding::F16 => return add_columns(block.as_chunks().0, floats_of_f16, x, tokens, sums),
        _ => {}
    }
    let cols = encoding.tile_cols();
    let mut weights = [0.0f32; TILE_ROWS * MAX_TILE_COLS];
    let weights = &mut weights[..TILE_ROWS * cols];
    let mut values = [0.0f32; MAX_TILE_COLS];
    for tile_index in 0..w.tile_count() {
        w.decode_tile(block_index, tile_index, weights);
        for (token, sums) in tokens.clone().zip(sums.iter_mut()) {
            let values = &mut values[..cols];
            load_operand(encoding.operation(), x.token(token), tile_index * cols, values);
            for (sum, row) in sums.iter_mut().zip(weights.chunks_exact(cols)) {
                *sum += dot(row, values);
            }
        }
    }
}

/// [`add_block`] for encodings stored column after column, `BYTES` each.
fn add_columns<const BYTES: usize>(
    lines: &[[u8; BYTES]],
    widen: impl Fn(&[u8; BYTES]) -> [f32; TILE_ROWS],
    x: Operand<'_>,
    tokens: std::ops::Range<usize>,
    sums: &mut [[f32; TILE_ROWS]; CHUNK],
) {
    let stride = x.stride();
    for (col, line) in lines.iter().enumerate() {
        let weights = widen(line);
        for (token, sums) in tokens.clone().zip(sums.iter_mut()) {
            let value = f32x8::splat(x.floats[token * stride + col]);
            for (sums, weights) in sums.as_chunks_mut::<8>().0.iter_mut().zip(weights.as_chunks::<8>().0) {
                *sums = f32x8::new(*weights).mul_add(value, f32x8::new(*sums)).to_array();
            }
        }
    }
}

fn floats_of_f32(line: &[u8; 4 * TILE_ROWS]) -> [f32; TILE_ROWS] {
    std::array::from_fn(|row| f32::from_le_bytes(line.as_chunks().0[row]))
}

fn floats_of_f16(line: &[u8; 2 * TILE_ROWS]) -> [f32; TILE_ROWS] {
    let halves: [f16; TILE_ROWS] = std::array::from_fn(|row| f16::from_le_bytes(line.as_chunks().0[row]));
    let mut out = [0.0; TILE_ROWS];
    halves.convert_to_f32_slice(&mut out);
    out
}

/// Activations of one token from column `start` on, in the form that `operation` multiplies.
fn load_operand(operation: Operation, x: Operand<'_>, start: usize, values: &mut [f32]) {
    match operation {
        Operation::Float => values.copy_from_slice(&x.floats[start..start + values.len()]),
        Operation::Integer => {
            debug_assert!(start.is_multiple_of(ACTIVATION_GROUP), "tiles of integers are whole groups");
            let first = start / ACTIVATION_GROUP;
            let codes = x.codes[start..].chunks(ACTIVATION_GROUP);
            let groups = values.chunks_mut(ACTIVATION_GROUP).zip(codes).zip(&x.scales[first..]);
            for ((values, codes), scale) in groups {
                for (value, &code) in values.iter_mut().zip(codes) {
                    *value = scale * f32::from(code);
                }
            }
        }
    }
}

/// See [`Kernels::quantize`].
pub fn quantize(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    assert_eq!(x.len(), codes.len());
    assert_eq!((x.len(), x.len()), (scales.len() * ACTIVATION_GROUP, sums.len() * ACTIVATION_GROUP));
    let groups = x.as_chunks::<ACTIVATION_GROUP>().0.iter().zip(codes.as_chunks_mut::<ACTIVATION_GROUP>().0);
    for ((x, codes), (scale, sum)) in groups.zip(scales.iter_mut().zip(sums)) {
        let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        *scale = largest / 127.0;
        if *scale < f32::MIN_POSITIVE {
            (*scale, *sum) = (0.0, 0);
            codes.fill(0);
            continue;
        }
        let inverse = 1.0 / *scale;
        // |x · inverse| < 2²²: adding 1.5 · 2²³ leaves no bits below 1 and rounds ties to even, as
        // f32 does.
        const WHOLE: f32 = 12_582_912.0;
        for (code, x) in codes.iter_mut().zip(x) {
            *code = (x * inverse + WHOLE - WHOLE) as i8;
        }
        *sum = codes.iter().map(|&code| i32::from(code)).sum();
    }
}

/// See [`Kernels::rms_norm`].
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (weight.len(), out.len()));
    let factor = 1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * factor * weight;
    }
}

/// See [`Kernels::layer_norm`].
pub fn layer_norm(x: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32, out: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (weight.len(), out.len()));
    let len = x.len() as f32;
    let mean = sum(x) / len;
    for (out, x) in out.iter_mut().zip(x) {
        *out = x - mean;
    }
    let factor = 1.0 / (dot(out, out) / len + epsilon).sqrt();
    for (out, weight) in out.iter_mut().zip(weight) {
        *out *= factor * weight;
    }
    if let Some(bias) = bias {
        assert_eq!(bias.len(), out.len());
        for (out, bias) in out.iter_mut().zip(bias) {
            *out += bias;
        }
    }
}

/// See [`Kernels::rope`].
pub fn rope(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    assert!(sin.len() == half && 2 * half <= head_dim && x.len().is_multiple_of(head_dim));
    for head in x.chunks_exact_mut(head_dim) {
        let (first, second) = head.split_at_mut(half);
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

/// See [`Kernels::softmax`].
pub fn softmax(x: &mut [f32]) {
    let (_, sum) = powers(x);
    let factor = 1.0 / sum;
    for x in x {
        *x *= factor;
    }
}

/// `x ← e^(x − max x)`; returns the maximum and the sum.
fn powers(x: &mut [f32]) -> (f32, f32) {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    map(x, |x| (x - f32x8::splat(largest)).exp());
    (largest, sum(x))
}

/// See [`Kernels::activate`].
pub fn activate(function: ActivationFunction, x: &mut [f32]) {
    let one = f32x8::splat(1.0);
    match function {
        ActivationFunction::Silu => map(x, |x| x / (one + (-x).exp())),
        ActivationFunction::GeluTanh => map(x, |x| {
            // ½(1 + tanh u) = 1 / (1 + e^(−2u))
            let u = x * f32x8::splat(0.797_884_6) * (one + f32x8::splat(0.044_715) * x * x);
            x / (one + (-(u + u)).exp())
        }),
        ActivationFunction::Gelu => map(x, |x| {
            // x · Φ(x): Φ(−|x|) = ½·erfc(|x|/√2), Φ(|x|) = 1 − that.
            let tail = lower_tail(x.abs());
            x * x.simd_lt(f32x8::ZERO).select(tail, one - tail)
        }),
    }
}

/// The polynomial of Numerical Recipes' `erfcc`, highest power first.
pub const ERFC_COEFFICIENTS: [f32; 10] = [
    0.170_872_77,
    -0.822_152_23,
    1.488_515_9,
    -1.135_204,
    0.278_868_07,
    -0.186_288_06,
    0.096_784_18,
    0.374_091_96,
    1.000_023_7,
    -1.265_512_2,
];

/// `½·erfc(z/√2)` for `z ≥ 0`, to one ε even where it is tiny: `t·exp(−z²/2 + p(t))`,
/// `t = 1/(1 + z/√8)`.
fn lower_tail(z: f32x8) -> f32x8 {
    let t = f32x8::splat(1.0) / (f32x8::splat(1.0) + z * f32x8::splat(0.353_553_4));
    let p = ERFC_COEFFICIENTS.iter().fold(f32x8::ZERO, |p, &coefficient| p * t + f32x8::splat(coefficient));
    f32x8::splat(0.5) * t * (p - f32x8::splat(0.5) * z * z).exp()
}

/// See [`Kernels::scores`].
pub fn scores(queries: &[f32], keys: KvRows<'_>, scale: f32, out: &mut [f32]) {
    let (head_dim, positions) = (keys.head_dim(), keys.positions());
    assert_eq!(queries.len() / head_dim * positions, out.len());
    out.fill(0.0);
    let mut key = [0.0f32; ROW_CHUNK];
    for position in 0..positions {
        for start in (0..head_dim).step_by(ROW_CHUNK) {
            let key = &mut key[..ROW_CHUNK.min(head_dim - start)];
            load_row(keys, position, start, key);
            for (index, query) in queries.chunks_exact(head_dim).enumerate() {
                out[index * positions + position] += scale * dot(&query[start..][..key.len()], key);
            }
        }
    }
}

/// See [`Kernels::mix`].
pub fn mix(weights: &[f32], values: KvRows<'_>, out: &mut [f32]) {
    let (head_dim, positions) = (values.head_dim(), values.positions());
    assert_eq!(out.len() / head_dim * positions, weights.len());
    out.fill(0.0);
    let mut value = [0.0f32; ROW_CHUNK];
    for position in 0..positions {
        for start in (0..head_dim).step_by(ROW_CHUNK) {
            let value = &mut value[..ROW_CHUNK.min(head_dim - start)];
            load_row(values, position, start, value);
            for (index, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let weight = weights[index * positions + position];
                for (out, value) in out[start..].iter_mut().zip(&*value) {
                    *out += weight * value;
                }
            }
        }
    }
}

/// See [`Kernels::attention`]. Works token by token, with the scores and mixes of `kernels`.
pub fn attention<K: Kernels + ?Sized>(
    kernels: &K,
    task: &Attention<'_>,
    scratch: &mut AttentionScratch,
    records: &mut [f32],
) {
    task.check(scratch, records);
    let (head_dim, record_len) = (task.keys.head_dim(), task.record_len());
    let parts = scratch.parts(head_dim);
    for (token, records) in records.chunks_exact_mut(task.group * record_len).enumerate() {
        let visible = task.visible(token);
        if visible.is_empty() {
            continue;
        }
        let (keys, values) = (task.keys.slice(visible.clone()), task.values.slice(visible.clone()));
        let queries = task.token(token).chunks(ATTENTION_QUERIES * head_dim);
        for (queries, records) in queries.zip(records.chunks_mut(ATTENTION_QUERIES * record_len)) {
            let scores = &mut parts.scores.as_flattened_mut()[..queries.len() / head_dim * visible.len()];
            kernels.scores(queries, keys, task.scale, scores);
            let mut sums = [(0.0, 0.0); ATTENTION_QUERIES];
            for (scores, sums) in scores.chunks_exact_mut(visible.len()).zip(&mut sums) {
                if let Some(cap) = task.softcap {
                    scores.iter_mut().for_each(|score| *score = cap * (*score / cap).tanh());
                }
                *sums = powers(scores);
            }
            let mixed = &mut parts.mixed[..queries.len()];
            kernels.mix(scores, values, mixed);
            let records = records.chunks_exact_mut(record_len);
            for ((record, mixed), (largest, sum)) in records.zip(mixed.chunks_exact(head_dim)).zip(sums) {
                add(record, mixed, largest * std::f32::consts::LOG2_E, sum, blend);
            }
        }
    }
}

/// `total = a · total + b · part`
pub fn blend(total: &mut [f32], a: f32, part: &[f32], b: f32) {
    for (total, part) in total.iter_mut().zip(part) {
        *total = a * *total + b * part;
    }
}

/// Values of one row from dimension `start` on.
fn load_row(rows: KvRows<'_>, position: usize, start: usize, out: &mut [f32]) {
    let begin = position * rows.head_dim() + start;
    let span = begin..begin + out.len();
    match rows {
        KvRows::F32 { rows, .. } => out.copy_from_slice(&rows[span]),
        KvRows::F16 { rows, .. } => rows[span].convert_to_f32_slice(out),
        KvRows::Q8 { codes, scales, .. } => {
            let scale = scales[position].to_f32();
            for (out, &code) in out.iter_mut().zip(&codes[span]) {
                *out = scale * f32::from(code);
            }
        }
        KvRows::Q4 { head_dim, codes, scales } => {
            // Parts begin at whole groups.
            let first = position * head_dim.div_ceil(KV4_GROUP) + start / KV4_GROUP;
            let groups = codes.as_chunks::<KV4_BYTES>().0[first..].iter().zip(&scales[first..]);
            for ((bytes, scale), out) in groups.zip(out.chunks_mut(KV4_GROUP)) {
                let scale = scale.to_f32();
                let value = |code: u8| scale * f32::from(KV4_LEVELS[usize::from(code)]);
                let (low, high) = out.split_at_mut(KV4_BYTES.min(out.len()));
                low.iter_mut().zip(bytes).for_each(|(out, byte)| *out = value(byte & 15));
                high.iter_mut().zip(bytes).for_each(|(out, byte)| *out = value(byte >> 4));
            }
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<8>();
    let (b_lanes, b_rest) = b.as_chunks::<8>();
    let lanes = a_lanes
        .iter()
        .zip(b_lanes)
        .fold(f32x8::ZERO, |sum, (a, b)| f32x8::new(*a).mul_add(f32x8::new(*b), sum))
        .reduce_add();
    lanes + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

fn sum(x: &[f32]) -> f32 {
    let (lanes, rest) = x.as_chunks::<8>();
    lanes.iter().fold(f32x8::ZERO, |sum, x| sum + f32x8::new(*x)).reduce_add() + rest.iter().sum::<f32>()
}

/// Applies `f` to eight values at a time, the last ones padded with zeros.
fn map(x: &mut [f32], f: impl Fn(f32x8) -> f32x8) {
    let (lanes, rest) = x.as_chunks_mut::<8>();
    for lane in lanes {
        *lane = f(f32x8::new(*lane)).to_array();
    }
    let mut last = [0.0; 8];
    last[..rest.len()].copy_from_slice(rest);
    rest.copy_from_slice(&f(f32x8::new(last)).to_array()[..rest.len()]);
}
