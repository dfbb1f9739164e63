//! Q8 of one token with `vpdpbusd`, whose weights are unsigned: `code ^ 0x80` is `code + 128`, so
//! `Σ code·a = Σ (code + 128)·a − 128·Σa`. Sums are at most 255 · 128 · 32 in size: exact in i32.

use super::Avx512;
use super::memory::{broadcast, load_halves, load_line, store_all};
use crate::activations::Operand;
use crate::avx2::prefetch_ahead;
use crate::blocks::{Block, Groups, Sums};
use pith_format::{Matrix, TILE_ROWS};
use std::arch::x86_64::*;

/// Q8 on AVX-512.
pub struct Q8(pub Avx512);

impl Block for Q8 {
    const TOKENS: usize = 1;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        x.map(|x| unsafe { mat_vec_q8_q8(w.block(block_index), x) })
    }
}

/// Even and odd lines have separate sums: two chains hide the latency of `vpdpbusd`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn mat_vec_q8_q8(block: &[u8], x: Operand<'_>) -> [f32; TILE_ROWS] {
    let tiles = block.as_chunks::<1088>().0;
    let x = Groups::new(x, 2 * tiles.len());
    let sign = _mm512_set1_epi8(i8::MIN);
    let mut sum = _mm512_setzero_ps();
    for (tile_index, tile) in tiles.iter().enumerate() {
        prefetch_ahead(tile);
        let (lines, scales) = (tile.as_chunks::<64>().0, tile[1024..].as_chunks::<32>().0);
        for half in 0..2 {
            let group = 2 * tile_index + half;
            let codes = x.codes[group].as_chunks::<4>().0;
            let mut even = _mm512_set1_epi32(-128 * x.sums[group]);
            let mut odd = _mm512_setzero_si512();
            for pair in 0..4 {
                let first = _mm512_xor_si512(load_line(&lines[8 * half + 2 * pair]), sign);
                let second = _mm512_xor_si512(load_line(&lines[8 * half + 2 * pair + 1]), sign);
                even = _mm512_dpbusd_epi32(even, first, broadcast(&codes[2 * pair]));
                odd = _mm512_dpbusd_epi32(odd, second, broadcast(&codes[2 * pair + 1]));
            }
            let whole = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
            let scale = _mm512_mul_ps(load_halves(&scales[half]), _mm512_set1_ps(x.scales[group]));
            sum = _mm512_fmadd_ps(whole, scale, sum);
        }
    }
    store_all([sum])[0]
}
