//! Products of a few tokens, for example to verify a draft: 32 rows at a time, so that each loaded
//! activation serves two lines of weights. Every token gets the same bits as alone.

use super::Avx512;
use super::lines::{Lines, minima, scales};
use super::memory::{broadcast, store_all};
use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::avx2::prefetch_behind;
use crate::blocks::{Groups, Sums, part_sum};
use crate::tiles::Tiles;
use pith_format::{Matrix, TILE_ROWS};
use std::arch::x86_64::*;
use std::array::from_fn;
use std::ops::Range;

/// Most tokens at a time: the integer and float sums of 32 rows then take 24 registers.
const TOKENS: usize = 6;

/// See [`Kernels::mat_mul`](crate::Kernels::mat_mul).
pub fn mat_mul<E: Lines>(kernel: Avx512, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
    x.assert_product(w, y);
    for block in (0..w.block_count()).step_by(2) {
        for (first, y) in (0..x.tokens()).step_by(TOKENS).zip(y.chunks_mut(TOKENS)) {
            match y.len() {
                6 => multiply::<E, 6>(kernel, w, block, x, first, y),
                5 => multiply::<E, 5>(kernel, w, block, x, first, y),
                4 => multiply::<E, 4>(kernel, w, block, x, first, y),
                3 => multiply::<E, 3>(kernel, w, block, x, first, y),
                2 => multiply::<E, 2>(kernel, w, block, x, first, y),
                _ => multiply::<E, 1>(kernel, w, block, x, first, y),
            }
        }
    }
}

/// Multiplies pairs of blocks, then a last single one, with the `N` tokens from `first` on.
fn multiply<E: Lines, const N: usize>(
    kernel: Avx512,
    w: Matrix<'_>,
    block: usize,
    x: Operand<'_>,
    first: usize,
    y: &mut [&mut [f32]],
) {
    let x = from_fn(|token| Groups::new(x.token(first + token), w.cols().div_ceil(ACTIVATION_GROUP)));
    let mut put = |block: usize, sums: Sums<N>| {
        let row = block * TILE_ROWS;
        let count = TILE_ROWS.min(w.rows() - row);
        for (sums, y) in sums.iter().zip(y.iter_mut()) {
            y[row..][..count].copy_from_slice(&sums[..count]);
        }
    };
    let of = |block: usize| E::Bytes::of_block(w, block);
    if block + 1 < w.block_count() {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        let sums = unsafe { add::<E, 2, N>(kernel, [block, block + 1].map(of), x) };
        put(block, sums[0]);
        put(block + 1, sums[1]);
    } else {
        // SAFETY: as above.
        put(block, unsafe { add::<E, 1, N>(kernel, [of(block)], x) }[0]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add<E: Lines, const B: usize, const N: usize>(
    kernel: Avx512,
    blocks: [E::Bytes<'_>; B],
    x: [Groups<'_>; N],
) -> [Sums<N>; B] {
    let groups_a_tile = E::COLS / ACTIVATION_GROUP;
    let group_count = x[0].scales.len();
    let lengths = |x: &Groups<'_>| [x.codes.len(), x.scales.len(), x.sums.len()];
    assert!(x.iter().all(|x| lengths(x) == [group_count; 3] && x.half_sums.len() >= group_count));
    let mut floats = [[_mm512_setzero_ps(); N]; B];
    for tile_index in 0..group_count.div_ceil(groups_a_tile) {
        let tiles = blocks.map(|block| block.part(E::TILE_BYTES, tile_index..tile_index + 1));
        // Prefetches the next blocks.
        for (tile, block) in tiles.into_iter().zip(blocks) {
            for (tile, block) in tile.streams().into_iter().zip(block.streams()) {
                prefetch_behind(tile, B * block.len());
            }
        }
        let groups = tile_index * groups_a_tile..group_count.min((tile_index + 1) * groups_a_tile);
        for group in groups.clone() {
            let at = group - groups.start;
            match E::IS_SPLIT {
                false => add_part::<E, B, N>(kernel, tiles, x, group, (at, 0), 0..8, &mut floats),
                true => {
                    add_part::<E, B, N>(kernel, tiles, x, group, (at, 0), 0..4, &mut floats);
                    add_part::<E, B, N>(kernel, tiles, x, group, (at, 1), 4..8, &mut floats);
                }
            }
        }
    }
    floats.map(store_all)
}

inlined! {
    /// Adds the products of a part of a group: `group` of the activations, `at` in the tile with the
    /// half, and the fours that the part has.
    fn add_part<E: Lines, const B: usize, const N: usize>(
        kernel: Avx512,
        tiles: [E::Bytes<'_>; B],
        x: [Groups<'_>; N],
        group: usize,
        (at, half): (usize, usize),
        fours: Range<usize>,
        floats: &mut [[__m512; N]; B],
    ) {
        let mut whole = [[_mm512_setzero_si512(); N]; B];
        for token in 0..N {
            let start = _mm512_set1_epi32(-E::OFFSET * sum_of::<E>(&x[token], group, half));
            for whole in &mut whole {
                whole[token] = start;
            }
        }
        for four in fours {
            let lines = tiles.map(|tile| E::line(kernel, tile, at, four));
            for token in 0..N {
                // SAFETY: `group` is below the length of `codes`: the caller asserts equal lengths.
                let codes = unsafe { x[token].codes.get_unchecked(group) };
                let codes = broadcast(&codes.as_chunks().0[four]);
                for (whole, line) in whole.iter_mut().zip(lines) {
                    whole[token] = _mm512_dpbusd_epi32(whole[token], line, codes);
                }
            }
        }
        let scales = tiles.map(|tile| scales::<E>(tile.first(), at, half));
        let minima = tiles.map(|tile| minima::<E>(tile.first(), at, half));
        for token in 0..N {
            // SAFETY: as above, for `scales`.
            let x_scale = *unsafe { x[token].scales.get_unchecked(group) };
            let x_sum = x_scale * sum_of::<E>(&x[token], group, half) as f32;
            for block in 0..B {
                let scale = _mm512_mul_ps(scales[block], _mm512_set1_ps(x_scale));
                let whole = _mm512_cvtepi32_ps(whole[block][token]);
                floats[block][token] = _mm512_fmadd_ps(whole, scale, floats[block][token]);
                if let Some(minima) = minima[block] {
                    floats[block][token] = _mm512_fmadd_ps(minima, _mm512_set1_ps(x_sum), floats[block][token]);
                }
            }
        }
    }
}

/// The sum of a part of a group's activations.
#[inline(always)]
fn sum_of<E: Lines>(x: &Groups<'_>, group: usize, half: usize) -> i32 {
    // SAFETY: `group` is below the length of `sums`: the caller asserts equal lengths.
    let sum = *unsafe { x.sums.get_unchecked(group) };
    // SAFETY: as above, for `half_sums`.
    let half_sum = *unsafe { x.half_sums.get_unchecked(group) };
    part_sum::<E>(sum, half_sum, half)
}
