//! Attention with micro-kernels of registers of 8 floats: six queries × 16 positions of scores, or
//! × 16 dimensions of mixes. The 12 sums hide the latency of additions; eight loads feed 12
//! products.

use super::memory::{
    fetch, load_codes, load_floats, load_halves, max_lanes, padded, store_floats, sum_lanes,
};
use super::shuffle::transposed;
use super::{Avx2, kv4};
use crate::attention::{ATTENTION_SPAN, EXP2_COEFFICIENTS, InnerLoops, ROWS, STEP};
use crate::{KV4_BYTES, KV4_GROUP, KvRows};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::arch::x86_64::*;
use std::ops::Range;

impl InnerLoops for Avx2 {
    fn announce(self, rows: KvRows<'_>, positions: Range<usize>) {
        fetch(rows.slice(positions));
    }

    fn transpose(self, keys: KvRows<'_>, positions: Range<usize>, out: &mut [[f32; STEP]]) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { transpose(keys.slice(positions), out) }
    }

    fn widen(self, values: KvRows<'_>, positions: Range<usize>, padded: usize, out: &mut [f32]) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { widen(values.slice(positions), padded, out) }
    }

    fn scores(
        self,
        queries: &[[f32; ROWS]],
        keys: &[[f32; STEP]],
        start: usize,
        count: usize,
        out: &mut [[f32; ATTENTION_SPAN]],
    ) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { scores(queries, keys, start, count, out) }
    }

    fn powers(self, x: &mut [f32], visible: Range<usize>, softcap: Option<f32>, turn: usize) -> (f32, f32) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { powers(x, visible, softcap, turn) }
    }

    fn mix(
        self,
        weights: &[[f32; ATTENTION_SPAN]],
        start: usize,
        values: &[f32],
        padded: usize,
        mixed: &mut [f32],
    ) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { mix(weights, start, values, padded, mixed) }
    }

    fn blend(self, total: &mut [f32], a: f32, part: &[f32], b: f32) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { blend(total, a, part, b) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn transpose(keys: KvRows<'_>, out: &mut [[f32; STEP]]) {
    let positions = keys.positions();
    for start in (0..positions).step_by(8) {
        match keys.slice(start..positions.min(start + 8)) {
            KvRows::F32 { head_dim, rows } => transpose_f32(rows, head_dim, start, out),
            KvRows::F16 { head_dim, rows } => transpose_f16(rows, head_dim, start, out),
            KvRows::Q8 { head_dim, codes, scales } => {
                transpose_q8(codes, head_dim, start, out);
                let mut factors = [0.0; 8];
                scales.convert_to_f32_slice(&mut factors[..scales.len()]);
                let factors = load_floats(&factors);
                for out in out.iter_mut() {
                    let out = &mut out.as_chunks_mut::<8>().0[start / 8];
                    store_floats(_mm256_mul_ps(load_floats(out), factors), out);
                }
            }
            KvRows::Q4 { codes, scales, .. } => kv4::transpose(codes, scales, start, out),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn widen(values: KvRows<'_>, padded: usize, out: &mut [f32]) {
    match values {
        KvRows::F32 { head_dim, rows } => {
            for (row, out) in rows.chunks_exact(head_dim).zip(out.chunks_exact_mut(padded)) {
                widen_f32(row, 1.0, out);
            }
        }
        KvRows::F16 { head_dim, rows } => {
            for (row, out) in rows.chunks_exact(head_dim).zip(out.chunks_exact_mut(padded)) {
                widen_f16(row, 1.0, out);
            }
        }
        KvRows::Q8 { head_dim, codes, scales } => {
            let mut factors = [0.0; STEP];
            scales.convert_to_f32_slice(&mut factors[..scales.len()]);
            let rows = codes.chunks_exact(head_dim).zip(factors);
            for ((row, factor), out) in rows.zip(out.chunks_exact_mut(padded)) {
                widen_q8(row, factor, out);
            }
        }
        KvRows::Q4 { head_dim, codes, scales } => {
            let groups = head_dim.div_ceil(KV4_GROUP);
            let rows = codes.chunks_exact(KV4_BYTES * groups).zip(scales.chunks_exact(groups));
            for ((codes, scales), out) in rows.zip(out.chunks_exact_mut(padded)) {
                kv4::widen(codes, scales, out);
            }
        }
    }
}

/// For one number type: transposes up to 8 rows to 8 lanes per dimension, and widens a row to a
/// padded one.
macro_rules! widening {
    ($transpose:ident, $widen:ident, $value:ty, $zero:expr, $load:ident) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $transpose(rows: &[$value], head_dim: usize, start: usize, out: &mut [[f32; STEP]]) {
            if rows.len() == 8 * head_dim {
                for (index, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                    let line = |row: usize| &rows[row * head_dim + 8 * index..].as_chunks().0[0];
                    let mut lines = [_mm256_setzero_ps(); 8];
                    for row in 0..8 {
                        lines[row] = $load(line(row));
                    }
                    let lines = transposed(lines);
                    for dim in 0..8 {
                        store_floats(lines[dim], &mut out[dim].as_chunks_mut().0[start / 8]);
                    }
                }
            }
            let done = if rows.len() == 8 * head_dim { head_dim / 8 } else { 0 };
            for (index, out) in out.chunks_mut(8).enumerate().skip(done) {
                let mut lines = [_mm256_setzero_ps(); 8];
                for (line, row) in lines.iter_mut().zip(rows.chunks_exact(head_dim)) {
                    let row = &row[8 * index..];
                    *line = match row.first_chunk() {
                        Some(row) => $load(row),
                        None => $load(&padded(row, $zero)),
                    };
                }
                for (line, out) in transposed(lines).into_iter().zip(out) {
                    store_floats(line, &mut out.as_chunks_mut().0[start / 8]);
                }
            }
        }

        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $widen(row: &[$value], factor: f32, out: &mut [f32]) {
            let factor = _mm256_set1_ps(factor);
            let (lines, rest) = row.as_chunks();
            let outs = out.as_chunks_mut().0;
            for (line, out) in lines.iter().zip(&mut *outs) {
                store_floats(_mm256_mul_ps($load(line), factor), out);
            }
            if !rest.is_empty() {
                store_floats(_mm256_mul_ps($load(&padded(rest, $zero)), factor), &mut outs[lines.len()]);
            }
        }
    };
}

widening!(transpose_f32, widen_f32, f32, 0.0, load_floats);
widening!(transpose_f16, widen_f16, f16, f16::ZERO, load_halves);
widening!(transpose_q8, widen_q8, i8, 0, load_codes);

#[target_feature(enable = "avx2,fma,f16c")]
fn scores(
    queries: &[[f32; ROWS]],
    keys: &[[f32; STEP]],
    start: usize,
    count: usize,
    out: &mut [[f32; ATTENTION_SPAN]],
) {
    match out.len() {
        6 => scores_of::<6>(queries, keys, start, count, out),
        5 => scores_of::<5>(queries, keys, start, count, out),
        4 => scores_of::<4>(queries, keys, start, count, out),
        3 => scores_of::<3>(queries, keys, start, count, out),
        2 => scores_of::<2>(queries, keys, start, count, out),
        _ => scores_of::<1>(queries, keys, start, count, out),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scores_of<const Q: usize>(
    queries: &[[f32; ROWS]],
    keys: &[[f32; STEP]],
    start: usize,
    count: usize,
    out: &mut [[f32; ATTENTION_SPAN]],
) {
    // No query sees positions behind the last one, and the buffer has room for them.
    for first in (0..count).step_by(16) {
        score_lines::<Q, 2>(queries, keys, first, start, out);
    }
}

/// Scores of `Q` queries for `W` lines of positions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn score_lines<const Q: usize, const W: usize>(
    queries: &[[f32; ROWS]],
    keys: &[[f32; STEP]],
    first: usize,
    start: usize,
    out: &mut [[f32; ATTENTION_SPAN]],
) {
    let mut sums = [[_mm256_setzero_ps(); W]; Q];
    for (query, keys) in queries.iter().zip(keys) {
        let keys = &keys[first..first + 8 * W].as_chunks().0;
        for (sums, &query) in sums.iter_mut().zip(query) {
            for (sum, keys) in sums.iter_mut().zip(*keys) {
                *sum = _mm256_fmadd_ps(_mm256_set1_ps(query), load_floats(keys), *sum);
            }
        }
    }
    for (sums, out) in sums.into_iter().zip(out) {
        let out = out[start + first..][..8 * W].as_chunks_mut().0;
        for (sum, out) in sums.into_iter().zip(out) {
            store_floats(sum, out);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn mix(weights: &[[f32; ATTENTION_SPAN]], start: usize, values: &[f32], padded: usize, mixed: &mut [f32]) {
    match weights.len() {
        6 => mix_of::<6>(weights, start, values, padded, mixed),
        5 => mix_of::<5>(weights, start, values, padded, mixed),
        4 => mix_of::<4>(weights, start, values, padded, mixed),
        3 => mix_of::<3>(weights, start, values, padded, mixed),
        2 => mix_of::<2>(weights, start, values, padded, mixed),
        _ => mix_of::<1>(weights, start, values, padded, mixed),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn mix_of<const Q: usize>(
    weights: &[[f32; ATTENTION_SPAN]],
    start: usize,
    values: &[f32],
    padded: usize,
    mixed: &mut [f32],
) {
    // Rows are padded to 16.
    for first in (0..padded).step_by(16) {
        mix_lines::<Q, 2>(weights, start, values, padded, first, mixed);
    }
}

/// Mixes of `Q` queries in `W` lines of dimensions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn mix_lines<const Q: usize, const W: usize>(
    weights: &[[f32; ATTENTION_SPAN]],
    start: usize,
    values: &[f32],
    padded: usize,
    first: usize,
    mixed: &mut [f32],
) {
    let positions = values.len() / padded;
    let mut sums = [[_mm256_setzero_ps(); W]; Q];
    for q in 0..Q {
        let mixed = mixed[q * padded + first..][..8 * W].as_chunks().0;
        for w in 0..W {
            sums[q][w] = load_floats(&mixed[w]);
        }
    }
    let mut rows = [&[][..]; Q];
    for (row, weights) in rows.iter_mut().zip(weights) {
        *row = &weights[start..start + positions];
    }
    for (position, values) in values.chunks_exact(padded).enumerate() {
        let values = &values[first..first + 8 * W].as_chunks().0;
        for (sums, weights) in sums.iter_mut().zip(rows) {
            for (sum, values) in sums.iter_mut().zip(*values) {
                *sum = _mm256_fmadd_ps(_mm256_set1_ps(weights[position]), load_floats(values), *sum);
            }
        }
    }
    for q in 0..Q {
        let mixed = mixed[q * padded + first..][..8 * W].as_chunks_mut().0;
        for w in 0..W {
            store_floats(sums[q][w], &mut mixed[w]);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn powers(x: &mut [f32], visible: Range<usize>, softcap: Option<f32>, turn: usize) -> (f32, f32) {
    let lines = x.as_chunks_mut::<8>().0;
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let (first, end) = (_mm256_set1_epi32(visible.start as i32), _mm256_set1_epi32(visible.end as i32));
    let mask = |index: usize| {
        let position = _mm256_add_epi32(lanes, _mm256_set1_epi32(8 * index as i32));
        _mm256_castsi256_ps(_mm256_andnot_si256(
            _mm256_cmpgt_epi32(first, position),
            _mm256_cmpgt_epi32(end, position),
        ))
    };
    let mut largest = _mm256_set1_ps(f32::NEG_INFINITY);
    for (index, line) in lines.iter_mut().enumerate() {
        if let Some(cap) = softcap {
            store_floats(capped(load_floats(line), cap), line);
        }
        let seen = _mm256_blendv_ps(_mm256_set1_ps(f32::NEG_INFINITY), load_floats(line), mask(index));
        largest = _mm256_max_ps(largest, seen);
    }
    let largest = max_lanes(largest);
    let mut sum = _mm256_setzero_ps();
    for (index, line) in lines.iter_mut().enumerate() {
        let power = exp2(_mm256_sub_ps(load_floats(line), _mm256_set1_ps(largest)));
        let power = _mm256_and_ps(mask(index), power);
        sum = _mm256_add_ps(sum, power);
        store_floats(power, line);
    }
    let mut sums = [0.0; 8];
    store_floats(sum, &mut sums);
    sums.rotate_right(turn % 8);
    (largest, sum_lanes(load_floats(&sums)))
}

/// `cap · tanh(x / cap)` of `x` in units of ln 2.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn capped(x: __m256, cap: f32) -> __m256 {
    // tanh(u) = 1 − 2 / (1 + e^(2u)), and e^(2u) = 2^(2·x / cap).
    let power = exp2(_mm256_mul_ps(x, _mm256_set1_ps(2.0 / cap)));
    let one = _mm256_set1_ps(1.0);
    let quotient = _mm256_div_ps(_mm256_set1_ps(2.0), _mm256_add_ps(one, power));
    _mm256_mul_ps(_mm256_set1_ps(cap * std::f32::consts::LOG2_E), _mm256_sub_ps(one, quotient))
}

/// `2^x` to about one ε: `x = n + r`, a polynomial in `r` that is 1 at 0, and `2^n` in two halves,
/// so that results above f32 become ∞ and those below it 0. NaN stays NaN.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp2(x: __m256) -> __m256 {
    // Beyond these bounds the result is 0 or ∞ anyway. The bound is the first operand, so that NaN
    // passes.
    let x = _mm256_min_ps(_mm256_set1_ps(130.0), _mm256_max_ps(_mm256_set1_ps(-160.0), x));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let r = _mm256_sub_ps(x, n);
    let mut p = _mm256_set1_ps(EXP2_COEFFICIENTS[0]);
    for &coefficient in &EXP2_COEFFICIENTS[1..] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(coefficient));
    }
    let n = _mm256_cvtps_epi32(n);
    let first = _mm256_srai_epi32::<1>(n);
    let power_of_two =
        |n| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))));
    _mm256_mul_ps(_mm256_mul_ps(p, power_of_two(first)), power_of_two(_mm256_sub_epi32(n, first)))
}

#[target_feature(enable = "avx2,fma")]
fn blend(total: &mut [f32], a: f32, part: &[f32], b: f32) {
    let (factor, part_factor) = (_mm256_set1_ps(a), _mm256_set1_ps(b));
    let (lines, rest) = total.as_chunks_mut::<8>();
    let (part_lines, part_rest) = part.as_chunks::<8>();
    for (total, part) in lines.iter_mut().zip(part_lines) {
        store_floats(
            _mm256_fmadd_ps(load_floats(total), factor, _mm256_mul_ps(load_floats(part), part_factor)),
            total,
        );
    }
    for (total, part) in rest.iter_mut().zip(part_rest) {
        *total = total.mul_add(a, part * b);
    }
}
