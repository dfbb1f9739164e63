//! One token, 64 columns at a time: both groups of 32 columns share the loads and rotations.

use super::Avx512;
use super::lines::{Lines, minima, scales};
use super::memory::{broadcast, store_all};
use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::avx2::prefetch_run;
use crate::blocks::{Block, Groups, Sums, part_sum};
use crate::tiles::Tiles;
use pith_format::Matrix;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Multiplies one token at a time, however many there are.
pub struct One<E>(Avx512, PhantomData<E>);

impl<E> One<E> {
    /// The kernel of an encoding.
    pub fn new(kernel: Avx512) -> Self {
        Self(kernel, PhantomData)
    }
}

impl<E: Lines> Block for One<E> {
    const TOKENS: usize = 1;

    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N> {
        let block = E::Bytes::of_block(w, block_index);
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        x.map(|x| unsafe { multiply::<E>(self.0, block, x) }[0])
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply<E: Lines>(kernel: Avx512, block: E::Bytes<'_>, x: Operand<'_>) -> Sums<1> {
    let groups_a_tile = E::COLS / ACTIVATION_GROUP;
    let tiles = block.each(E::TILE_BYTES);
    let x = Groups::new(x, groups_a_tile * tiles.len());
    let (codes, x_scales) = (x.codes.chunks_exact(groups_a_tile), x.scales.chunks_exact(groups_a_tile));
    let groups = codes.zip(x_scales).zip(x.sums.chunks_exact(groups_a_tile)).enumerate();
    let mut sum = _mm512_setzero_ps();
    for (tile, (tile_index, ((codes, x_scales), x_sums))) in tiles.zip(groups) {
        let half_sums = if E::IS_SPLIT { &x.half_sums[tile_index * groups_a_tile..] } else { x_sums };
        for run in 0..groups_a_tile / 2 {
            prefetch_run(tile.streams(), run, groups_a_tile / 2);
            let groups = [2 * run, 2 * run + 1];
            // Sums of both halves of a group, in the first place unless they have their own scales.
            let mut whole = groups.map(|group| starts::<E>(x_sums[group], half_sums[group]));
            for four in 0..8 {
                let half = if E::IS_SPLIT { four / 4 } else { 0 };
                for (whole, group) in whole.iter_mut().zip(groups) {
                    let x = broadcast(&codes[group].as_chunks::<4>().0[four]);
                    whole[half] = _mm512_dpbusd_epi32(whole[half], E::line(kernel, tile, group, four), x);
                }
            }
            for (whole, group) in whole.into_iter().zip(groups) {
                let x_scale = x_scales[group];
                for (half, whole) in whole.into_iter().enumerate().take(1 + usize::from(E::IS_SPLIT)) {
                    let scale =
                        _mm512_mul_ps(scales::<E>(tile.first(), group, half), _mm512_set1_ps(x_scale));
                    sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, sum);
                    if let Some(minima) = minima::<E>(tile.first(), group, half) {
                        let x_sum = x_scale * part_sum::<E>(x_sums[group], half_sums[group], half) as f32;
                        sum = _mm512_fmadd_ps(minima, _mm512_set1_ps(x_sum), sum);
                    }
                }
            }
        }
    }
    store_all([sum])
}

inlined! {
    /// Minus [`Coded::OFFSET`](crate::coded::Coded::OFFSET) times the sum of each part of a group's
    /// activations.
    pub fn starts<E: Lines>(sum: i32, half_sum: i32) -> [__m512i; 2] {
        [0, 1].map(|half| _mm512_set1_epi32(-E::OFFSET * part_sum::<E>(sum, half_sum, half)))
    }
}
