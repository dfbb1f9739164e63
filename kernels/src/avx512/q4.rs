//! Q4 and Q4G64 with `vpdpbusd`: 576 and 1088 bytes per tile, both made of two groups of lines.
//!
//! The nibbles are unsigned codes 0..=15, so `Σ (code − 8)·a = Σ code·a − 8·Σa`. High nibbles stay
//! in place (`b & 0xf0` is 16 times the code), and the sum is shifted once. It is at most 240 · 128
//! · 32 in size: exact in i32.

use super::Avx512;
use super::memory::{broadcast, load_halves, load_line, store_all};
use crate::activations::Operand;
use crate::avx2::prefetch_ahead;
use crate::blocks::{Block, Groups, Sums};
use std::arch::x86_64::*;

/// Q4 on AVX-512.
pub struct Q4(pub Avx512);

/// Q4G64 on AVX-512.
pub struct Q4G64(pub Avx512);

impl Block for Q4 {
    const TOKENS: usize = 8;

    fn multiply<const N: usize>(&self, block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { mat_mul_q4_q8(block, x) }
    }
}

impl Block for Q4G64 {
    const TOKENS: usize = 8;

    fn multiply<const N: usize>(&self, block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { mat_mul_q4g64_q8(block, x) }
    }
}

/// Both halves of a group of 32 columns share an activation group: one integer sum, one scale.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn mat_mul_q4_q8<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<576>().0;
    let x = x.map(|x| Groups::new(x, 2 * tiles.len()));
    let mut sums = [_mm512_setzero_ps(); N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        let (lines, scales) = (tile.as_chunks::<64>().0, tile[512..].as_chunks::<32>().0);
        for half in 0..2 {
            let group = 2 * tile_index + half;
            let scale = load_halves(&scales[half]);
            let mut low = [_mm512_setzero_si512(); N];
            let mut high = [_mm512_setzero_si512(); N];
            for (token, low) in low.iter_mut().enumerate() {
                *low = _mm512_set1_epi32(-8 * x[token].sums[group]);
            }
            for line in 0..4 {
                let (low_codes, high_codes) = nibbles(load_line(&lines[4 * half + line]));
                for token in 0..N {
                    let codes = x[token].codes[group].as_chunks::<4>().0;
                    low[token] = _mm512_dpbusd_epi32(low[token], low_codes, broadcast(&codes[line]));
                    high[token] = _mm512_dpbusd_epi32(high[token], high_codes, broadcast(&codes[4 + line]));
                }
            }
            for token in 0..N {
                let whole = _mm512_add_epi32(low[token], _mm512_srai_epi32::<4>(high[token]));
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(x[token].scales[group]));
                sums[token] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, sums[token]);
            }
        }
    }
    store_all(sums)
}

/// The halves of a group of 64 columns meet two activation groups: one integer sum and one scale
/// for each.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn mat_mul_q4g64_q8<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<1088>().0;
    let x = x.map(|x| Groups::new(x, 4 * tiles.len()));
    let mut sums = [_mm512_setzero_ps(); N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        let (lines, scales) = (tile.as_chunks::<64>().0, tile[1024..].as_chunks::<32>().0);
        for half in 0..2 {
            let group = 4 * tile_index + 2 * half;
            let scale = load_halves(&scales[half]);
            let mut low = [_mm512_setzero_si512(); N];
            let mut high = [_mm512_setzero_si512(); N];
            for token in 0..N {
                low[token] = _mm512_set1_epi32(-8 * x[token].sums[group]);
                high[token] = _mm512_set1_epi32(-128 * x[token].sums[group + 1]);
            }
            for line in 0..8 {
                let (low_codes, high_codes) = nibbles(load_line(&lines[8 * half + line]));
                for token in 0..N {
                    let low_x = x[token].codes[group].as_chunks::<4>().0;
                    let high_x = x[token].codes[group + 1].as_chunks::<4>().0;
                    low[token] = _mm512_dpbusd_epi32(low[token], low_codes, broadcast(&low_x[line]));
                    high[token] = _mm512_dpbusd_epi32(high[token], high_codes, broadcast(&high_x[line]));
                }
            }
            for token in 0..N {
                let low_scale = _mm512_mul_ps(scale, _mm512_set1_ps(x[token].scales[group]));
                let high_scale = _mm512_mul_ps(scale, _mm512_set1_ps(x[token].scales[group + 1]));
                let high = _mm512_cvtepi32_ps(_mm512_srai_epi32::<4>(high[token]));
                sums[token] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(low[token]), low_scale, sums[token]);
                sums[token] = _mm512_fmadd_ps(high, high_scale, sums[token]);
            }
        }
    }
    store_all(sums)
}

/// Low codes, and high codes times 16.
#[inline]
#[target_feature(enable = "avx512f")]
fn nibbles(line: __m512i) -> (__m512i, __m512i) {
    (_mm512_and_si512(line, _mm512_set1_epi8(0x0f)), _mm512_and_si512(line, _mm512_set1_epi8(0xf0u8 as i8)))
}
