//! Keys and values in 4 bits. One register holds the levels, multiplied by a group's scale
//! beforehand, and each lane's code selects its level: a group of 32 values takes two `vpermps`.
//! Any 16 levels cost the same.

use super::memory::{fetch_rows, load, load_rows, store};
use super::shuffle::{quarter_sums, row_sums, transposed};
use crate::attention::{ATTENTION_SPAN, STEP};
use crate::avx2::memory::widen_half;
use crate::kv::KV4_FLOATS;
use crate::{KV4_BYTES, KV4_GROUP, KvRows};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::arch::x86_64::*;

/// Most groups of a row that is read in place.
const MOST_GROUPS: usize = 8;

/// Whether rows of this width are read in place.
pub fn in_rows(head_dim: usize) -> bool {
    head_dim <= MOST_GROUPS * KV4_GROUP
}

/// Values of a group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn group(codes: &[u8; KV4_BYTES], scale: f32) -> [__m512; 2] {
    let codes = load_rows(codes);
    let levels = _mm512_mul_ps(load(&KV4_FLOATS), _mm512_set1_ps(scale));
    // The permutation reads only four bits.
    [_mm512_permutexvar_ps(codes, levels), _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(codes), levels)]
}

/// Transposes up to 16 rows to 16 lanes per dimension.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn transpose(codes: &[u8], scales: &[f16], start: usize, out: &mut [[f32; STEP]]) {
    let groups = out.len().div_ceil(KV4_GROUP);
    let rows = || codes.chunks_exact(KV4_BYTES * groups).zip(scales.chunks_exact(groups));
    for (index, out) in out.chunks_mut(KV4_GROUP).enumerate() {
        let mut lines = [[_mm512_setzero_ps(); 16]; 2];
        for (row, (codes, scales)) in rows().enumerate() {
            let [low, high] = group(&codes.as_chunks().0[index], widen_half(scales[index]));
            (lines[0][row], lines[1][row]) = (low, high);
        }
        for (lines, out) in lines.into_iter().zip(out.chunks_mut(16)) {
            for (line, out) in transposed(lines).into_iter().zip(out) {
                store(line, &mut out.as_chunks_mut().0[start / 16]);
            }
        }
    }
}

/// Widens a row to a padded one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn widen(codes: &[u8], scales: &[f16], out: &mut [f32]) {
    let groups = codes.as_chunks().0.iter().zip(scales);
    for ((codes, &scale), out) in groups.zip(out.chunks_mut(KV4_GROUP)) {
        let lines = out.as_chunks_mut().0;
        for (values, out) in group(codes, widen_half(scale)).into_iter().zip(lines) {
            store(values, out);
        }
    }
}

