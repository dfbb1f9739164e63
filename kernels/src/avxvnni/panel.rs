//! Panels of 16 rows with `vpdpbusd`: a micro-kernel of 16 rows × 3 tokens, whose integer and float
//! sums take 12 registers.

use super::AvxVnni;
use crate::activations::{ACTIVATION_GROUP, PACKED_TOKENS, PackedGroup};
use crate::avx2::lines::{Lines, scales as scales_of};
use crate::avx2::memory::{
    halves, halves_mut, load_bytes, load_floats, load_integers, prefetch, store_bytes, store_floats,
    store_integers,
};
use crate::panels::{Panel, PanelGroup, Scales, Sums};
use crate::tiles::Tiles;
use pith_format::TILE_ROWS;
use std::arch::x86_64::*;

/// Tokens of the micro-kernel.
const TOKENS: usize = PACKED_TOKENS / 2;

impl<E: Lines> Panel<1, E> for AvxVnni {
    type Group = PanelGroup<1>;
    const ZEROS: Self::Group = PanelGroup::ZEROS;

    fn expand(
        &self,
        tiles: E::Bytes<'_>,
        _: usize,
        panel: &mut [PanelGroup<1>],
        scales: &mut [f32; TILE_ROWS],
    ) {
        // SAFETY: a value of `AvxVnni` exists only where `detect` found the features.
        unsafe { expand::<E>(*self, tiles, panel, scales) }
    }

    fn prefetch(&self, bytes: &[u8]) {
        prefetch(bytes);
    }

    fn add(
        &self,
        panel: &[PanelGroup<1>],
        scales: &Scales<1>,
        x: &[PackedGroup],
        fresh: bool,
        sums: &mut Sums<1>,
    ) {
        for (first, sums) in (0..PACKED_TOKENS).step_by(TOKENS).zip(sums.chunks_exact_mut(TOKENS)) {
            // SAFETY: a value of `AvxVnni` exists only where `detect` found the features.
            unsafe { add(panel, &scales[0], x, first, fresh, sums) }
        }
    }
}

/// Rounds the levels of a row to 8 bits with one scale. Levels with the row's largest scale become
/// the largest integers that fit; `vpmulhrsw` rescales the others, rounding to nearest.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn expand<E: Lines>(
    kernel: AvxVnni,
    tiles: E::Bytes<'_>,
    panel: &mut [PanelGroup<1>],
    scales: &mut [f32; TILE_ROWS],
) {
    for (side, scales) in halves_mut(scales).iter_mut().enumerate() {
        expand_side::<E>(kernel, tiles, side, panel, scales);
    }
}

