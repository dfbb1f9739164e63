//! Q4 and Q4G64 with `vpmaddubsw`: 576 and 1088 bytes a tile, both made of two groups of lines.
//!
//! The nibbles are unsigned codes 0..=15, so `Σ (code − 8)·a = Σ code·a − 8·Σa`. One `vpmaddubsw`
//! gives i16 sums of two products; a group of 32 columns adds eight of them: at most 8 · 2 · 15 ·
//! 128 = 30720, which i16 holds.

use super::Avx2;
use super::memory::{broadcast, load_bytes, load_half_bytes, prefetch_ahead, store_floats};
use crate::activations::Operand;
use crate::blocks::{Block, Groups, Sums};
use pith_format::{Matrix, TILE_ROWS};
use std::arch::x86_64::*;

/// Q4 on AVX2.
pub struct Q4(pub Avx2);

/// Q4G64 on AVX2.
pub struct Q4G64(pub Avx2);

impl Block for Q4 {
    const TOKENS: usize = 4;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { mat_mul_q4_q8(w.block(block_index), x) }
    }
}

impl Block for Q4G64 {
    const TOKENS: usize = 4;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { mat_mul_q4g64_q8(w.block(block_index), x) }
    }
}

/// Both halves of a group of 32 columns share an activation group: one integer sum, one scale.
#[target_feature(enable = "avx2,fma,f16c")]
fn mat_mul_q4_q8<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<576>().0;
    let x = x.map(|x| Groups::new(x, 2 * tiles.len()));
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        // Two half-lines a line, two halves of the rows' scales a group.
        let (lines, scales) = (tile.as_chunks::<32>().0, tile[512..].as_chunks::<16>().0);
        for half in 0..2 {
            let group = 2 * tile_index + half;
            for side in 0..2 {
                let mut pairs = [_mm256_setzero_si256(); N];
                for line in 0..4 {
                    let (low, high) = nibbles(load_bytes(&lines[8 * half + 2 * line + side]));
                    for token in 0..N {
                        let codes = x[token].codes[group].as_chunks::<4>().0;
                        let low = _mm256_maddubs_epi16(low, broadcast(&codes[line]));
                        let high = _mm256_maddubs_epi16(high, broadcast(&codes[4 + line]));
                        pairs[token] = _mm256_add_epi16(pairs[token], _mm256_add_epi16(low, high));
                    }
                }
                let scale = load_half_bytes(&scales[2 * half + side]);
                for token in 0..N {
                    add_group(&mut sums[token][side], pairs[token], scale, x[token], group);
                }
            }
        }
    }
    store_all(sums)
}

/// The halves of a group of 64 columns meet two activation groups: one integer sum and one scale
/// for each.
#[target_feature(enable = "avx2,fma,f16c")]
fn mat_mul_q4g64_q8<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<1088>().0;
    let x = x.map(|x| Groups::new(x, 4 * tiles.len()));
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        let (lines, scales) = (tile.as_chunks::<32>().0, tile[1024..].as_chunks::<16>().0);
        for half in 0..2 {
            let group = 4 * tile_index + 2 * half;
            for side in 0..2 {
                let mut low_pairs = [_mm256_setzero_si256(); N];
                let mut high_pairs = [_mm256_setzero_si256(); N];
                for line in 0..8 {
                    let (low, high) = nibbles(load_bytes(&lines[16 * half + 2 * line + side]));
                    for token in 0..N {
                        let low_x = x[token].codes[group].as_chunks::<4>().0;
                        let high_x = x[token].codes[group + 1].as_chunks::<4>().0;
                        let low = _mm256_maddubs_epi16(low, broadcast(&low_x[line]));
                        let high = _mm256_maddubs_epi16(high, broadcast(&high_x[line]));
                        low_pairs[token] = _mm256_add_epi16(low_pairs[token], low);
                        high_pairs[token] = _mm256_add_epi16(high_pairs[token], high);
                    }
                }
                let scale = load_half_bytes(&scales[2 * half + side]);
                for token in 0..N {
                    let sum = &mut sums[token][side];
                    add_group(sum, low_pairs[token], scale, x[token], group);
                    add_group(sum, high_pairs[token], scale, x[token], group + 1);
                }
            }
        }
    }
    store_all(sums)
}

inlined! {
    /// `sum += (Σ pairs − 8·Σa) · scale · activation scale`
    fn add_group(sum: &mut __m256, pairs: __m256i, scale: __m256, x: Groups<'_>, group: usize) {
        let whole = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        let whole = _mm256_sub_epi32(whole, _mm256_set1_epi32(8 * x.sums[group]));
        let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x.scales[group]));
        *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, *sum);
    }
}

inlined! {
    /// Low and high codes.
    pub fn nibbles(line: __m256i) -> (__m256i, __m256i) {
        let mask = _mm256_set1_epi8(15);
        (_mm256_and_si256(line, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(line), mask))
    }
}

inlined! {
    /// Register sums as floats.
    pub fn store_all<const N: usize>(sums: [[__m256; 2]; N]) -> Sums<N> {
        let mut out = [[0.0; TILE_ROWS]; N];
        for (sums, out) in sums.into_iter().zip(&mut out) {
            for (sums, out) in sums.into_iter().zip(out.as_chunks_mut().0) {
                store_floats(sums, out);
            }
        }
        out
    }
}
