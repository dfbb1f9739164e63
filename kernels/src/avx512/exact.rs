//! Panels of 32 rows with `vpdpbusd` that keep every level, scale and minimum.
//!
//! A sum over the columns of one scale is multiplied with both scales, one multiplication more than
//! in [`panel`](super::panel).

use super::Avx512;
use super::lines::{
    Lines, factors as factors_of, minima as minima_of, scales as scales_of, shared_scales, zeros as zeros_of,
};
use super::memory::{load_floats_of, load_integers, load_line, store_floats, store_integers, store_line};
use super::panel::{BLOCKS, in_all_bytes};
use crate::activations::{ACTIVATION_GROUP, PACKED_TOKENS, PackedGroup};
use crate::avx2::prefetch;
use crate::panels::{Line, Panel, Scales, Sums};
use crate::tiles::Tiles;
use pith_format::TILE_ROWS;
use std::arch::x86_64::*;

/// The kernel of these panels, for encodings whose groups of 32 columns have `PARTS` scales, and a
/// minimum if `MINIMA` is 1. Zero points become part of the levels, and so do integer factors of the
/// scales where the [products are small](crate::coded::Coded::HAS_SMALL_PRODUCTS).
pub struct Exact<const PARTS: usize, const MINIMA: usize>(pub Avx512);

/// 32 columns of a panel.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Group<const PARTS: usize, const MINIMA: usize> {
    /// Signed levels, four columns per line, block by block.
    lines: [[Line; BLOCKS]; 8],
    /// `−128 · Σ levels` of every row and part.
    starts: [[[i32; TILE_ROWS]; BLOCKS]; PARTS],
    scales: [Scales<BLOCKS>; PARTS],
    /// Value of level 0.
    minima: [Scales<BLOCKS>; MINIMA],
}

impl<E: Lines, const PARTS: usize, const MINIMA: usize> Panel<BLOCKS, E> for Exact<PARTS, MINIMA> {
    type Group = Group<PARTS, MINIMA>;
    const ZEROS: Self::Group = Group {
        lines: [[[0; 64]; BLOCKS]; 8],
        starts: [[[0; TILE_ROWS]; BLOCKS]; PARTS],
        scales: [[[0.0; TILE_ROWS]; BLOCKS]; PARTS],
        minima: [[[0.0; TILE_ROWS]; BLOCKS]; MINIMA],
    };
    /// 25 to 28 KB. The narrowest models have one panel.
    const COLS: usize = if PARTS + MINIMA > 1 { 576 } else { 640 };

    fn expand(&self, tiles: E::Bytes<'_>, block: usize, panel: &mut [Self::Group], _: &mut [f32; TILE_ROWS]) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { expand::<E, PARTS, MINIMA>(self.0, tiles, block, panel) }
    }

    fn prefetch(&self, bytes: &[u8]) {
        prefetch(bytes);
    }

