//! Encodings in bit planes with `vpdpbusd`.

use super::AvxVnni;
use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::avx2::lines::{Lines, minima, prefetch_run, scales};
use crate::avx2::memory::broadcast;
use crate::avx2::q4::store_all;
use crate::blocks::{Block, Groups, Sums};
use crate::tiles::Tiles;
use pith_format::Matrix;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// An encoding on AVX-VNNI.
pub struct Planes<E>(AvxVnni, PhantomData<E>);

impl<E> Planes<E> {
    /// The kernel of an encoding.
    pub fn new(kernel: AvxVnni) -> Self {
        Self(kernel, PhantomData)
    }
}

impl<E: Lines> Block for Planes<E> {
    const TOKENS: usize = 4;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        // SAFETY: a value of `AvxVnni` exists only where `detect` found the features.
        unsafe { multiply::<E, N>(self.0, E::Bytes::of_block(w, block_index), x) }
    }
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn multiply<E: Lines, const N: usize>(kernel: AvxVnni, block: E::Bytes<'_>, x: [Operand<'_>; N]) -> Sums<N> {
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
        kernel: AvxVnni,
        tile: E::Bytes<'_>,
        run: usize,
        x: [Groups<'_>; N],
        first: usize,
        sums: &mut [[__m256; 2]; N],
    ) {
        let group = 2 * run + ODD;
        if E::IS_SPLIT {
            add_part::<E, N>(kernel, tile, (group, 0), x, first, sums);
            add_part::<E, N>(kernel, tile, (group, 1), x, first, sums);
        } else {
            add_part::<E, N>(kernel, tile, (group, 0), x, first, sums);
        }
    }
}

inlined! {
    /// Adds a part of a group: a half where halves have their own scales, otherwise all of it.
    fn add_part<E: Lines, const N: usize>(
        kernel: AvxVnni,
        tile: E::Bytes<'_>,
        (group, half): (usize, usize),
        x: [Groups<'_>; N],
        first: usize,
        sums: &mut [[__m256; 2]; N],
    ) {
        let fours = E::SCALE_COLS / 4;
        let mut whole = [[_mm256_setzero_si256(); 2]; N];
        for (whole, x) in whole.iter_mut().zip(x) {
            *whole = [_mm256_set1_epi32(-E::OFFSET * x.part_sum::<E>(first + group, half)); 2];
        }
        for four in half * fours..(half + 1) * fours {
            let lines = [E::line(kernel.0, tile, group, four, 0), E::line(kernel.0, tile, group, four, 1)];
            for (whole, x) in whole.iter_mut().zip(x) {
                let x = broadcast(&x.codes[first + group].as_chunks::<4>().0[four]);
                for (whole, line) in whole.iter_mut().zip(lines) {
                    *whole = _mm256_dpbusd_avx_epi32(*whole, line, x);
                }
            }
        }
        let scales = [0, 1].map(|side| scales::<E>(tile.first(), group, half, side));
        let minima = [0, 1].map(|side| minima::<E>(tile.first(), group, half, side));
        for ((sums, whole), x) in sums.iter_mut().zip(whole).zip(x) {
            let x_scale = x.scales[first + group];
            let x_sum = _mm256_set1_ps(x_scale * x.part_sum::<E>(first + group, half) as f32);
            for side in 0..2 {
                let scale = _mm256_mul_ps(scales[side], _mm256_set1_ps(x_scale));
                sums[side] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole[side]), scale, sums[side]);
                if let Some(minima) = minima[side] {
                    sums[side] = _mm256_fmadd_ps(minima, x_sum, sums[side]);
                }
            }
        }
    }
}
