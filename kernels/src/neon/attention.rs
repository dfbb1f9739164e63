//! Scores and mix: queries against the keys and values of one head, four queries per read.

use super::kv4::{self, CHUNK, QUERIES};
use super::lanes::*;
use crate::KvRows;
use half::f16;

/// See [`Kernels::scores`](crate::Kernels::scores).
pub fn scores(queries: &[f32], keys: KvRows<'_>, scale: f32, out: &mut [f32]) {
    match keys {
        KvRows::F32 { head_dim, rows } => score(queries, &Rows { head_dim, rows, scales: &[] }, scale, out),
        KvRows::F16 { head_dim, rows } => score(queries, &Rows { head_dim, rows, scales: &[] }, scale, out),
        KvRows::Q8 { head_dim, codes, scales } => {
            score(queries, &Rows { head_dim, rows: codes, scales }, scale, out)
        }
        KvRows::Q4 { head_dim, codes, scales } => kv4::scores(queries, head_dim, codes, scales, scale, out),
    }
}

/// See [`Kernels::mix`](crate::Kernels::mix).
pub fn mix(weights: &[f32], values: KvRows<'_>, out: &mut [f32]) {
    match values {
        KvRows::F32 { head_dim, rows } => blend(weights, &Rows { head_dim, rows, scales: &[] }, out),
        KvRows::F16 { head_dim, rows } => blend(weights, &Rows { head_dim, rows, scales: &[] }, out),
        KvRows::Q8 { head_dim, codes, scales } => {
            blend(weights, &Rows { head_dim, rows: codes, scales }, out)
        }
        KvRows::Q4 { head_dim, codes, scales } => kv4::mix(weights, head_dim, codes, scales, out),
    }
}

/// A number type of the cache.
trait Value: Copy {
    /// Widens eight values.
    fn widen(from: &[Self; 8]) -> [F32x4; 2];
    /// Converts one value.
    fn to_f32(self) -> f32;
}

