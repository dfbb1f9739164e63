//! Attention with micro-kernels of registers of 16 floats: six queries × 64 positions of scores, or
//! × 64 dimensions of mixes. The 24 sums hide the latency of additions; ten loads feed 24 products.

use super::memory::{load, load_codes, load_f16, store};
use super::shuffle::transposed;
use super::{Avx512, kv4};
use crate::attention::{ATTENTION_SPAN, EXP2_COEFFICIENTS, InnerLoops, ROWS, STEP};
use crate::avx2::fetch;
use crate::{KV4_BYTES, KV4_GROUP, KvRows};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::arch::x86_64::*;
use std::ops::Range;

impl InnerLoops for Avx512 {
    fn announce(self, rows: KvRows<'_>, positions: Range<usize>) {
        fetch(rows.slice(positions));
    }

    fn transpose(self, keys: KvRows<'_>, positions: Range<usize>, out: &mut [[f32; STEP]]) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { transpose(keys.slice(positions), out) }
    }

    fn widen(self, values: KvRows<'_>, positions: Range<usize>, padded: usize, out: &mut [f32]) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
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
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { scores(queries, keys, start, count, out) }
    }

    fn powers(self, x: &mut [f32], visible: Range<usize>, softcap: Option<f32>, turn: usize) -> (f32, f32) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
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
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { mix(weights, start, values, padded, mixed) }
    }

    fn blend(self, total: &mut [f32], a: f32, part: &[f32], b: f32) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { blend(total, a, part, b) }
    }
}

