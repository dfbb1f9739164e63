//! Panels of 32 rows with `vpdpbusd`: a micro-kernel of 32 rows × 6 tokens, whose integer and float
//! sums take 24 registers.

use super::Avx512;
use super::lines::{Lines, minima as minima_of, scales as scales_of};
use super::memory::{load_floats_of, load_integers, load_line, store_floats, store_integers, store_line};
use crate::activations::{ACTIVATION_GROUP, PACKED_TOKENS, PackedGroup};
use crate::avx2::prefetch;
use crate::panels::{Panel, PanelGroup, Scales, Sums};
use crate::tiles::Tiles;
use pith_format::TILE_ROWS;
use std::arch::x86_64::*;

/// Blocks of a panel.
pub const BLOCKS: usize = 2;

impl<E: Lines> Panel<BLOCKS, E> for Avx512 {
    type Group = PanelGroup<BLOCKS>;
    const ZEROS: Self::Group = PanelGroup::ZEROS;
    /// 27 KB of a 48 KB cache: at 36 KB the passing tokens evict lines of the panel.
    const COLS: usize = 768;

    fn expand(
        &self,
        tiles: E::Bytes<'_>,
        block: usize,
        panel: &mut [PanelGroup<BLOCKS>],
        scales: &mut [f32; TILE_ROWS],
    ) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { expand::<E>(*self, tiles, block, panel, scales) }
    }

    fn prefetch(&self, bytes: &[u8]) {
        prefetch(bytes);
    }

    fn add(
        &self,
        panel: &[PanelGroup<BLOCKS>],
        scales: &Scales<BLOCKS>,
        x: &[PackedGroup],
        fresh: bool,
        sums: &mut Sums<BLOCKS>,
    ) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { add(panel, scales, x, fresh, sums) }
    }
}

/// Rounds the weights of a row to 8 bits with one scale.
///
/// Without minima, levels with the row's largest scale become the largest integers that fit, and
/// `vpmulhrsw` rescales the others, rounding to nearest. With minima see [`expand_minima`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn expand<E: Lines>(
    kernel: Avx512,
    tiles: E::Bytes<'_>,
    block: usize,
    panel: &mut [PanelGroup<BLOCKS>],
    scales: &mut [f32; TILE_ROWS],
) {
    if E::MINIMA.is_some() {
        return expand_minima::<E>(kernel, tiles, block, panel, scales);
    }
    let groups_a_tile = E::COLS / ACTIVATION_GROUP;
    let tiles = tiles.each(E::TILE_BYTES);
    let mut largest = _mm512_setzero_ps();
    for (tile, groups) in tiles.clone().zip(panel.chunks(groups_a_tile)) {
        for group in 0..groups.len() {
            for half in 0..parts::<E>() {
                largest = _mm512_max_ps(largest, _mm512_abs_ps(scales_of::<E>(tile.first(), group, half)));
            }
        }
    }
    store_floats(_mm512_mul_ps(largest, _mm512_set1_ps(1.0 / (1 << E::ROOM_BITS) as f32)), scales);
    // Rows of zeros have no scale: their factor is 0. `vpmulhrsw` shifts products right by 15 bits:
    // the factors supply 14 of them, the levels one.
    let factor = inverse(16384.0, largest);
    let (zero, room) = (_mm512_setzero_si512(), _mm_cvtsi32_si128(7 - E::ROOM_BITS as i32));
    let offset = _mm512_set1_epi8(E::OFFSET as i8);
    for (tile, groups) in tiles.zip(panel.chunks_mut(groups_a_tile)) {
        for (index, group) in groups.iter_mut().enumerate() {
            let factors = |half| {
                let scales = scales_of::<E>(tile.first(), index, half);
                in_all_bytes(_mm512_cvtps_epi32(_mm512_mul_ps(scales, factor)))
            };
            let factors = [factors(0), factors(parts::<E>() - 1)];
            let mut sums = _mm512_setzero_si512();
            for (four, lines) in group.lines.iter_mut().enumerate() {
                let [low, high] = factors[four / 4];
                let line = _mm512_sub_epi8(E::line(kernel, tile, index, four), offset);
                let widened = [_mm512_unpacklo_epi8(zero, line), _mm512_unpackhi_epi8(zero, line)];
                let [first, second] = widened.map(|bytes| _mm512_sra_epi16(bytes, room));
                let first = _mm512_mulhrs_epi16(first, low);
                let line = _mm512_packs_epi16(first, _mm512_mulhrs_epi16(second, high));
                sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), line);
                store_line(line, &mut lines[block]);
            }
            let starts = _mm512_slli_epi32::<7>(_mm512_sub_epi32(_mm512_setzero_si512(), sums));
            store_integers(starts, &mut group.starts[block]);
        }
    }
}

/// Fraction bits of products of codes in [`expand_minima`]. Codes times scales and minima are below
/// 2⁸ in units of the row's scale, so that products and their sums fit 16 bits.
const FRACTION_BITS: u32 = 7;

