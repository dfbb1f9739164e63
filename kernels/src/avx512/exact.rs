//! Panels of 32 rows with `vpdpbusd` that keep every level, scale and minimum.
//!
//! A sum over the columns of one scale is multiplied with both scales, one multiplication more than
//! in [`panel`](super::panel).

use super::Avx512;
use super::lines::{Lines, minima as minima_of, scales as scales_of, zeros as zeros_of};
use super::memory::{load_floats_of, load_integers, load_line, store_floats, store_integers, store_line};
use super::panel::BLOCKS;
use crate::activations::{ACTIVATION_GROUP, PACKED_TOKENS, PackedGroup};
use crate::avx2::prefetch;
use crate::panels::{Line, Panel, Scales, Sums};
use pith_format::TILE_ROWS;
use std::arch::x86_64::*;

/// The kernel of these panels, for encodings whose groups of 32 columns have `PARTS` scales, and a
/// minimum if `MINIMA` is 1. Zero points become part of the levels.
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

    fn expand(&self, tiles: &[u8], block: usize, panel: &mut [Self::Group], _: &mut [f32; TILE_ROWS]) {
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
    tiles: &[u8],
    block: usize,
    panel: &mut [Group<PARTS, MINIMA>],
) {
    let shift = E::ZERO_SHIFT.unwrap_or(0);
    let unit = _mm512_set1_ps(1.0 / (1 << shift) as f32);
    let shift = _mm_cvtsi32_si128(shift as i32);
    let groups_a_tile = E::COLS / ACTIVATION_GROUP;
    for (tile, groups) in tiles.chunks_exact(E::BYTES).zip(panel.chunks_mut(groups_a_tile)) {
        for (index, group) in groups.iter_mut().enumerate() {
            let mut sums = [_mm512_setzero_si512(); PARTS];
            let offset = match E::ZERO_SHIFT {
                Some(_) => zeros_of::<E>(tile, index),
                None => _mm512_set1_epi8(E::OFFSET as i8),
            };
            for (four, lines) in group.lines.iter_mut().enumerate() {
                let sums = &mut sums[four * PARTS / 8];
                // Codes with zero points are so small that no bit leaves its byte.
                let line = _mm512_sll_epi16(E::line(kernel, tile, index, four), shift);
                let line = _mm512_sub_epi8(line, offset);
                *sums = _mm512_dpbusd_epi32(*sums, _mm512_set1_epi8(1), line);
                store_line(line, &mut lines[block]);
            }
            for (part, sums) in sums.into_iter().enumerate() {
                let start = _mm512_sub_epi32(_mm512_setzero_si512(), sums);
                store_integers(_mm512_slli_epi32::<7>(start), &mut group.starts[part][block]);
                let scales = _mm512_mul_ps(scales_of::<E>(tile, index, part), unit);
                store_floats(scales, &mut group.scales[part][block]);
            }
            for minima in &mut group.minima {
                let minimum = minima_of::<E>(tile, index, 0).expect("an encoding with minima");
                store_floats(minimum, &mut minima[block]);
            }
        }
    }
}

/// Sums are at most 255 · 128 · 32 in size: exact in i32.
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
        for part in 0..PARTS {
            let starts = group.starts[part].each_ref().map(load_integers);
            let mut whole = [starts; PACKED_TOKENS];
            let fours = part * 8 / PARTS..(part + 1) * 8 / PARTS;
            for (lines, words) in group.lines[fours.clone()].iter().zip(&words[fours]) {
                let lines = lines.each_ref().map(load_line);
                for (whole, &word) in whole.iter_mut().zip(words) {
                    let x = _mm512_set1_epi32(word.cast_signed());
                    for (whole, line) in whole.iter_mut().zip(lines) {
                        *whole = _mm512_dpbusd_epi32(*whole, x, line);
                    }
                }
            }
            let scales = group.scales[part].each_ref().map(load_floats_of);
            for ((floats, whole), &x_scale) in floats.iter_mut().zip(whole).zip(&x_floats[0]) {
                let x_scale = _mm512_set1_ps(f32::from_bits(x_scale));
                for ((floats, whole), scale) in floats.iter_mut().zip(whole).zip(scales) {
                    let scale = _mm512_mul_ps(scale, x_scale);
                    *floats = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, *floats);
                }
            }
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