impl Value for f32 {
    #[inline(always)]
    fn widen(from: &[f32; 8]) -> [F32x4; 2] {
        let (quads, _) = from.as_chunks::<4>();
        [load_f32(&quads[0]), load_f32(&quads[1])]
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Value for f16 {
    #[inline(always)]
    fn widen(from: &[f16; 8]) -> [F32x4; 2] {
        widen_f16(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        widen_one(self)
    }
}

impl Value for i8 {
    #[inline(always)]
    fn widen(from: &[i8; 8]) -> [F32x4; 2] {
        widen_i8(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
}

/// `positions × head_dim`; without scales, every scale is 1.
struct Rows<'a, V> {
    head_dim: usize,
    rows: &'a [V],
    scales: &'a [f16],
}

impl<'a, V> Rows<'a, V> {
    fn positions(&self) -> usize {
        let positions = self.rows.len() / self.head_dim;
        assert!(self.scales.is_empty() || self.scales.len() == positions);
        positions
    }

    fn row(&self, position: usize) -> &'a [V] {
        &self.rows[position * self.head_dim..][..self.head_dim]
    }

    fn scale(&self, position: usize) -> f32 {
        if self.scales.is_empty() { 1.0 } else { widen_one(self.scales[position]) }
    }
}

fn score<V: Value>(queries: &[f32], keys: &Rows<'_, V>, scale: f32, out: &mut [f32]) {
    let positions = keys.positions();
    assert_eq!(queries.len() / keys.head_dim * positions, out.len());
    if positions == 0 {
        return;
    }
    for (queries, out) in queries.chunks(QUERIES * keys.head_dim).zip(out.chunks_mut(QUERIES * positions)) {
        match queries.len() / keys.head_dim {
            4 => score_queries::<V, 4, 4>(queries, keys, scale, out),
            3 => score_queries::<V, 3, 4>(queries, keys, scale, out),
            2 => score_queries::<V, 2, 4>(queries, keys, scale, out),
            // A single query takes more positions at once, so that enough additions overlap.
            1 => score_queries::<V, 1, 8>(queries, keys, scale, out),
            _ => {}
        }
    }
}

/// Scores of `Q` queries against all keys, `P` keys at a time.
#[inline(always)]
fn score_queries<V: Value, const Q: usize, const P: usize>(
    queries: &[f32],
    keys: &Rows<'_, V>,
    scale: f32,
    out: &mut [f32],
) {
    let positions = keys.positions();
    let queries: [&[f32]; Q] = std::array::from_fn(|q| &queries[q * keys.head_dim..][..keys.head_dim]);
    let mut start = 0;
    while start + P <= positions {
        let dots = dots::<V, Q, P>(queries, std::array::from_fn(|p| keys.row(start + p)));
        let scales: [f32; P] = std::array::from_fn(|p| scale * keys.scale(start + p));
        for (q, dots) in dots.iter().enumerate() {
            let out = &mut out[q * positions + start..][..P];
            for ((out, dot), scale) in out.iter_mut().zip(dots).zip(scales) {
                *out = scale * dot;
            }
        }
        start += P;
    }
    for position in start..positions {
        let dots = dots::<V, Q, 1>(queries, [keys.row(position)]);
        for (q, [dot]) in dots.iter().enumerate() {
            out[q * positions + position] = scale * keys.scale(position) * dot;
        }
    }
}

/// Products of every query with every key.
#[inline(always)]
fn dots<V: Value, const Q: usize, const P: usize>(queries: [&[f32]; Q], keys: [&[V]; P]) -> [[f32; P]; Q] {
    let head_dim = keys[0].len();
    let count = head_dim / 8;
    let query_lanes = queries.map(|query| &query.as_chunks::<8>().0[..count]);
    let key_lanes = keys.map(|key| &key.as_chunks::<8>().0[..count]);
    let mut sums = [[splat(0.0); P]; Q];
    for i in 0..count {
        let keys = key_lanes.map(|key| V::widen(&key[i]));
        for (sums, query) in sums.iter_mut().zip(query_lanes) {
            let query = f32::widen(&query[i]);
            for (sum, key) in sums.iter_mut().zip(keys) {
                *sum = mul_add(mul_add(*sum, query[0], key[0]), query[1], key[1]);
            }
        }
    }
    let mut dots = sums.map(|sums| sums.map(add_across));
    for (dots, query) in dots.iter_mut().zip(queries) {
        for (dot, key) in dots.iter_mut().zip(keys) {
            for dim in 8 * count..head_dim {
                *dot += query[dim] * key[dim].to_f32();
            }
        }
    }
    dots
}

fn blend<V: Value>(weights: &[f32], values: &Rows<'_, V>, out: &mut [f32]) {
    let positions = values.positions();
    assert_eq!(out.len() / values.head_dim * positions, weights.len());
    out.fill(0.0);
    if positions == 0 {
        return;
    }
    for (weights, out) in weights.chunks(QUERIES * positions).zip(out.chunks_mut(QUERIES * values.head_dim)) {
        for start in (0..positions).step_by(CHUNK) {
            let chunk = start..positions.min(start + CHUNK);
            match weights.len() / positions {
                4 => blend_queries::<V, 4>(weights, values, chunk, out),
                3 => blend_queries::<V, 3>(weights, values, chunk, out),
                2 => blend_queries::<V, 2>(weights, values, chunk, out),
                1 => blend_queries::<V, 1>(weights, values, chunk, out),
                _ => {}
            }
        }
    }
}

/// Adds the values of a chunk of positions for `Q` queries.
#[inline(always)]
fn blend_queries<V: Value, const Q: usize>(
    weights: &[f32],
    values: &Rows<'_, V>,
    chunk: std::ops::Range<usize>,
    out: &mut [f32],
) {
    let (head_dim, positions) = (values.head_dim, values.positions());
    let rows = &values.rows[chunk.start * head_dim..chunk.end * head_dim];
    let mut scaled = [[0.0f32; Q]; CHUNK];
    for (scaled, position) in scaled.iter_mut().zip(chunk) {
        let scale = values.scale(position);
        *scaled = std::array::from_fn(|q| weights[q * positions + position] * scale);
    }
    let lanes_end = head_dim / 16 * 16;
    for dim in (0..lanes_end).step_by(16) {
        let mut sums = [[splat(0.0); 4]; Q];
        for (row, weights) in rows.chunks_exact(head_dim).zip(&scaled) {
            let (eights, _) = row[dim..dim + 16].as_chunks::<8>();
            let ([a, b], [c, d]) = (V::widen(&eights[0]), V::widen(&eights[1]));
            for (sums, &weight) in sums.iter_mut().zip(weights) {
                for (sum, value) in sums.iter_mut().zip([a, b, c, d]) {
                    *sum = mul_add_scalar(*sum, value, weight);
                }
            }
        }
        for (out, sums) in out.chunks_exact_mut(head_dim).zip(sums) {
            let (quads, _) = out[dim..dim + 16].as_chunks_mut::<4>();
            for (out, sum) in quads.iter_mut().zip(sums) {
                let total = add(load_f32(out), sum);
                store_f32(out, total);
            }
        }
    }
    for (out, q) in out.chunks_exact_mut(head_dim).zip(0..Q) {
        for (row, weights) in rows.chunks_exact(head_dim).zip(&scaled) {
            for (out, value) in out[lanes_end..].iter_mut().zip(&row[lanes_end..]) {
                *out += weights[q] * value.to_f32();
            }
        }
    }
}
