//! Scores and mix over 4-bit keys and values: codes are looked up in a table of byte levels, which
//! fits a register.

use super::lanes::*;
use crate::{KV4_BYTES, KV4_GROUP, KV4_LEVELS};
use half::f16;
use std::ops::Range;

/// Queries that share one read of a key or value: as many as the registers hold.
pub const QUERIES: usize = 4;

/// Positions whose values stay in the L1 cache while all dimensions pass.
pub const CHUNK: usize = 64;

/// Rows in whole groups.
#[derive(Clone, Copy)]
struct Rows<'a> {
    head_dim: usize,
    /// Groups of a row.
    groups: usize,
    codes: &'a [[u8; KV4_BYTES]],
    scales: &'a [f16],
}

/// One row.
#[derive(Clone, Copy)]
struct Row<'a> {
    codes: &'a [[u8; KV4_BYTES]],
    scales: &'a [f16],
}

impl<'a> Rows<'a> {
    fn new(head_dim: usize, codes: &'a [u8], scales: &'a [f16]) -> Self {
        let (codes, groups) = (codes.as_chunks().0, head_dim.div_ceil(KV4_GROUP));
        assert!(codes.len() == scales.len() && codes.len().is_multiple_of(groups));
        Self { head_dim, groups, codes, scales }
    }

    fn positions(&self) -> usize {
        self.scales.len() / self.groups
    }

    fn row(&self, position: usize) -> Row<'a> {
        let span = position * self.groups..(position + 1) * self.groups;
        Row { codes: &self.codes[span.clone()], scales: &self.scales[span] }
    }
}

/// Levels of a group's first and last 16 codes.
#[inline(always)]
fn levels(codes: &[u8; KV4_BYTES]) -> [I8x16; 2] {
    let (codes, table) = (load_u8(codes), load_i8(&KV4_LEVELS));
    [lookup(table, unsigned(low_nibbles(codes))), lookup(table, unsigned(high_nibbles(codes)))]
}

/// See [`Kernels::scores`](crate::Kernels::scores).
pub fn scores(queries: &[f32], head_dim: usize, codes: &[u8], scales: &[f16], scale: f32, out: &mut [f32]) {
    let keys = Rows::new(head_dim, codes, scales);
    let positions = keys.positions();
    assert_eq!(queries.len() / head_dim * positions, out.len());
    if positions == 0 {
        return;
    }
    for (queries, out) in queries.chunks(QUERIES * head_dim).zip(out.chunks_mut(QUERIES * positions)) {
        match queries.len() / head_dim {
            4 => score_queries::<4>(queries, keys, scale, out),
            3 => score_queries::<3>(queries, keys, scale, out),
            2 => score_queries::<2>(queries, keys, scale, out),
            1 => score_queries::<1>(queries, keys, scale, out),
            _ => {}
        }
    }
}

/// Scores of `Q` queries against all keys, two keys at a time.
#[inline(always)]
fn score_queries<const Q: usize>(queries: &[f32], keys: Rows<'_>, scale: f32, out: &mut [f32]) {
    let (head_dim, positions) = (keys.head_dim, keys.positions());
    let queries: [&[f32]; Q] = std::array::from_fn(|q| &queries[q * head_dim..][..head_dim]);
    // Values behind the last whole group, then zeros.
    let tails = queries.map(|query| {
        let (mut tail, rest) = ([0.0; KV4_GROUP], query.as_chunks::<KV4_GROUP>().1);
        tail[..rest.len()].copy_from_slice(rest);
        tail
    });
    let mut start = 0;
    while start + 2 <= positions {
        let dots = dots(queries, &tails, [keys.row(start), keys.row(start + 1)]);
        for (q, dots) in dots.iter().enumerate() {
            let out = &mut out[q * positions + start..][..2];
            out.iter_mut().zip(dots).for_each(|(out, dot)| *out = scale * dot);
        }
        start += 2;
    }
    if start < positions {
        for (q, [dot]) in dots(queries, &tails, [keys.row(start)]).iter().enumerate() {
            out[q * positions + start] = scale * dot;
        }
    }
}

