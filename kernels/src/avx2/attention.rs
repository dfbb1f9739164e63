//! Scores and mixes over a cache of keys or values: one read of a row for up to four query heads.

use super::memory::{load_codes, load_floats, load_halves, padded, store_floats, sum_lanes};
use crate::KvRows;
use half::f16;
use std::arch::x86_64::*;

/// Rows of values passed over together: 64 rows of 128 f16 are half of a first-level cache.
const ROWS: usize = 64;

/// See [`Kernels::scores`](crate::Kernels::scores).
#[target_feature(enable = "avx2,fma,f16c")]
pub fn scores(queries: &[f32], keys: KvRows<'_>, scale: f32, out: &mut [f32]) {
    let (head_dim, positions) = (keys.head_dim(), keys.positions());
    assert!(queries.len().is_multiple_of(head_dim));
    assert_eq!(queries.len() / head_dim * positions, out.len());
    if positions == 0 {
        return;
    }
    for (queries, out) in queries.chunks(4 * head_dim).zip(out.chunks_mut(4 * positions)) {
        match queries.len() / head_dim {
            4 => scores_of::<4>(queries, keys, scale, out),
            3 => scores_of::<3>(queries, keys, scale, out),
            2 => scores_of::<2>(queries, keys, scale, out),
            _ => scores_of::<1>(queries, keys, scale, out),
        }
    }
}

/// The scores of `N` query heads.
#[target_feature(enable = "avx2,fma,f16c")]
fn scores_of<const N: usize>(queries: &[f32], keys: KvRows<'_>, scale: f32, out: &mut [f32]) {
    let (head_dim, positions) = (keys.head_dim(), keys.positions());
    let mut heads = [&[][..]; N];
    for (head, query) in heads.iter_mut().zip(queries.chunks_exact(head_dim)) {
        *head = query;
    }
    let mut put = |position: usize, dots: [__m256; N], scale: f32| {
        for (head, dot) in dots.into_iter().enumerate() {
            out[head * positions + position] = scale * sum_lanes(dot);
        }
    };
    match keys {
        KvRows::F32 { rows, .. } => {
            for (position, row) in rows.chunks_exact(head_dim).enumerate() {
                put(position, dots_f32(heads, row), scale);
            }
        }
        KvRows::F16 { rows, .. } => {
            for (position, row) in rows.chunks_exact(head_dim).enumerate() {
                put(position, dots_f16(heads, row), scale);
            }
        }
        KvRows::Q8 { codes, scales, .. } => {
            for ((position, row), row_scale) in codes.chunks_exact(head_dim).enumerate().zip(scales) {
                put(position, dots_q8(heads, row), scale * row_scale.to_f32());
            }
        }
    }
}

/// `[Σ_d query[d] · row[d]; N]`, still spread over the lanes, for one type of row.
macro_rules! dots {
    ($name:ident, $value:ty, $zero:expr, $load:ident) => {
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $name<const N: usize>(queries: [&[f32]; N], row: &[$value]) -> [__m256; N] {
            let (eights, rest) = row.as_chunks::<8>();
            let mut sums = [_mm256_setzero_ps(); N];
            for (index, row) in eights.iter().enumerate() {
                let row = $load(row);
                for (sum, query) in sums.iter_mut().zip(queries) {
                    *sum = _mm256_fmadd_ps(load_floats(&query.as_chunks().0[index]), row, *sum);
                }
            }
            if !rest.is_empty() {
                let row = $load(&padded(rest, $zero));
                for (sum, query) in sums.iter_mut().zip(queries) {
                    *sum = _mm256_fmadd_ps(load_floats(&padded(query.as_chunks::<8>().1, 0.0)), row, *sum);
                }
            }
            sums
        }
    };
}

dots!(dots_f32, f32, 0.0, load_floats);
dots!(dots_f16, f16, f16::ZERO, load_halves);
dots!(dots_q8, i8, 0, load_codes);

