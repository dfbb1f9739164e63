//! F32 and F16: a line is one column of the 16 rows, multiplied with one activation.

use super::Avx512;
use super::memory::{load_floats, load_halves, store_all};
use crate::activations::Operand;
use crate::avx2::prefetch_ahead;
use crate::blocks::{Block, Sums};
use pith_format::Matrix;
use std::arch::x86_64::*;

/// F32 on AVX-512.
pub struct F32(pub Avx512);

/// F16 on AVX-512.
pub struct F16(pub Avx512);

impl Block for F32 {
    const TOKENS: usize = 8;
    const ALIKE: usize = 2;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { mat_mul_f32(w.block(block_index), x) }
    }
}

impl Block for F16 {
    const TOKENS: usize = 8;
    const ALIKE: usize = 2;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { mat_mul_f16(w.block(block_index), x) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn mat_mul_f32<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<256>().0;
    let x = x.map(|x| &x.floats.as_chunks::<4>().0[..tiles.len()]);
    let mut sums = [[_mm512_setzero_ps(); 4]; N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        for (col, line) in tile.as_chunks::<64>().0.iter().enumerate() {
            add_column(&mut sums, load_floats(line), &x, tile_index, col);
        }
    }
    joined(sums)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn mat_mul_f16<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<128>().0;
    let x = x.map(|x| &x.floats.as_chunks::<4>().0[..tiles.len()]);
    let mut sums = [[_mm512_setzero_ps(); 4]; N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        for (col, half_line) in tile.as_chunks::<32>().0.iter().enumerate() {
            add_column(&mut sums, load_halves(half_line), &x, tile_index, col);
        }
    }
    joined(sums)
}

/// One token needs four sums to hide the latency of additions; eight tokens hide it by themselves.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_column<const N: usize>(
    sums: &mut [[__m512; 4]; N],
    weights: __m512,
    x: &[&[[f32; 4]]; N],
    tile_index: usize,
    col: usize,
) {
    let way = if N < 4 { col } else { 0 };
    for token in 0..N {
        let x = _mm512_set1_ps(x[token][tile_index][col]);
        sums[token][way] = _mm512_fmadd_ps(weights, x, sums[token][way]);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn joined<const N: usize>(sums: [[__m512; 4]; N]) -> Sums<N> {
    let mut whole = [_mm512_setzero_ps(); N];
    for (whole, [a, b, c, d]) in whole.iter_mut().zip(sums) {
        *whole = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
    }
    store_all(whole)
}
