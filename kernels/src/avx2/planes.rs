//! Encodings in bit planes with `vpmaddubsw`: sums as many pairs of products in 16 bits as fit.

use super::Avx2;
use super::lines::{Lines, scales};
use super::memory::{broadcast, prefetch_ahead};
use super::q4::store_all;
use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::blocks::{Block, Groups, Sums};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// An encoding on AVX2.
pub struct Planes<E>(Avx2, PhantomData<E>);

impl<E> Planes<E> {
    /// The kernel of an encoding.
    pub fn new(kernel: Avx2) -> Self {
        Self(kernel, PhantomData)
    }
}

impl<E: Lines> Block for Planes<E> {
    const TOKENS: usize = 4;

    fn multiply<const N: usize>(&self, block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { multiply::<E, N>(self.0, block, x) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply<E: Lines, const N: usize>(kernel: Avx2, block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let groups_a_tile = E::COLS / ACTIVATION_GROUP;
    let tiles = block.chunks_exact(E::BYTES);
    let x = x.map(|x| Groups::new(x, groups_a_tile * tiles.len()));
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (tile_index, tile) in tiles.enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        for half in 0..groups_a_tile / 2 {
            let first = tile_index * groups_a_tile;
            add_group::<E, N, 0>(kernel, tile, half, x, first, &mut sums);
            add_group::<E, N, 1>(kernel, tile, half, x, first, &mut sums);
        }
    }
    store_all(sums)
}

/// Adds group `2 · half + ODD` of a tile whose `first` group has this index in `x`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_group<E: Lines, const N: usize, const ODD: usize>(
    kernel: Avx2,
    tile: &[u8],
    half: usize,
    x: [Groups<'_>; N],
    first: usize,
    sums: &mut [[__m256; 2]; N],
) {
    let group = 2 * half + ODD;
    for side in 0..2 {
        let mut whole = [_mm256_setzero_si256(); N];
        for start in (0..ACTIVATION_GROUP / 4).step_by(E::PAIRS) {
            let mut pairs = [_mm256_setzero_si256(); N];
            for four in start..start + E::PAIRS {
                let line = E::line(kernel, tile, group, four, side);
                for (pairs, x) in pairs.iter_mut().zip(x) {
                    let x = broadcast(&x.codes[first + group].as_chunks::<4>().0[four]);
                    *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(line, x));
                }
            }
            for (whole, pairs) in whole.iter_mut().zip(pairs) {
                *whole = _mm256_add_epi32(*whole, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            }
        }
        let scale = scales::<E>(tile, group, side);
        for ((sums, whole), x) in sums.iter_mut().zip(whole).zip(x) {
            let offset = _mm256_set1_epi32(x.sums[first + group] << E::OFFSET_BITS);
            let whole = _mm256_cvtepi32_ps(_mm256_sub_epi32(whole, offset));
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x.scales[first + group]));
            sums[side] = _mm256_fmadd_ps(whole, scale, sums[side]);
        }
    }
}
