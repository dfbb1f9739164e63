//! Attention of few tokens: reads keys and values in place; each row serves up to six queries.

use super::memory::{fetch_rows, load, load_codes, load_f16, store};
use super::shuffle::{quarter_sums, row_sums};
use super::{Avx512, kv4};
use crate::KvRows;
use crate::attention::{ATTENTION_SPAN, Rows, STEP};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::arch::x86_64::*;

impl Rows for Avx512 {
    fn row_scores(
        self,
        queries: &[f32],
        keys: KvRows<'_>,
        ahead: Option<KvRows<'_>>,
        start: usize,
        out: &mut [[f32; ATTENTION_SPAN]],
    ) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { scores(queries, keys, ahead, start, out) }
    }

    fn row_mix(
        self,
        weights: &mut [[f32; ATTENTION_SPAN]],
        start: usize,
        values: KvRows<'_>,
        ahead: Option<KvRows<'_>>,
        mixed: &mut [f32],
    ) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { mix(weights, start, values, ahead, mixed) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn scores(
    queries: &[f32],
    keys: KvRows<'_>,
    ahead: Option<KvRows<'_>>,
    start: usize,
    out: &mut [[f32; ATTENTION_SPAN]],
) {
    match keys {
        KvRows::F32 { head_dim, rows } => scores_f32(queries, rows, ahead, head_dim, start, out),
        KvRows::F16 { head_dim, rows } => scores_f16(queries, rows, ahead, head_dim, start, out),
        KvRows::Q8 { head_dim, codes, scales } => {
            scores_q8(queries, codes, ahead, head_dim, start, out);
            scale(scales, start, out);
        }
        KvRows::Q4 { head_dim, codes, scales } => {
            kv4::scores(queries, (codes, scales), ahead, head_dim, start, out);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn mix(
    weights: &mut [[f32; ATTENTION_SPAN]],
    start: usize,
    values: KvRows<'_>,
    ahead: Option<KvRows<'_>>,
    mixed: &mut [f32],
) {
    match values {
        KvRows::F32 { head_dim, rows } => mix_f32(weights, start, rows, ahead, head_dim, mixed),
        KvRows::F16 { head_dim, rows } => mix_f16(weights, start, rows, ahead, head_dim, mixed),
        KvRows::Q8 { head_dim, codes, scales } => {
            scale(scales, start, weights);
            mix_q8(weights, start, codes, ahead, head_dim, mixed);
        }
        KvRows::Q4 { head_dim, codes, scales } => {
            kv4::mix(weights, start, (codes, scales), ahead, head_dim, mixed);
        }
    }
}

/// Multiplies every position's score or weight by its row's scale.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn scale(scales: &[f16], start: usize, out: &mut [[f32; ATTENTION_SPAN]]) {
    let mut factors = [0.0; STEP];
    scales.convert_to_f32_slice(&mut factors[..scales.len()]);
    for out in out {
        let out = out[start..].as_chunks_mut::<16>().0;
        let lines = factors.as_chunks::<16>().0.iter().take(scales.len().div_ceil(16));
        for (out, factors) in out.iter_mut().zip(lines) {
            store(_mm512_mul_ps(load(out), load(factors)), out);
        }
    }
}

/// For one number type: scores and mixes of up to six queries.
macro_rules! rows_of {
    ($scores:ident, $scores_of:ident, $products:ident, $add_products:ident, $mix:ident, $mix_of:ident, $mix_lines:ident, $value:ty, $load:ident) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn $scores(
            queries: &[f32],
            rows: &[$value],
            ahead: Option<KvRows<'_>>,
            head_dim: usize,
            start: usize,
            out: &mut [[f32; ATTENTION_SPAN]],
        ) {
            match out.len() {
                6 => $scores_of::<6>(queries, rows, ahead, head_dim, start, out),
                5 => $scores_of::<5>(queries, rows, ahead, head_dim, start, out),
                4 => $scores_of::<4>(queries, rows, ahead, head_dim, start, out),
                3 => $scores_of::<3>(queries, rows, ahead, head_dim, start, out),
                2 => $scores_of::<2>(queries, rows, ahead, head_dim, start, out),
                _ => $scores_of::<1>(queries, rows, ahead, head_dim, start, out),
            }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn $scores_of<const Q: usize>(
            queries: &[f32],
            rows: &[$value],
            ahead: Option<KvRows<'_>>,
            head_dim: usize,
            start: usize,
            out: &mut [[f32; ATTENTION_SPAN]],
        ) {
            let positions = rows.len() / head_dim;
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
                        &rows[(first + 4 * quad + index).min(positions - 1) * head_dim..][..head_dim]
                    };
                    if let Some(ahead) = ahead {
                        fetch_rows(ahead, first + 4 * quad);
                    }
                    let products = $products(queries, [row(0), row(1), row(2), row(3)]);
                    for (quads, products) in quads.iter_mut().zip(products) {
                        quads[quad] = quarter_sums(products);
                    }
                }
                for (quads, out) in quads.into_iter().zip(&mut *out) {
                    store(row_sums(quads), &mut out[start + first..].as_chunks_mut().0[0]);
                }
            }
        }

        /// Products of `Q` queries with four rows, summed lane by lane.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn $products<const Q: usize>(queries: [&[f32]; Q], rows: [&[$value]; 4]) -> [[__m512; 4]; Q] {
            let mut sums = [[_mm512_setzero_ps(); 4]; Q];
            let mut start = 0;
            while start + 64 <= rows[0].len() {
                $add_products::<Q, 4>(&mut sums, queries, rows, start);
                start += 64;
            }
            while start < rows[0].len() {
                $add_products::<Q, 1>(&mut sums, queries, rows, start);
                start += 16;
            }
            sums
        }

        /// Adds the products of `W` lines.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn $add_products<const Q: usize, const W: usize>(
            sums: &mut [[__m512; 4]; Q],
            queries: [&[f32]; Q],
            rows: [&[$value]; 4],
            start: usize,
        ) {
            let [a, b, c, d] = rows;
            let a = a[start..][..16 * W].as_chunks::<16>().0;
            let b = b[start..][..16 * W].as_chunks::<16>().0;
            let c = c[start..][..16 * W].as_chunks::<16>().0;
            let d = d[start..][..16 * W].as_chunks::<16>().0;
            for line in 0..W {
                let keys = [$load(&a[line]), $load(&b[line]), $load(&c[line]), $load(&d[line])];
                for (sums, query) in sums.iter_mut().zip(queries) {
                    let query = load(&query[start..][..16 * W].as_chunks::<16>().0[line]);
                    for (sum, key) in sums.iter_mut().zip(keys) {
                        *sum = _mm512_fmadd_ps(query, key, *sum);
                    }
                }
            }
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn $mix(
            weights: &[[f32; ATTENTION_SPAN]],
            start: usize,
            rows: &[$value],
            ahead: Option<KvRows<'_>>,
            head_dim: usize,
            mixed: &mut [f32],
        ) {
            match weights.len() {
                6 => $mix_of::<6>(weights, start, rows, ahead, head_dim, mixed),
                5 => $mix_of::<5>(weights, start, rows, ahead, head_dim, mixed),
                4 => $mix_of::<4>(weights, start, rows, ahead, head_dim, mixed),
                3 => $mix_of::<3>(weights, start, rows, ahead, head_dim, mixed),
                2 => $mix_of::<2>(weights, start, rows, ahead, head_dim, mixed),
                _ => $mix_of::<1>(weights, start, rows, ahead, head_dim, mixed),
            }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn $mix_of<const Q: usize>(
            weights: &[[f32; ATTENTION_SPAN]],
            start: usize,
            rows: &[$value],
            ahead: Option<KvRows<'_>>,
            head_dim: usize,
            mixed: &mut [f32],
        ) {
            let (mut first, mut ahead) = (0, ahead);
            while first + 64 <= head_dim {
                $mix_lines::<Q, 4>(weights, start, rows, ahead.take(), head_dim, first, mixed);
                first += 64;
            }
            while first < head_dim {
                $mix_lines::<Q, 1>(weights, start, rows, ahead.take(), head_dim, first, mixed);
                first += 16;
            }
        }

        /// Mixes of `Q` queries in `W` lines of dimensions.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn $mix_lines<const Q: usize, const W: usize>(
            weights: &[[f32; ATTENTION_SPAN]],
            start: usize,
            rows: &[$value],
            ahead: Option<KvRows<'_>>,
            head_dim: usize,
            first: usize,
            mixed: &mut [f32],
        ) {
            let positions = rows.len() / head_dim;
            let mut sums = [[_mm512_setzero_ps(); W]; Q];
            for (sums, mixed) in sums.iter_mut().zip(mixed.chunks_exact(head_dim)) {
                let mixed = mixed[first..][..16 * W].as_chunks().0;
                for (sum, mixed) in sums.iter_mut().zip(mixed) {
                    *sum = load(mixed);
                }
            }
            let mut factors = [&[][..]; Q];
            for (factors, weights) in factors.iter_mut().zip(weights) {
                *factors = &weights[start..][..positions];
            }
            let end = first + 16 * W;
            for (position, row) in rows.chunks_exact(head_dim).enumerate() {
                if let (Some(ahead), true) = (ahead, position.is_multiple_of(4)) {
                    fetch_rows(ahead, position);
                }
                let row = row[first..end].as_chunks::<16>().0;
                let mut values = [_mm512_setzero_ps(); W];
                for (value, row) in values.iter_mut().zip(row) {
                    *value = $load(row);
                }
                for (sums, factors) in sums.iter_mut().zip(factors) {
                    let factor = _mm512_set1_ps(factors[position]);
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = _mm512_fmadd_ps(factor, value, *sum);
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
    };
}

rows_of!(
    scores_f32,
    scores_of_f32,
    products_f32,
    add_products_f32,
    mix_f32,
    mix_of_f32,
    mix_lines_f32,
    f32,
    load
);
rows_of!(
    scores_f16,
    scores_of_f16,
    products_f16,
    add_products_f16,
    mix_f16,
    mix_of_f16,
    mix_lines_f16,
    f16,
    load_f16
);
rows_of!(
    scores_q8,
    scores_of_q8,
    products_q8,
    add_products_q8,
    mix_q8,
    mix_of_q8,
    mix_lines_q8,
    i8,
    load_codes
);