    fn add(
        &self,
        panel: &[Self::Group],
        _: &Scales<BLOCKS>,
        x: &[PackedGroup],
        fresh: bool,
        sums: &mut Sums<BLOCKS>,
    ) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { add(panel, x, fresh, sums) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn expand<E: Lines, const PARTS: usize, const MINIMA: usize>(
    kernel: Avx512,
    tiles: E::Bytes<'_>,
    block: usize,
    panel: &mut [Group<PARTS, MINIMA>],
) {
    let shift = E::ZERO_SHIFT.unwrap_or(0);
    let unit = _mm512_set1_ps(1.0 / (1 << shift) as f32);
    let (shift, zero) = (_mm_cvtsi32_si128(shift as i32), _mm512_setzero_si512());
    let groups_a_tile = E::COLS / ACTIVATION_GROUP;
    for (tile, groups) in tiles.each(E::TILE_BYTES).zip(panel.chunks_mut(groups_a_tile)) {
        for (index, group) in groups.iter_mut().enumerate() {
            let mut sums = [_mm512_setzero_si512(); PARTS];
            let offset = match E::ZERO_SHIFT {
                Some(_) => zeros_of::<E>(tile.first(), index),
                None => _mm512_set1_epi8(E::OFFSET as i8),
            };
            let mut factors = [[_mm512_setzero_si512(); 2]; 2];
            if E::HAS_SMALL_PRODUCTS {
                for (half, factors) in factors.iter_mut().enumerate() {
                    *factors = in_all_bytes(_mm512_cvtps_epi32(factors_of::<E, false>(
                        tile.first(),
                        2 * index + half,
                    )));
                }
            }
            for (four, lines) in group.lines.iter_mut().enumerate() {
                let sums = &mut sums[four * PARTS / 8];
                // Codes with zero points are so small that no bit leaves its byte.
                let line = _mm512_sll_epi16(E::line(kernel, tile, index, four), shift);
                let mut line = _mm512_sub_epi8(line, offset);
                if E::HAS_SMALL_PRODUCTS {
                    let levels = [_mm512_unpacklo_epi8(zero, line), _mm512_unpackhi_epi8(zero, line)];
                    let [low, high] = levels.map(|bytes| _mm512_srai_epi16::<8>(bytes));
                    let [low_factors, high_factors] = factors[four / 4];
                    let low = _mm512_sub_epi16(zero, _mm512_mullo_epi16(low, low_factors));
                    let high = _mm512_sub_epi16(zero, _mm512_mullo_epi16(high, high_factors));
                    line = _mm512_packs_epi16(low, high);
                }
                *sums = _mm512_dpbusd_epi32(*sums, _mm512_set1_epi8(1), line);
                store_line(line, &mut lines[block]);
            }
            for (part, sums) in sums.into_iter().enumerate() {
                let start = _mm512_sub_epi32(_mm512_setzero_si512(), sums);
                store_integers(_mm512_slli_epi32::<7>(start), &mut group.starts[part][block]);
                let scales = match E::HAS_SMALL_PRODUCTS {
                    true => _mm512_sub_ps(_mm512_setzero_ps(), shared_scales::<E>(tile.first())),
                    false => _mm512_mul_ps(scales_of::<E>(tile.first(), index, part), unit),
                };
                store_floats(scales, &mut group.scales[part][block]);
            }
            for minima in &mut group.minima {
                let minimum = minima_of::<E>(tile.first(), index, 0).expect("an encoding with minima");
                store_floats(minimum, &mut minima[block]);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add<const PARTS: usize, const MINIMA: usize>(
    panel: &[Group<PARTS, MINIMA>],
    x: &[PackedGroup],
    fresh: bool,
    sums: &mut Sums<BLOCKS>,
) {
    assert_eq!(panel.len(), x.len());
    let mut floats = [[_mm512_setzero_ps(); BLOCKS]; PACKED_TOKENS];
    for (group, x) in panel.iter().zip(x) {
        let (words, x_floats) = x.as_chunks::<PACKED_TOKENS>().0.split_at(8);
        if PARTS == 1 {
            let whole = whole_sums::<PACKED_TOKENS, 0>(&group.starts[0], &group.lines, words);
            let scales = group.scales[0].each_ref().map(load_floats_of);
            for ((floats, whole), &x_scale) in floats.iter_mut().zip(whole).zip(&x_floats[0]) {
                let x_scale = _mm512_set1_ps(f32::from_bits(x_scale));
                for ((floats, whole), scale) in floats.iter_mut().zip(whole).zip(scales) {
                    let scale = _mm512_mul_ps(scale, x_scale);
                    *floats = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, *floats);
                }
            }
        } else {
            add_parts::<PARTS, MINIMA, 0>(group, x, &mut floats);
            add_parts::<PARTS, MINIMA, HALF_PACK>(group, x, &mut floats);
        }
        for minima in &group.minima {
            let minima = minima.each_ref().map(load_floats_of);
            for (floats, &x_sum) in floats.iter_mut().zip(&x_floats[1]) {
                let x_sum = _mm512_set1_ps(f32::from_bits(x_sum));
                for (floats, minima) in floats.iter_mut().zip(minima) {
                    *floats = _mm512_fmadd_ps(minima, x_sum, *floats);
                }
            }
        }
    }
    for (floats, sums) in floats.into_iter().zip(sums) {
        for (floats, sums) in floats.into_iter().zip(sums) {
            let before = if fresh { _mm512_setzero_ps() } else { load_floats_of(sums) };
            store_floats(_mm512_add_ps(floats, before), sums);
        }
    }
}

inlined! {
    /// Sums of levels times codes of the tokens from `FIRST` on, for one part of a group. They are at
    /// most 255 · 128 · 32 in size: exact in i32.
    fn whole_sums<const TOKENS: usize, const FIRST: usize>(
        starts: &[[i32; TILE_ROWS]; BLOCKS],
        lines: &[[Line; BLOCKS]],
        words: &[[u32; PACKED_TOKENS]],
    ) -> [[__m512i; BLOCKS]; TOKENS] {
        let mut whole = [starts.each_ref().map(load_integers); TOKENS];
        for (lines, words) in lines.iter().zip(words) {
            let lines = lines.each_ref().map(load_line);
            for (whole, &word) in whole.iter_mut().zip(&words[FIRST..]) {
                let x = _mm512_set1_epi32(word.cast_signed());
                for (whole, line) in whole.iter_mut().zip(lines) {
                    *whole = _mm512_dpbusd_epi32(*whole, x, line);
                }
            }
        }
        whole
    }
}

/// Tokens of half a pack.
const HALF_PACK: usize = PACKED_TOKENS / 2;

inlined! {
    /// Adds a group of two parts for half of the tokens, from `FIRST` on: so few that the integer sums
    /// of both parts are in registers together, and are multiplied with the token's scale once.
    fn add_parts<const PARTS: usize, const MINIMA: usize, const FIRST: usize>(
        group: &Group<PARTS, MINIMA>,
        x: &PackedGroup,
        floats: &mut [[__m512; BLOCKS]; PACKED_TOKENS],
    ) {
        let (words, x_floats) = x.as_chunks::<PACKED_TOKENS>().0.split_at(8);
        let (low, high) = (0, PARTS - 1);
        let lows = whole_sums::<HALF_PACK, FIRST>(&group.starts[low], &group.lines[..4], &words[..4]);
        let highs = whole_sums::<HALF_PACK, FIRST>(&group.starts[high], &group.lines[4..], &words[4..]);
        let low_scales = group.scales[low].each_ref().map(load_floats_of);
        let high_scales = group.scales[high].each_ref().map(load_floats_of);
        let tokens = floats[FIRST..].iter_mut().zip(&x_floats[0][FIRST..]);
        for ((floats, &x_scale), (lows, highs)) in tokens.zip(lows.into_iter().zip(highs)) {
            let x_scale = _mm512_set1_ps(f32::from_bits(x_scale));
            let scales = low_scales.into_iter().zip(high_scales);
            let wholes = lows.into_iter().zip(highs);
            for ((floats, (low, high)), (low_scale, high_scale)) in floats.iter_mut().zip(wholes).zip(scales) {
                let low = _mm512_mul_ps(_mm512_cvtepi32_ps(low), low_scale);
                let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), high_scale, low);
                *floats = _mm512_fmadd_ps(sum, x_scale, *floats);
            }
        }
    }
}
