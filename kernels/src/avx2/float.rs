//! F32 and F16: a line is one column of the 16 rows, multiplied with one activation.

use super::Avx2;
use super::memory::{load_float_bytes, load_half_bytes, prefetch_ahead};
use super::q4::store_all;
use crate::activations::Operand;
use crate::blocks::{Block, Sums};
use pith_format::Matrix;
use std::arch::x86_64::*;

/// F32 on AVX2.
pub struct F32(pub Avx2);

/// F16 on AVX2.
pub struct F16(pub Avx2);

impl Block for F32 {
    const TOKENS: usize = 4;
    const ALIKE: usize = 1;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { mat_mul_f32(w.block(block_index), x) }
    }
}

impl Block for F16 {
    const TOKENS: usize = 4;
    const ALIKE: usize = 1;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { mat_mul_f16(w.block(block_index), x) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn mat_mul_f32<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<256>().0;
    let x = x.map(|x| &x.floats.as_chunks::<4>().0[..tiles.len()]);
    let mut sums = [[[_mm256_setzero_ps(); 2]; 4]; N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        let lines = tile.as_chunks::<32>().0;
        for col in 0..4 {
            let weights = [load_float_bytes(&lines[2 * col]), load_float_bytes(&lines[2 * col + 1])];
            add_column(&mut sums, weights, &x, tile_index, col);
        }
    }
    joined(sums)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn mat_mul_f16<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<128>().0;
    let x = x.map(|x| &x.floats.as_chunks::<4>().0[..tiles.len()]);
    let mut sums = [[[_mm256_setzero_ps(); 2]; 4]; N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        let half_lines = tile.as_chunks::<16>().0;
        for col in 0..4 {
            let weights = [load_half_bytes(&half_lines[2 * col]), load_half_bytes(&half_lines[2 * col + 1])];
            add_column(&mut sums, weights, &x, tile_index, col);
        }
    }
    joined(sums)
}

/// One token needs several sums to hide the latency of additions; four tokens hide it by
/// themselves.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_column<const N: usize>(
    sums: &mut [[[__m256; 2]; 4]; N],
    weights: [__m256; 2],
    x: &[&[[f32; 4]]; N],
    tile_index: usize,
    col: usize,
) {
    let way = match N {
        1 => col,
        2 => col % 2,
        _ => 0,
    };
    for token in 0..N {
        let x = _mm256_set1_ps(x[token][tile_index][col]);
        for (sum, weights) in sums[token][way].iter_mut().zip(weights) {
            *sum = _mm256_fmadd_ps(weights, x, *sum);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn joined<const N: usize>(sums: [[[__m256; 2]; 4]; N]) -> Sums<N> {
    let mut whole = [[_mm256_setzero_ps(); 2]; N];
    for (whole, ways) in whole.iter_mut().zip(sums) {
        for (side, whole) in whole.iter_mut().enumerate() {
            let [a, b, c, d] = ways;
            *whole = _mm256_add_ps(_mm256_add_ps(a[side], b[side]), _mm256_add_ps(c[side], d[side]));
        }
    }
    store_all(whole)
}