/// Up to 15 values, then zeros.
fn padded_line<T: Copy>(rest: &[T], zero: T) -> [T; 16] {
    let mut out = [zero; 16];
    out[..rest.len()].copy_from_slice(rest);
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn transpose(keys: KvRows<'_>, out: &mut [[f32; STEP]]) {
    let positions = keys.positions();
    for start in (0..positions).step_by(16) {
        match keys.slice(start..positions.min(start + 16)) {
            KvRows::F32 { head_dim, rows } => transpose_f32(rows, head_dim, start, out),
            KvRows::F16 { head_dim, rows } => transpose_f16(rows, head_dim, start, out),
            KvRows::Q8 { head_dim, codes, scales } => {
                transpose_q8(codes, head_dim, start, out);
                let mut factors = [0.0; 16];
                scales.convert_to_f32_slice(&mut factors[..scales.len()]);
                let factors = load(&factors);
                for out in out.iter_mut() {
                    let out = &mut out.as_chunks_mut::<16>().0[start / 16];
                    store(_mm512_mul_ps(load(out), factors), out);
                }
            }
            KvRows::Q4 { codes, scales, .. } => kv4::transpose(codes, scales, start, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
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

/// For one number type: transposes up to 16 rows to 16 lanes per dimension, and widens a row to a
/// padded one.
macro_rules! widening {
    ($transpose:ident, $widen:ident, $value:ty, $zero:expr, $load:ident) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn $transpose(rows: &[$value], head_dim: usize, start: usize, out: &mut [[f32; STEP]]) {
            if rows.len() == 16 * head_dim {
                for (index, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                    let line = |row: usize| &rows[row * head_dim + 16 * index..].as_chunks().0[0];
                    let mut lines = [_mm512_setzero_ps(); 16];
                    for row in 0..16 {
                        lines[row] = $load(line(row));
                    }
                    let lines = transposed(lines);
                    for dim in 0..16 {
                        store(lines[dim], &mut out[dim].as_chunks_mut().0[start / 16]);
                    }
                }
            }
            let done = if rows.len() == 16 * head_dim { head_dim / 16 } else { 0 };
            for (index, out) in out.chunks_mut(16).enumerate().skip(done) {
                let mut lines = [_mm512_setzero_ps(); 16];
                for (line, row) in lines.iter_mut().zip(rows.chunks_exact(head_dim)) {
                    let row = &row[16 * index..];
                    *line = match row.first_chunk() {
                        Some(row) => $load(row),
                        None => $load(&padded_line(row, $zero)),
                    };
                }
                for (line, out) in transposed(lines).into_iter().zip(out) {
                    store(line, &mut out.as_chunks_mut().0[start / 16]);
                }
            }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn $widen(row: &[$value], factor: f32, out: &mut [f32]) {
            let factor = _mm512_set1_ps(factor);
            let (lines, rest) = row.as_chunks();
            let outs = out.as_chunks_mut().0;
            for (line, out) in lines.iter().zip(&mut *outs) {
                store(_mm512_mul_ps($load(line), factor), out);
            }
            if !rest.is_empty() {
                store(_mm512_mul_ps($load(&padded_line(rest, $zero)), factor), &mut outs[lines.len()]);
            }
        }
    };
}

widening!(transpose_f32, widen_f32, f32, 0.0, load);
widening!(transpose_f16, widen_f16, f16, f16::ZERO, load_f16);
widening!(transpose_q8, widen_q8, i8, 0, load_codes);

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn scores_of<const Q: usize>(
    queries: &[[f32; ROWS]],
    keys: &[[f32; STEP]],
    start: usize,
    count: usize,
    out: &mut [[f32; ATTENTION_SPAN]],
) {
    // No query sees positions behind the last one, and the buffer has room for them.
    if count > STEP / 2 {
        return score_lines::<Q, 4>(queries, keys, 0, start, out);
    }
    for first in (0..count).step_by(16) {
        score_lines::<Q, 1>(queries, keys, first, start, out);
    }
}

/// Scores of `Q` queries for `W` lines of positions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn score_lines<const Q: usize, const W: usize>(
    queries: &[[f32; ROWS]],
    keys: &[[f32; STEP]],
    first: usize,
    start: usize,
    out: &mut [[f32; ATTENTION_SPAN]],
) {
    let mut sums = [[_mm512_setzero_ps(); W]; Q];
    for (query, keys) in queries.iter().zip(keys) {
        let keys = &keys[first..first + 16 * W].as_chunks().0;
        for (sums, &query) in sums.iter_mut().zip(query) {
            for (sum, keys) in sums.iter_mut().zip(*keys) {
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(query), load(keys), *sum);
            }
        }
    }
    for (sums, out) in sums.into_iter().zip(out) {
        let out = out[start + first..][..16 * W].as_chunks_mut().0;
        for (sum, out) in sums.into_iter().zip(out) {
            store(sum, out);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn mix_of<const Q: usize>(
    weights: &[[f32; ATTENTION_SPAN]],
    start: usize,
    values: &[f32],
    padded: usize,
    mixed: &mut [f32],
) {
    let mut first = 0;
    while first + 64 <= padded {
        mix_lines::<Q, 4>(weights, start, values, padded, first, mixed);
        first += 64;
    }
    while first < padded {
        mix_lines::<Q, 1>(weights, start, values, padded, first, mixed);
        first += 16;
    }
}

/// Mixes of `Q` queries in `W` lines of dimensions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn mix_lines<const Q: usize, const W: usize>(
    weights: &[[f32; ATTENTION_SPAN]],
    start: usize,
    values: &[f32],
    padded: usize,
    first: usize,
    mixed: &mut [f32],
) {
    let positions = values.len() / padded;
    let mut sums = [[_mm512_setzero_ps(); W]; Q];
    for q in 0..Q {
        let mixed = mixed[q * padded + first..][..16 * W].as_chunks().0;
        for w in 0..W {
            sums[q][w] = load(&mixed[w]);
        }
    }
    let mut rows = [&[][..]; Q];
    for (row, weights) in rows.iter_mut().zip(weights) {
        *row = &weights[start..start + positions];
    }
    for (position, values) in values.chunks_exact(padded).enumerate() {
        let values = &values[first..first + 16 * W].as_chunks().0;
        for (sums, weights) in sums.iter_mut().zip(rows) {
            for (sum, values) in sums.iter_mut().zip(*values) {
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(weights[position]), load(values), *sum);
            }
        }
    }
    for q in 0..Q {
        let mixed = mixed[q * padded + first..][..16 * W].as_chunks_mut().0;
        for w in 0..W {
            store(sums[q][w], &mut mixed[w]);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn powers(x: &mut [f32], visible: Range<usize>, softcap: Option<f32>, turn: usize) -> (f32, f32) {
    let lines = x.as_chunks_mut::<16>().0;
    let seen = visible.start / 16..visible.end.div_ceil(16);
    // Lanes of the first and the last line may lie outside the visible range.
    let mask = |index: usize| -> __mmask16 {
        if index > seen.start && index + 1 < seen.end {
            return !0;
        }
        let below = |end: usize| (1u32 << end.saturating_sub(16 * index).min(16)) - 1;
        (below(visible.end) & !below(visible.start)) as __mmask16
    };
    let mut largest = _mm512_set1_ps(f32::NEG_INFINITY);
    for index in seen.clone() {
        let line = &mut lines[index];
        if let Some(cap) = softcap {
            store(capped(load(line), cap), line);
        }
        largest = _mm512_mask_max_ps(largest, mask(index), largest, load(line));
    }
    let largest = _mm512_reduce_max_ps(largest);
    lines[..seen.start].fill([0.0; 16]);
    lines[seen.end..].fill([0.0; 16]);
    let mut sum = _mm512_setzero_ps();
    for index in seen.clone() {
        let line = &mut lines[index];
        let power = exp2(_mm512_sub_ps(load(line), _mm512_set1_ps(largest)));
        let power = _mm512_maskz_mov_ps(mask(index), power);
        sum = _mm512_add_ps(sum, power);
        store(power, line);
    }
    let mut sums = [0.0; 16];
    store(sum, &mut sums);
    sums.rotate_right(turn % 16);
    (largest, _mm512_reduce_add_ps(load(&sums)))
}

/// `cap · tanh(x / cap)` of `x` in units of ln 2.
#[inline]
#[target_feature(enable = "avx512f")]
fn capped(x: __m512, cap: f32) -> __m512 {
    // tanh(u) = 1 − 2 / (1 + e^(2u)), and e^(2u) = 2^(2·x / cap).
    let power = exp2(_mm512_mul_ps(x, _mm512_set1_ps(2.0 / cap)));
    let one = _mm512_set1_ps(1.0);
    let quotient = _mm512_div_ps(_mm512_set1_ps(2.0), _mm512_add_ps(one, power));
    _mm512_mul_ps(_mm512_set1_ps(cap * std::f32::consts::LOG2_E), _mm512_sub_ps(one, quotient))
}

/// `2^x` to about one ε: `x = n + r`, a polynomial in `r` that is 1 at 0. NaN stays NaN.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp2(x: __m512) -> __m512 {
    // Beyond these bounds the result is 0 or ∞ anyway. The bound is the first operand, so that NaN
    // passes.
    let x = _mm512_min_ps(_mm512_set1_ps(130.0), _mm512_max_ps(_mm512_set1_ps(-160.0), x));
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let r = _mm512_sub_ps(x, n);
    let mut p = _mm512_set1_ps(EXP2_COEFFICIENTS[0]);
    for &coefficient in &EXP2_COEFFICIENTS[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
    }
    _mm512_scalef_ps(p, n)
}

#[target_feature(enable = "avx512f")]
fn blend(total: &mut [f32], a: f32, part: &[f32], b: f32) {
    let (factor, part_factor) = (_mm512_set1_ps(a), _mm512_set1_ps(b));
    let (lines, rest) = total.as_chunks_mut::<16>();
    let (part_lines, part_rest) = part.as_chunks::<16>();
    for (total, part) in lines.iter_mut().zip(part_lines) {
        store(_mm512_fmadd_ps(load(total), factor, _mm512_mul_ps(load(part), part_factor)), total);
    }
    for (total, part) in rest.iter_mut().zip(part_rest) {
        *total = total.mul_add(a, part * b);
    }
}
