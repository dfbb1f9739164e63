//! Q4 and Q4G64 with `vpdpbusd`: 576 and 1088 bytes per tile, both made of two groups of lines.
//!
//! The nibbles are unsigned codes 0..=15, so `Σ (code − 8)·a = Σ code·a − 8·Σa`. Sums are at most
//! 15 · 128 · 32 in size: exact in i32.

use super::AvxVnni;
use crate::activations::Operand;
use crate::avx2::memory::{broadcast, halves, load_bytes, load_half_bytes, prefetch_ahead};
use crate::avx2::q4::{nibbles, store_all};
use crate::blocks::{Block, Groups, Sums};
use pith_format::Matrix;
use std::arch::x86_64::*;

/// Q4 on AVX-VNNI.
pub struct Q4(pub AvxVnni);

/// Q4G64 on AVX-VNNI.
pub struct Q4G64(pub AvxVnni);

impl Block for Q4 {
    const TOKENS: usize = 4;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `AvxVnni` exists only where `detect` found the features.
        unsafe { mat_mul_q4_q8(w.block(block_index), x) }
    }
}

impl Block for Q4G64 {
    const TOKENS: usize = 4;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `AvxVnni` exists only where `detect` found the features.
        unsafe { mat_mul_q4g64_q8(w.block(block_index), x) }
    }
}

/// Both halves of a group of 32 columns share an activation group: one integer sum, one scale.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn mat_mul_q4_q8<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<576>().0;
    let x = x.map(|x| Groups::new(x, 2 * tiles.len()));
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        let (lines, scales) = (tile.as_chunks::<64>().0, tile[512..].as_chunks::<32>().0);
        for half in 0..2 {
            let group = 2 * tile_index + half;
            let mut whole = start(x, group);
            for line in 0..4 {
                let codes = halves(&lines[4 * half + line]).each_ref().map(|line| nibbles(load_bytes(line)));
                for token in 0..N {
                    let words = x[token].codes[group].as_chunks::<4>().0;
                    let (low_x, high_x) = (broadcast(&words[line]), broadcast(&words[4 + line]));
                    for side in 0..2 {
                        let low = _mm256_dpbusd_avx_epi32(whole[token][side], codes[side].0, low_x);
                        whole[token][side] = _mm256_dpbusd_avx_epi32(low, codes[side].1, high_x);
                    }
                }
            }
            add_group(&mut sums, whole, &scales[half], x, group);
        }
    }
    store_all(sums)
}

/// The halves of a group of 64 columns meet two activation groups: one integer sum and one scale
/// for each.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn mat_mul_q4g64_q8<const N: usize>(block: &[u8], x: [Operand<'_>; N]) -> Sums<N> {
    let tiles = block.as_chunks::<1088>().0;
    let x = x.map(|x| Groups::new(x, 4 * tiles.len()));
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (tile_index, tile) in tiles.iter().enumerate() {
        if N == 1 {
            prefetch_ahead(tile);
        }
        let (lines, scales) = (tile.as_chunks::<64>().0, tile[1024..].as_chunks::<32>().0);
        for half in 0..2 {
            let group = 4 * tile_index + 2 * half;
            let (mut low, mut high) = (start(x, group), start(x, group + 1));
            for line in 0..8 {
                let codes = halves(&lines[8 * half + line]).each_ref().map(|line| nibbles(load_bytes(line)));
                for token in 0..N {
                    let low_x = broadcast(&x[token].codes[group].as_chunks::<4>().0[line]);
                    let high_x = broadcast(&x[token].codes[group + 1].as_chunks::<4>().0[line]);
                    for side in 0..2 {
                        low[token][side] = _mm256_dpbusd_avx_epi32(low[token][side], codes[side].0, low_x);
                        high[token][side] = _mm256_dpbusd_avx_epi32(high[token][side], codes[side].1, high_x);
                    }
                }
            }
            add_group(&mut sums, low, &scales[half], x, group);
            add_group(&mut sums, high, &scales[half], x, group + 1);
        }
    }
    store_all(sums)
}

inlined! {
    /// `−8·Σa`
    fn start<const N: usize>(x: [Groups<'_>; N], group: usize) -> [[__m256i; 2]; N] {
        let mut whole = [[_mm256_setzero_si256(); 2]; N];
        for (whole, x) in whole.iter_mut().zip(x) {
            *whole = [_mm256_set1_epi32(-8 * x.sums[group]); 2];
        }
        whole
    }
}

inlined! {
    /// `sums += whole · scale · activation scale`
    fn add_group<const N: usize>(
        sums: &mut [[__m256; 2]; N],
        whole: [[__m256i; 2]; N],
        scales: &[u8; 32],
        x: [Groups<'_>; N],
        group: usize,
    ) {
        let scales = halves(scales).each_ref().map(load_half_bytes);
        for token in 0..N {
            let x_scale = _mm256_set1_ps(x[token].scales[group]);
            for side in 0..2 {
                let scale = _mm256_mul_ps(scales[side], x_scale);
                let whole = _mm256_cvtepi32_ps(whole[token][side]);
                sums[token][side] = _mm256_fmadd_ps(whole, scale, sums[token][side]);
            }
        }
    }
}
