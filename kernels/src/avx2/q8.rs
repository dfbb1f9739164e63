//! Q8 with `vpmaddubsw`, which needs one unsigned factor: `w·a = |w| · (a with the sign of w)`.
//!
//! `|−128|` is 128 as an unsigned byte. Rounded activations are at least −127, so two products are
//! at most 2 · 128 · 127 = 32512. i16 holds that and no more: each pair is widened at once.

use super::Avx2;
use super::memory::{broadcast, load_bytes, load_half_bytes, prefetch_ahead};
use super::q4::store_all;
use crate::activations::Operand;
use crate::blocks::{Block, Groups, Sums};
use pith_format::Matrix;
use std::arch::x86_64::*;

/// Q8 on AVX2.
pub struct Q8(pub Avx2);

impl Block for Q8 {
    const TOKENS: usize = 4;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { mat_mul_q8_q8(w.block(block_index), x) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn mat_mul_q8_q8<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<1088>().0;
    let x = x.map(|x| Groups::new(x, 2 * tiles.len()));
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        let (lines, scales) = (tile.as_chunks::<32>().0, tile[1024..].as_chunks::<16>().0);
        for half in 0..2 {
            let group = 2 * tile_index + half;
            for side in 0..2 {
                let mut whole = [_mm256_setzero_si256(); N];
                for line in 0..8 {
                    let weights = load_bytes(&lines[16 * half + 2 * line + side]);
                    let magnitudes = _mm256_abs_epi8(weights);
                    for token in 0..N {
                        let codes = x[token].codes[group].as_chunks::<4>().0;
                        let signed = _mm256_sign_epi8(broadcast(&codes[line]), weights);
                        let pairs = _mm256_maddubs_epi16(magnitudes, signed);
                        whole[token] = _mm256_add_epi32(whole[token], _mm256_madd_epi16(pairs, ones));
                    }
                }
                let scale = load_half_bytes(&scales[2 * half + side]);
                for token in 0..N {
                    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x[token].scales[group]));
                    let sum = &mut sums[token][side];
                    *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole[token]), scale, *sum);
                }
            }
        }
    }
    store_all(sums)
}
