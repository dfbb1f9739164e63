//! Q8 with `vpdpbusd`, whose weights are unsigned: `code ^ 0x80` is `code + 128`, so
//! `Σ code·a = Σ (code + 128)·a − 128·Σa`. Sums are at most 255 · 128 · 32 in size: exact in i32.

use super::Avx512;
use super::memory::{broadcast, load_halves, load_line, store_all};
use crate::activations::Operand;
use crate::avx2::prefetch_ahead;
use crate::blocks::{Block, Groups, Sums};
use std::arch::x86_64::*;

/// Q8 on AVX-512.
pub struct Q8(pub Avx512);

impl Block for Q8 {
    const TOKENS: usize = 8;

    fn multiply<const N: usize>(&self, block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { mat_mul_q8_q8(block, x) }
    }
}

/// Even and odd lines have separate sums: two chains hide the latency of `vpdpbusd` for one token.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn mat_mul_q8_q8<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<1088>().0;
    let x = x.map(|x| Groups::new(x, 2 * tiles.len()));
    let sign = _mm512_set1_epi8(i8::MIN);
    let mut sums = [_mm512_setzero_ps(); N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        let (lines, scales) = (tile.as_chunks::<64>().0, tile[1024..].as_chunks::<32>().0);
        for half in 0..2 {
            let group = 2 * tile_index + half;
            let scale = load_halves(&scales[half]);
            let mut even = [_mm512_setzero_si512(); N];
            let mut odd = [_mm512_setzero_si512(); N];
            for (token, even) in even.iter_mut().enumerate() {
                *even = _mm512_set1_epi32(-128 * x[token].sums[group]);
            }
            for pair in 0..4 {
                let first = _mm512_xor_si512(load_line(&lines[8 * half + 2 * pair]), sign);
                let second = _mm512_xor_si512(load_line(&lines[8 * half + 2 * pair + 1]), sign);
                for token in 0..N {
                    let codes = x[token].codes[group].as_chunks::<4>().0;
                    even[token] = _mm512_dpbusd_epi32(even[token], first, broadcast(&codes[2 * pair]));
                    odd[token] = _mm512_dpbusd_epi32(odd[token], second, broadcast(&codes[2 * pair + 1]));
                }
            }
            for token in 0..N {
                let whole = _mm512_cvtepi32_ps(_mm512_add_epi32(even[token], odd[token]));
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(x[token].scales[group]));
                sums[token] = _mm512_fmadd_ps(whole, scale, sums[token]);
            }
        }
    }
    store_all(sums)
}