/// [`expand`] of encodings with minima: the largest weight that a row could have becomes 127.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn expand_minima<E: Lines>(
    kernel: Avx512,
    tiles: E::Bytes<'_>,
    block: usize,
    panel: &mut [PanelGroup<BLOCKS>],
    scales: &mut [f32; TILE_ROWS],
) {
    let groups_a_tile = E::COLS / ACTIVATION_GROUP;
    let tiles = tiles.each(E::TILE_BYTES);
    let mut largest = _mm512_setzero_ps();
    for (tile, groups) in tiles.clone().zip(panel.chunks(groups_a_tile)) {
        for group in 0..groups.len() {
            for half in 0..parts::<E>() {
                let minima = minima_of::<E>(tile.first(), group, half).expect("an encoding with minima");
                let steps = _mm512_set1_ps(E::LARGEST_CODE as f32);
                let maxima = _mm512_fmadd_ps(scales_of::<E>(tile.first(), group, half), steps, minima);
                let both = _mm512_max_ps(_mm512_abs_ps(minima), _mm512_abs_ps(maxima));
                largest = _mm512_max_ps(largest, both);
            }
        }
    }
    store_floats(_mm512_mul_ps(largest, _mm512_set1_ps(1.0 / 127.0)), scales);
    let factor = inverse(127.0 * (1 << FRACTION_BITS) as f32, largest);
    let (zero, half_unit) = (_mm512_setzero_si512(), _mm512_set1_ps((1 << (FRACTION_BITS - 1)) as f32));
    for (tile, groups) in tiles.zip(panel.chunks_mut(groups_a_tile)) {
        for (index, group) in groups.iter_mut().enumerate() {
            let terms = |half| {
                let minima = minima_of::<E>(tile.first(), index, half).expect("an encoding with minima");
                let scales = _mm512_mul_ps(scales_of::<E>(tile.first(), index, half), factor);
                let minima = _mm512_fmadd_ps(minima, factor, half_unit);
                [scales, minima].map(|floats| in_all_bytes(_mm512_cvtps_epi32(floats)))
            };
            let terms = [terms(0), terms(parts::<E>() - 1)];
            let mut sums = _mm512_setzero_si512();
            for (four, lines) in group.lines.iter_mut().enumerate() {
                let [[low, high], [low_minima, high_minima]] = terms[four / 4];
                let line = E::line(kernel, tile, index, four);
                let first = _mm512_mullo_epi16(_mm512_unpacklo_epi8(line, zero), low);
                let second = _mm512_mullo_epi16(_mm512_unpackhi_epi8(line, zero), high);
                let first = _mm512_srai_epi16::<FRACTION_BITS>(_mm512_add_epi16(first, low_minima));
                let second = _mm512_srai_epi16::<FRACTION_BITS>(_mm512_add_epi16(second, high_minima));
                let line = _mm512_packs_epi16(first, second);
                sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), line);
                store_line(line, &mut lines[block]);
            }
            let starts = _mm512_slli_epi32::<7>(_mm512_sub_epi32(_mm512_setzero_si512(), sums));
            store_integers(starts, &mut group.starts[block]);
        }
    }
}

/// Parts of a group of activations with scales of their own.
const fn parts<E: Lines>() -> usize {
    if E::IS_SPLIT { 2 } else { 1 }
}

inlined! {
    /// `dividend / largest`; 0 where `largest` is 0.
    fn inverse(dividend: f32, largest: __m512) -> __m512 {
        let quotient = _mm512_div_ps(_mm512_set1_ps(dividend), largest);
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(largest, _mm512_setzero_ps()), quotient)
    }
}

inlined! {
    /// Each row's integer, of 16 bits, for its four bytes widened to 16 bits: for the low and the high
    /// half of each lane.
    pub fn in_all_bytes(rows: __m512i) -> [__m512i; 2] {
        let twice = _mm512_mask_mov_epi16(rows, 0xaaaa_aaaa, _mm512_slli_epi32::<16>(rows));
        [_mm512_unpacklo_epi32(twice, twice), _mm512_unpackhi_epi32(twice, twice)]
    }
}

/// Sums are at most 255 · 128 · 32 in size: exact in i32.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add(
    panel: &[PanelGroup<BLOCKS>],
    scales: &Scales<BLOCKS>,
    x: &[PackedGroup],
    fresh: bool,
    sums: &mut Sums<BLOCKS>,
) {
    assert_eq!(panel.len(), x.len());
    let mut floats = [[_mm512_setzero_ps(); BLOCKS]; PACKED_TOKENS];
    for (group, x) in panel.iter().zip(x) {
        let mut whole = [group.starts.each_ref().map(load_integers); PACKED_TOKENS];
        let (words, x_scales) = x.as_chunks::<PACKED_TOKENS>().0.split_at(8);
        for (lines, words) in group.lines.iter().zip(words) {
            let lines = lines.each_ref().map(load_line);
            for (whole, &word) in whole.iter_mut().zip(words) {
                let x = _mm512_set1_epi32(word.cast_signed());
                for (whole, line) in whole.iter_mut().zip(lines) {
                    *whole = _mm512_dpbusd_epi32(*whole, x, line);
                }
            }
        }
        for ((floats, whole), &scale) in floats.iter_mut().zip(whole).zip(&x_scales[0]) {
            let scale = _mm512_set1_ps(f32::from_bits(scale));
            for (floats, whole) in floats.iter_mut().zip(whole) {
                *floats = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, *floats);
            }
        }
    }
    let scales = scales.each_ref().map(load_floats_of);
    for (floats, sums) in floats.into_iter().zip(sums) {
        for ((floats, scale), sums) in floats.into_iter().zip(scales).zip(sums) {
            let before = if fresh { _mm512_setzero_ps() } else { load_floats_of(sums) };
            store_floats(_mm512_fmadd_ps(floats, scale, before), sums);
        }
    }
}
