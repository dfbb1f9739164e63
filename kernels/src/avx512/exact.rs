//! Panels of 32 rows with `vpdpbusd` that keep every level and every scale: for encodings of 8 bits,
//! where rounding again to 8 bits would cost as much as the first rounding did.
//!
//! A sum over 32 columns gets the product of its scales, one multiplication more than in
//! [`panel`](super::panel).

use super::Avx512;
use super::lines::{Lines, scales as scales_of};
use super::memory::{load_floats_of, load_integers, load_line, store_floats, store_integers, store_line};
use super::panel::BLOCKS;
use crate::activations::{ACTIVATION_GROUP, PACKED_TOKENS, PackedGroup};
use crate::avx2::prefetch;
use crate::panels::{Panel, PanelGroup, Scales, Sums};
use pith_format::TILE_ROWS;
use std::arch::x86_64::*;

/// The kernel of these panels.
pub struct Exact(pub Avx512);

/// 32 columns of a panel, and their scales.
#[derive(Clone, Copy)]
pub struct Group {
    levels: PanelGroup<BLOCKS>,
    scales: Scales<BLOCKS>,
}

impl<E: Lines> Panel<BLOCKS, E> for Exact {
    type Group = Group;
    const ZEROS: Group = Group { levels: PanelGroup::ZEROS, scales: [[0.0; TILE_ROWS]; BLOCKS] };
    /// 20 KB.
    /// 26 KB. The narrowest models have one panel.
    const COLS: usize = 640;

    fn expand(&self, tiles: &[u8], block: usize, panel: &mut [Group], _: &mut [f32; TILE_ROWS]) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { expand::<E>(self.0, tiles, block, panel) }
    }

    fn prefetch(&self, bytes: &[u8]) {
        prefetch(bytes);
    }

    fn add(
        &self,
        panel: &[Group],
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
fn expand<E: Lines>(kernel: Avx512, tiles: &[u8], block: usize, panel: &mut [Group]) {
    let offset = _mm512_set1_epi8(E::OFFSET as i8);
    let groups_a_tile = E::COLS / ACTIVATION_GROUP;
    for (tile, groups) in tiles.chunks_exact(E::BYTES).zip(panel.chunks_mut(groups_a_tile)) {
        for (index, group) in groups.iter_mut().enumerate() {
            let mut sums = _mm512_setzero_si512();
            for (four, lines) in group.levels.lines.iter_mut().enumerate() {
                let line = _mm512_sub_epi8(E::line(kernel, tile, index, four), offset);
                sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), line);
                store_line(line, &mut lines[block]);
            }
            let starts = _mm512_slli_epi32::<7>(_mm512_sub_epi32(_mm512_setzero_si512(), sums));
            store_integers(starts, &mut group.levels.starts[block]);
            store_floats(scales_of::<E>(tile, index, 0), &mut group.scales[block]);
        }
    }
}

/// Sums are at most 255 · 128 · 32 in size: exact in i32.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add(panel: &[Group], x: &[PackedGroup], fresh: bool, sums: &mut Sums<BLOCKS>) {
    assert_eq!(panel.len(), x.len());
    let mut floats = [[_mm512_setzero_ps(); BLOCKS]; PACKED_TOKENS];
    for (group, x) in panel.iter().zip(x) {
        let starts = group.levels.starts.each_ref().map(|starts| load_integers(starts));
        let mut whole = [starts; PACKED_TOKENS];
        let (words, x_scales) = x.as_chunks::<PACKED_TOKENS>().0.split_at(8);
        for (lines, words) in group.levels.lines.iter().zip(words) {
            let lines = lines.each_ref().map(|line| load_line(line));
            for (whole, &word) in whole.iter_mut().zip(words) {
                let x = _mm512_set1_epi32(word.cast_signed());
                for (whole, line) in whole.iter_mut().zip(lines) {
                    *whole = _mm512_dpbusd_epi32(*whole, x, line);
                }
            }
        }
        let scales = group.scales.each_ref().map(|scales| load_floats_of(scales));
        for ((floats, whole), &x_scale) in floats.iter_mut().zip(whole).zip(&x_scales[0]) {
            let x_scale = _mm512_set1_ps(f32::from_bits(x_scale));
            for ((floats, whole), scale) in floats.iter_mut().zip(whole).zip(scales) {
                let scale = _mm512_mul_ps(scale, x_scale);
                *floats = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, *floats);
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
