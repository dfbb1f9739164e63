//! Q8 with `vpdpbusd`, whose weights are unsigned: `code ^ 0x80` is `code + 128`, so
//! `Σ code·a = Σ (code + 128)·a − 128·Σa`. Sums are at most 255 · 128 · 32 in size: exact in i32.

use super::AvxVnni;
use crate::activations::Operand;
use crate::avx2::memory::{broadcast, halves, load_bytes, load_half_bytes, prefetch_ahead};
use crate::avx2::q4::store_all;
use crate::blocks::{Block, Groups, Sums};
use pith_format::Matrix;
use std::arch::x86_64::*;

/// Q8 on AVX-VNNI.
pub struct Q8(pub AvxVnni);

impl Block for Q8 {
    const TOKENS: usize = 4;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `AvxVnni` exists only where `detect` found the features.
        unsafe { mat_mul_q8_q8(w.block(block_index), x) }
    }
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn mat_mul_q8_q8<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<1088>().0;
    let x = x.map(|x| Groups::new(x, 2 * tiles.len()));
    let sign = _mm256_set1_epi8(i8::MIN);
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        let (lines, scales) = (tile.as_chunks::<64>().0, tile[1024..].as_chunks::<32>().0);
        for half in 0..2 {
            let group = 2 * tile_index + half;
            let mut whole = [[_mm256_setzero_si256(); 2]; N];
            for (token, whole) in whole.iter_mut().enumerate() {
                *whole = [_mm256_set1_epi32(-128 * x[token].sums[group]); 2];
            }
            for line in 0..8 {
                let codes = halves(&lines[8 * half + line]);
                let codes = codes.each_ref().map(|codes| _mm256_xor_si256(load_bytes(codes), sign));
                for token in 0..N {
                    let x = broadcast(&x[token].codes[group].as_chunks::<4>().0[line]);
                    for side in 0..2 {
                        whole[token][side] = _mm256_dpbusd_avx_epi32(whole[token][side], codes[side], x);
                    }
                }
            }
            let scale = halves(&scales[half]).each_ref().map(load_half_bytes);
            for token in 0..N {
                for side in 0..2 {
                    let scale = _mm256_mul_ps(scale[side], _mm256_set1_ps(x[token].scales[group]));
                    let whole = _mm256_cvtepi32_ps(whole[token][side]);
                    sums[token][side] = _mm256_fmadd_ps(whole, scale, sums[token][side]);
                }
            }
        }
    }
    store_all(sums)
}