/// Products of every query with every key.
#[inline(always)]
fn dots<const Q: usize, const P: usize>(
    queries: [&[f32]; Q],
    tails: &[[f32; KV4_GROUP]; Q],
    keys: [Row<'_>; P],
) -> [[f32; P]; Q] {
    let whole = queries.map(|query| query.as_chunks::<KV4_GROUP>().0);
    let mut sums = [[splat(0.0); P]; Q];
    for group in 0..keys[0].codes.len() {
        for (p, key) in keys.iter().enumerate() {
            // Products of a group, to be multiplied by its scale.
            let mut products = [splat(0.0); Q];
            for (half, levels) in levels(&key.codes[group]).into_iter().enumerate() {
                let levels = widen_bytes(levels);
                for q in 0..Q {
                    let query = whole[q].get(group).unwrap_or(&tails[q]);
                    let query = query[16 * half..][..16].as_chunks::<4>().0;
                    for (query, level) in query.iter().zip(levels) {
                        products[q] = mul_add(products[q], load_f32(query), level);
                    }
                }
            }
            let scale = widen_one(key.scales[group]);
            for q in 0..Q {
                sums[q][p] = mul_add_scalar(sums[q][p], products[q], scale);
            }
        }
    }
    sums.map(|sums| sums.map(add_across))
}

/// See [`Kernels::mix`](crate::Kernels::mix).
pub fn mix(weights: &[f32], head_dim: usize, codes: &[u8], scales: &[f16], out: &mut [f32]) {
    let values = Rows::new(head_dim, codes, scales);
    let positions = values.positions();
    assert_eq!(out.len() / head_dim * positions, weights.len());
    out.fill(0.0);
    if positions == 0 {
        return;
    }
    for (weights, out) in weights.chunks(QUERIES * positions).zip(out.chunks_mut(QUERIES * head_dim)) {
        for start in (0..positions).step_by(CHUNK) {
            let chunk = start..positions.min(start + CHUNK);
            match weights.len() / positions {
                4 => mix_queries::<4>(weights, values, chunk, out),
                3 => mix_queries::<3>(weights, values, chunk, out),
                2 => mix_queries::<2>(weights, values, chunk, out),
                1 => mix_queries::<1>(weights, values, chunk, out),
                _ => {}
            }
        }
    }
}

/// Adds the values of a chunk of positions for `Q` queries.
#[inline(always)]
fn mix_queries<const Q: usize>(weights: &[f32], values: Rows<'_>, chunk: Range<usize>, out: &mut [f32]) {
    let (head_dim, positions) = (values.head_dim, values.positions());
    for group in 0..values.groups {
        let mut scaled = [[0.0f32; Q]; CHUNK];
        for (scaled, position) in scaled.iter_mut().zip(chunk.clone()) {
            let scale = widen_one(values.row(position).scales[group]);
            *scaled = std::array::from_fn(|q| weights[q * positions + position] * scale);
        }
        for half in 0..2 {
            let start = KV4_GROUP * group + KV4_BYTES * half;
            if start >= head_dim {
                break;
            }
            let mut sums = [[splat(0.0); 4]; Q];
            for (position, weights) in chunk.clone().zip(&scaled) {
                let levels = widen_bytes(levels(&values.row(position).codes[group])[half]);
                for (sums, &weight) in sums.iter_mut().zip(weights) {
                    for (sum, level) in sums.iter_mut().zip(levels) {
                        *sum = mul_add_scalar(*sum, level, weight);
                    }
                }
            }
            let end = head_dim.min(start + KV4_BYTES);
            for (out, sums) in out.chunks_exact_mut(head_dim).zip(sums) {
                let mut all = [0.0; KV4_BYTES];
                for (all, sum) in all.as_chunks_mut().0.iter_mut().zip(sums) {
                    store_f32(all, sum);
                }
                out[start..end].iter_mut().zip(all).for_each(|(out, sum)| *out += sum);
            }
        }
    }
}