/// See [`Kernels::mix`](crate::Kernels::mix).
#[target_feature(enable = "avx2,fma,f16c")]
pub fn mix(weights: &[f32], values: KvRows<'_>, out: &mut [f32]) {
    let (head_dim, positions) = (values.head_dim(), values.positions());
    assert!(out.len().is_multiple_of(head_dim));
    assert_eq!(out.len() / head_dim * positions, weights.len());
    out.fill(0.0);
    if positions == 0 {
        return;
    }
    for (weights, out) in weights.chunks(4 * positions).zip(out.chunks_mut(4 * head_dim)) {
        match out.len() / head_dim {
            4 => mix_of::<4>(weights, values, out),
            3 => mix_of::<3>(weights, values, out),
            2 => mix_of::<2>(weights, values, out),
            _ => mix_of::<1>(weights, values, out),
        }
    }
}

/// The mixes of `N` query heads, added to `out`.
#[target_feature(enable = "avx2,fma,f16c")]
fn mix_of<const N: usize>(weights: &[f32], values: KvRows<'_>, out: &mut [f32]) {
    let (head_dim, positions) = (values.head_dim(), values.positions());
    let mut factors = [[0.0f32; N]; ROWS];
    for start in (0..positions).step_by(ROWS) {
        let count = ROWS.min(positions - start);
        let factors = &mut factors[..count];
        for (position, factors) in factors.iter_mut().enumerate() {
            for (head, factor) in factors.iter_mut().enumerate() {
                *factor = weights[head * positions + start + position];
            }
        }
        let rows = start * head_dim..(start + count) * head_dim;
        match values {
            KvRows::F32 { rows: all, .. } => mix_f32(factors, &all[rows], head_dim, out),
            KvRows::F16 { rows: all, .. } => mix_f16(factors, &all[rows], head_dim, out),
            KvRows::Q8 { codes, scales, .. } => {
                // A row's scale joins its weights.
                for (factors, scale) in factors.iter_mut().zip(&scales[start..start + count]) {
                    *factors = factors.map(|factor| factor * scale.to_f32());
                }
                mix_q8(factors, &codes[rows], head_dim, out);
            }
        }
    }
}

/// `out[h,d] += Σ_p factors[p][h] · rows[p,d]` for one type of row. Four sums at least hide the latency of the addition:
/// with fewer heads, positions take turns.
macro_rules! mix {
    ($name:ident, $value:ty, $zero:expr, $load:ident) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $name<const N: usize>(factors: &[[f32; N]], rows: &[$value], head_dim: usize, out: &mut [f32]) {
            let ways = const { 4 / N };
            for first in (0..head_dim).step_by(8) {
                let mut sums = [[_mm256_setzero_ps(); N]; 4];
                for (rows, factors) in rows.chunks(ways * head_dim).zip(factors.chunks(ways)) {
                    for ((row, factors), sums) in rows.chunks_exact(head_dim).zip(factors).zip(&mut sums) {
                        let value = match row[first..].first_chunk() {
                            Some(eight) => $load(eight),
                            None => $load(&padded(&row[first..], $zero)),
                        };
                        for (sum, &factor) in sums.iter_mut().zip(factors) {
                            *sum = _mm256_fmadd_ps(_mm256_set1_ps(factor), value, *sum);
                        }
                    }
                }
                let [a, b, c, d] = sums;
                for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                    let sum = _mm256_add_ps(_mm256_add_ps(a[head], b[head]), _mm256_add_ps(c[head], d[head]));
                    let mut all = [0.0; 8];
                    store_floats(sum, &mut all);
                    for (out, sum) in out[first..].iter_mut().zip(all) {
                        *out += sum;
                    }
                }
            }
        }
    };
}

mix!(mix_f32, f32, 0.0, load_floats);
mix!(mix_f16, f16, f16::ZERO, load_halves);
mix!(mix_q8, i8, 0, load_codes);