/// See [`Rows::row_scores`](crate::attention::Rows::row_scores). `rows` are the codes and scales of
/// the keys.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn scores(
    queries: &[f32],
    rows: (&[u8], &[f16]),
    ahead: Option<KvRows<'_>>,
    head_dim: usize,
    start: usize,
    out: &mut [[f32; ATTENTION_SPAN]],
) {
    match out.len() {
        6 => scores_of::<6>(queries, rows, ahead, head_dim, start, out),
        5 => scores_of::<5>(queries, rows, ahead, head_dim, start, out),
        4 => scores_of::<4>(queries, rows, ahead, head_dim, start, out),
        3 => scores_of::<3>(queries, rows, ahead, head_dim, start, out),
        2 => scores_of::<2>(queries, rows, ahead, head_dim, start, out),
        _ => scores_of::<1>(queries, rows, ahead, head_dim, start, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn scores_of<const Q: usize>(
    queries: &[f32],
    (codes, scales): (&[u8], &[f16]),
    ahead: Option<KvRows<'_>>,
    head_dim: usize,
    start: usize,
    out: &mut [[f32; ATTENTION_SPAN]],
) {
    let groups = head_dim.div_ceil(KV4_GROUP);
    let (codes, positions) = (codes.as_chunks().0, scales.len() / groups);
    let mut factors = [0.0; MOST_GROUPS * STEP];
    scales.convert_to_f32_slice(&mut factors[..scales.len()]);
    let mut all = [&[][..]; Q];
    for (all, query) in all.iter_mut().zip(queries.chunks_exact(head_dim)) {
        *all = query;
    }
    let queries = all;
    for first in (0..positions).step_by(16) {
        let mut quads = [[_mm512_setzero_ps(); 4]; Q];
        for quad in 0..4 {
            // Rows behind the last repeat it; their scores are unspecified.
            let row = |index: usize| {
                let first = (first + 4 * quad + index).min(positions - 1) * groups;
                (&codes[first..][..groups], &factors[first..][..groups])
            };
            if let Some(ahead) = ahead {
                fetch_rows(ahead, first + 4 * quad);
            }
            let products = products(queries, [row(0), row(1), row(2), row(3)], head_dim);
            for (quads, products) in quads.iter_mut().zip(products) {
                quads[quad] = quarter_sums(products);
            }
        }
        for (quads, out) in quads.into_iter().zip(&mut *out) {
            store(row_sums(quads), &mut out[start + first..].as_chunks_mut().0[0]);
        }
    }
}

/// Codes of a row, group after group, and their scales.
type Row<'a> = (&'a [[u8; KV4_BYTES]], &'a [f32]);

/// Products of `Q` queries with four rows, summed lane by lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn products<const Q: usize>(queries: [&[f32]; Q], rows: [Row<'_>; 4], head_dim: usize) -> [[__m512; 4]; Q] {
    let mut sums = [[_mm512_setzero_ps(); 4]; Q];
    let whole = head_dim / KV4_GROUP;
    for index in 0..whole {
        for (row, (codes, factors)) in rows.into_iter().enumerate() {
            let [low, high] = group(&codes[index], factors[index]);
            for (sums, query) in sums.iter_mut().zip(queries) {
                let query = query[KV4_GROUP * index..][..KV4_GROUP].as_chunks().0;
                sums[row] = _mm512_fmadd_ps(load(&query[0]), low, sums[row]);
                sums[row] = _mm512_fmadd_ps(load(&query[1]), high, sums[row]);
            }
        }
    }
    // Row lengths are multiples of 16: the last group may be half a group.
    if KV4_GROUP * whole < head_dim {
        for (row, (codes, factors)) in rows.into_iter().enumerate() {
            let [low, _] = group(&codes[whole], factors[whole]);
            for (sums, query) in sums.iter_mut().zip(queries) {
                let query = &query[KV4_GROUP * whole..].as_chunks().0[0];
                sums[row] = _mm512_fmadd_ps(load(query), low, sums[row]);
            }
        }
    }
    sums
}

/// See [`Rows::row_mix`](crate::attention::Rows::row_mix). `rows` are the codes and scales of the
/// values.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn mix(
    weights: &[[f32; ATTENTION_SPAN]],
    start: usize,
    rows: (&[u8], &[f16]),
    ahead: Option<KvRows<'_>>,
    head_dim: usize,
    mixed: &mut [f32],
) {
    match weights.len() {
        6 => mix_of::<6>(weights, start, rows, ahead, head_dim, mixed),
        5 => mix_of::<5>(weights, start, rows, ahead, head_dim, mixed),
        4 => mix_of::<4>(weights, start, rows, ahead, head_dim, mixed),
        3 => mix_of::<3>(weights, start, rows, ahead, head_dim, mixed),
        2 => mix_of::<2>(weights, start, rows, ahead, head_dim, mixed),
        _ => mix_of::<1>(weights, start, rows, ahead, head_dim, mixed),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn mix_of<const Q: usize>(
    weights: &[[f32; ATTENTION_SPAN]],
    start: usize,
    (codes, scales): (&[u8], &[f16]),
    mut ahead: Option<KvRows<'_>>,
    head_dim: usize,
    mixed: &mut [f32],
) {
    let mut factors = [0.0; MOST_GROUPS * STEP];
    scales.convert_to_f32_slice(&mut factors[..scales.len()]);
    let rows = (codes.as_chunks().0, &factors[..scales.len()]);
    let mut first = 0;
    while first + 64 <= head_dim {
        mix_lines::<Q, 4>(weights, start, rows, ahead.take(), head_dim, first, mixed);
        first += 64;
    }
    if first + 32 <= head_dim {
        mix_lines::<Q, 2>(weights, start, rows, ahead.take(), head_dim, first, mixed);
        first += 32;
    }
    if first < head_dim {
        mix_lines::<Q, 1>(weights, start, rows, ahead.take(), head_dim, first, mixed);
    }
}

/// Mixes of `Q` queries in `W` lines of dimensions, from the group of dimension `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn mix_lines<const Q: usize, const W: usize>(
    weights: &[[f32; ATTENTION_SPAN]],
    start: usize,
    (codes, factors): Row<'_>,
    ahead: Option<KvRows<'_>>,
    head_dim: usize,
    first: usize,
    mixed: &mut [f32],
) {
    let groups = head_dim.div_ceil(KV4_GROUP);
    let positions = factors.len() / groups;
    let mut sums = [[_mm512_setzero_ps(); W]; Q];
    for (sums, mixed) in sums.iter_mut().zip(mixed.chunks_exact(head_dim)) {
        let mixed = mixed[first..][..16 * W].as_chunks().0;
        for (sum, mixed) in sums.iter_mut().zip(mixed) {
            *sum = load(mixed);
        }
    }
    let mut shares = [&[][..]; Q];
    for (shares, weights) in shares.iter_mut().zip(weights) {
        *shares = &weights[start..][..positions];
    }
    let span = first / KV4_GROUP..first / KV4_GROUP + W.div_ceil(2);
    let rows = codes.chunks_exact(groups).zip(factors.chunks_exact(groups));
    for (position, (codes, factors)) in rows.enumerate() {
        if let (Some(ahead), true) = (ahead, position.is_multiple_of(4)) {
            fetch_rows(ahead, position);
        }
        let mut values = [_mm512_setzero_ps(); W];
        let row = codes[span.clone()].iter().zip(&factors[span.clone()]);
        for (values, (codes, &factor)) in values.chunks_mut(2).zip(row) {
            for (value, half) in values.iter_mut().zip(group(codes, factor)) {
                *value = half;
            }
        }
        for (sums, shares) in sums.iter_mut().zip(shares) {
            let share = _mm512_set1_ps(shares[position]);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = _mm512_fmadd_ps(share, value, *sum);
            }
        }
    }
    for (sums, mixed) in sums.into_iter().zip(mixed.chunks_exact_mut(head_dim)) {
        let mixed = mixed[first..][..16 * W].as_chunks_mut().0;
        for (sum, mixed) in sums.into_iter().zip(mixed) {
            store(sum, mixed);
        }
    }
}