inlined! {
    /// [`expand`] for 8 rows.
    fn expand_side<E: Lines>(
        kernel: AvxVnni,
        tiles: E::Bytes<'_>,
        side: usize,
        panel: &mut [PanelGroup<1>],
        scales: &mut [f32; 8],
    ) {
        let groups_a_tile = E::COLS / ACTIVATION_GROUP;
        let tiles = tiles.each(E::TILE_BYTES);
        let mut largest = _mm256_setzero_ps();
        for (tile, groups) in tiles.clone().zip(panel.chunks(groups_a_tile)) {
            for group in 0..groups.len() {
                let scales = scales_of::<E>(tile.first(), group, 0, side);
                largest = _mm256_max_ps(largest, _mm256_andnot_ps(_mm256_set1_ps(-0.0), scales));
            }
        }
        store_floats(_mm256_mul_ps(largest, _mm256_set1_ps(1.0 / (1 << E::ROOM_BITS) as f32)), scales);
        // Rows of zeros have no scale: their factor is 0. `vpmulhrsw` shifts products right by 15 bits:
        // the factors supply 14 of them, the levels one.
        let factor = _mm256_div_ps(_mm256_set1_ps(16384.0), largest);
        let factor = _mm256_and_ps(factor, _mm256_cmp_ps::<_CMP_GT_OQ>(largest, _mm256_setzero_ps()));
        let (zero, room) = (_mm256_setzero_si256(), _mm_cvtsi32_si128(7 - E::ROOM_BITS as i32));
        let offset = _mm256_set1_epi8(E::OFFSET as i8);
        for (tile, groups) in tiles.zip(panel.chunks_mut(groups_a_tile)) {
            for (index, group) in groups.iter_mut().enumerate() {
                let factors = _mm256_cvtps_epi32(_mm256_mul_ps(scales_of::<E>(tile.first(), index, 0, side), factor));
                // Each factor twice in its row's four bytes, then four times, for the low and the high
                // half of each lane.
                let factors = _mm256_blend_epi16::<0xaa>(factors, _mm256_slli_epi32::<16>(factors));
                let low = _mm256_unpacklo_epi32(factors, factors);
                let high = _mm256_unpackhi_epi32(factors, factors);
                let mut sums = zero;
                for (four, [line]) in group.lines.iter_mut().enumerate() {
                    let levels = _mm256_sub_epi8(E::line(kernel.0, tile, index, four, side), offset);
                    let widened = [_mm256_unpacklo_epi8(zero, levels), _mm256_unpackhi_epi8(zero, levels)];
                    let [first, second] = widened.map(|bytes| _mm256_sra_epi16(bytes, room));
                    let first = _mm256_mulhrs_epi16(first, low);
                    let levels = _mm256_packs_epi16(first, _mm256_mulhrs_epi16(second, high));
                    sums = _mm256_dpbusd_avx_epi32(sums, _mm256_set1_epi8(1), levels);
                    store_bytes(levels, &mut halves_mut(line)[side]);
                }
                let starts = _mm256_slli_epi32::<7>(_mm256_sub_epi32(zero, sums));
                store_integers(starts, &mut halves_mut(&mut group.starts[0])[side]);
            }
        }
    }
}

/// Adds tokens from `first` on. Sums are at most 255 · 128 · 32 in size: exact in i32.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn add(
    panel: &[PanelGroup<1>],
    scales: &[f32; TILE_ROWS],
    x: &[PackedGroup],
    first: usize,
    fresh: bool,
    sums: &mut [[[f32; TILE_ROWS]; 1]],
) {
    assert!(panel.len() == x.len() && first + TOKENS <= PACKED_TOKENS);
    let mut floats = [[_mm256_setzero_ps(); 2]; TOKENS];
    for (group, x) in panel.iter().zip(x) {
        let starts = halves(&group.starts[0]).each_ref().map(load_integers);
        let mut whole = [starts; TOKENS];
        let (words, x_scales) = x.as_chunks::<PACKED_TOKENS>().0.split_at(8);
        for ([line], words) in group.lines.iter().zip(words) {
            let line = halves(line).each_ref().map(load_bytes);
            for (whole, &word) in whole.iter_mut().zip(&words[first..]) {
                let x = _mm256_set1_epi32(word.cast_signed());
                for (whole, codes) in whole.iter_mut().zip(line) {
                    *whole = _mm256_dpbusd_avx_epi32(*whole, x, codes);
                }
            }
        }
        for ((floats, whole), &scale) in floats.iter_mut().zip(whole).zip(&x_scales[0][first..]) {
            let scale = _mm256_set1_ps(f32::from_bits(scale));
            for (floats, whole) in floats.iter_mut().zip(whole) {
                *floats = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, *floats);
            }
        }
    }
    let scales = halves(scales).each_ref().map(load_floats);
    for (floats, sums) in floats.into_iter().zip(sums) {
        for ((floats, scale), sums) in floats.into_iter().zip(scales).zip(halves_mut(&mut sums[0])) {
            let before = if fresh { _mm256_setzero_ps() } else { load_floats(sums) };
            store_floats(_mm256_fmadd_ps(floats, scale, before), sums);
        }
    }
}
