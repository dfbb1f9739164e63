//! Q4 and Q4G64 of one token with `vpdpbusd`: 576 and 1088 bytes per tile, both made of two groups of lines.
//!
//! The nibbles are unsigned codes 0..=15, so `Σ (code − 8)·a = Σ code·a − 8·Σa`. High nibbles stay
//! in place (`b & 0xf0` is 16 times the code), and the sum is shifted once. It is at most 240 · 128
//! · 32 in size: exact in i32.

use super::Avx512;
use super::memory::{broadcast, load_halves, load_line, store_all};
use crate::activations::Operand;
use crate::avx2::prefetch_ahead;
use crate::blocks::{Block, Groups, Sums};
use pith_format::{Matrix, TILE_ROWS};
use std::arch::x86_64::*;

/// Q4 on AVX-512.
pub struct Q4(pub Avx512);

/// Q4G64 on AVX-512.
pub struct Q4G64(pub Avx512);

impl Block for Q4 {
    const TOKENS: usize = 1;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        x.map(|x| unsafe { mat_vec_q4_q8(w.block(block_index), x) })
    }
}

impl Block for Q4G64 {
    const TOKENS: usize = 1;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        x.map(|x| unsafe { mat_vec_q4g64_q8(w.block(block_index), x) })
    }
}

/// Both halves of a group of 32 columns share an activation group: one integer sum, one scale.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn mat_vec_q4_q8(block: &[u8], x: Operand<'_>) -> [f32; TILE_ROWS] {
    let tiles = block.as_chunks::<576>().0;
    let x = Groups::new(x, 2 * tiles.len());
    let mut sum = _mm512_setzero_ps();
    for (tile_index, tile) in tiles.iter().enumerate() {
        prefetch_ahead(tile);
        let (lines, scales) = (tile.as_chunks::<64>().0, tile[512..].as_chunks::<32>().0);
        for half in 0..2 {
            let group = 2 * tile_index + half;
            let codes = x.codes[group].as_chunks::<4>().0;
            let mut low = _mm512_set1_epi32(-8 * x.sums[group]);
            let mut high = _mm512_setzero_si512();
            for line in 0..4 {
                let (low_codes, high_codes) = nibbles(load_line(&lines[4 * half + line]));
                low = _mm512_dpbusd_epi32(low, low_codes, broadcast(&codes[line]));
                high = _mm512_dpbusd_epi32(high, high_codes, broadcast(&codes[4 + line]));
            }
            let whole = _mm512_add_epi32(low, _mm512_srai_epi32::<4>(high));
            let scale = _mm512_mul_ps(load_halves(&scales[half]), _mm512_set1_ps(x.scales[group]));
            sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, sum);
        }
    }
    store_all([sum])[0]
}

/// The halves of a group of 64 columns meet two activation groups: one integer sum and one scale
/// for each.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn mat_vec_q4g64_q8(block: &[u8], x: Operand<'_>) -> [f32; TILE_ROWS] {
    let tiles = block.as_chunks::<1088>().0;
    let x = Groups::new(x, 4 * tiles.len());
    let mut sum = _mm512_setzero_ps();
    for (tile_index, tile) in tiles.iter().enumerate() {
        prefetch_ahead(tile);
        let (lines, scales) = (tile.as_chunks::<64>().0, tile[1024..].as_chunks::<32>().0);
        for half in 0..2 {
            let group = 4 * tile_index + 2 * half;
            let (low_x, high_x) = (x.codes[group].as_chunks::<4>().0, x.codes[group + 1].as_chunks::<4>().0);
            let mut low = _mm512_set1_epi32(-8 * x.sums[group]);
            let mut high = _mm512_set1_epi32(-128 * x.sums[group + 1]);
            for line in 0..8 {
                let (low_codes, high_codes) = nibbles(load_line(&lines[8 * half + line]));
                low = _mm512_dpbusd_epi32(low, low_codes, broadcast(&low_x[line]));
                high = _mm512_dpbusd_epi32(high, high_codes, broadcast(&high_x[line]));
            }
            let scale = load_halves(&scales[half]);
            let low_scale = _mm512_mul_ps(scale, _mm512_set1_ps(x.scales[group]));
            let high_scale = _mm512_mul_ps(scale, _mm512_set1_ps(x.scales[group + 1]));
            let high = _mm512_cvtepi32_ps(_mm512_srai_epi32::<4>(high));
            sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), low_scale, sum);
            sum = _mm512_fmadd_ps(high, high_scale, sum);
        }
    }
    store_all([sum])[0]
}

inlined! {
    /// Low codes, and high codes times 16.
    fn nibbles(line: __m512i) -> (__m512i, __m512i) {
        (_mm512_and_si512(line, _mm512_set1_epi8(0x0f)), _mm512_and_si512(line, _mm512_set1_epi8(0xf0u8 as i8)))
    }
}
