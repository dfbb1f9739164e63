//! Encodings in bit planes with `vpmaddubsw`: sums as many pairs of products in 16 bits as fit.

use super::Avx2;
use super::lines::{Lines, minima, prefetch_run, scales};
use super::memory::broadcast;
use super::q4::store_all;
use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::blocks::{Block, Groups, Sums};
use crate::tiles::Tiles;
use pith_format::Matrix;
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

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { multiply::<E, N>(self.0, E::Bytes::of_block(w, block_index), x) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply<E: Lines, const N: usize>(kernel: Avx2, block: E::Bytes<'_>, x: [Operand<'_>; N]) -> Sums<N> {
    let groups_a_tile = E::COLS / ACTIVATION_GROUP;
    let tiles = block.each(E::TILE_BYTES);
    let x = x.map(|x| Groups::new(x, groups_a_tile * tiles.len()));
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (tile_index, tile) in tiles.enumerate() {
        for run in 0..groups_a_tile / 2 {
            if N == 1 {
                prefetch_run(tile.streams(), run, groups_a_tile / 2);
            }
            let first = tile_index * groups_a_tile;
            add_group::<E, N, 0>(kernel, tile, run, x, first, &mut sums);
            add_group::<E, N, 1>(kernel, tile, run, x, first, &mut sums);
        }
    }
    store_all(sums)
}

inlined! {
    /// Adds group `2 · run + ODD` of a tile whose `first` group has this index in `x`.
    fn add_group<E: Lines, const N: usize, const ODD: usize>(
        kernel: Avx2,
        tile: E::Bytes<'_>,
        run: usize,
        x: [Groups<'_>; N],
        first: usize,
        sums: &mut [[__m256; 2]; N],
    ) {
        let group = 2 * run + ODD;
        for side in 0..2 {
            if E::IS_SPLIT {
                add_part::<E, N>(kernel, tile, (group, 0, side), x, first, sums);
                add_part::<E, N>(kernel, tile, (group, 1, side), x, first, sums);
            } else {
                add_part::<E, N>(kernel, tile, (group, 0, side), x, first, sums);
            }
        }
    }
}

inlined! {
    /// Adds a part of a group, for the rows of one side: a half where halves have their own scales,
    /// otherwise all of it.
    fn add_part<E: Lines, const N: usize>(
        kernel: Avx2,
        tile: E::Bytes<'_>,
        (group, half, side): (usize, usize, usize),
        x: [Groups<'_>; N],
        first: usize,
        sums: &mut [[__m256; 2]; N],
    ) {
        let ones = _mm256_set1_epi16(1);
        let fours = E::SCALE_COLS / 4;
        // Codes of 8 bits are multiplied as levels, a pair at a time.
        let step = if E::PAIRS < fours { if E::PAIRS == 0 { 1 } else { E::PAIRS } } else { fours };
        let mut whole = [_mm256_setzero_si256(); N];
        let codes = x.map(|x| x.codes[first + group].as_chunks::<4>().0);
        for start in (half * fours..(half + 1) * fours).step_by(step) {
            let mut pairs = [_mm256_setzero_si256(); N];
            for four in start..start + step {
                let line = E::line(kernel, tile, group, four, side);
                for (pairs, codes) in pairs.iter_mut().zip(codes) {
                    let x = broadcast(&codes[four]);
                    let products = match E::PAIRS {
                        0 => {
                            let levels = _mm256_sub_epi8(line, _mm256_set1_epi8(E::OFFSET as i8));
                            _mm256_maddubs_epi16(_mm256_abs_epi8(levels), _mm256_sign_epi8(x, levels))
                        }
                        _ => _mm256_maddubs_epi16(line, x),
                    };
                    *pairs = _mm256_add_epi16(*pairs, products);
                }
            }
            for (whole, pairs) in whole.iter_mut().zip(pairs) {
                *whole = _mm256_add_epi32(*whole, _mm256_madd_epi16(pairs, ones));
            }
        }
        let scale = scales::<E>(tile.first(), group, half, side);
        let minima = minima::<E>(tile.first(), group, half, side);
        for ((sums, whole), x) in sums.iter_mut().zip(whole).zip(x) {
            let x_sum = x.part_sum::<E>(first + group, half);
            let offset = if E::PAIRS == 0 { 0 } else { x_sum * E::OFFSET };
            let whole = _mm256_cvtepi32_ps(_mm256_sub_epi32(whole, _mm256_set1_epi32(offset)));
            let x_scale = x.scales[first + group];
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x_scale));
            sums[side] = _mm256_fmadd_ps(whole, scale, sums[side]);
            if let Some(minima) = minima {
                sums[side] = _mm256_fmadd_ps(minima, _mm256_set1_ps(x_scale * x_sum as f32), sums[side]);
            }
        }
    }
}
