//! Panels of 32 rows with `vpdpbusd`: tiles of 32 rows × 6 tokens, whose integer and float sums take 24 registers.

use super::Avx512;
use super::memory::{load_floats_of, load_halves, load_integers, load_line, store_floats, store_integers};
use crate::activations::{PACKED_TOKENS, PackedGroup};
use crate::avx2::prefetch;
use crate::panels::{Expand, Panel, PanelGroup, Sums, expand};
use pith_format::TILE_ROWS;
use std::arch::x86_64::*;

/// Blocks of a panel.
pub const BLOCKS: usize = 2;

impl Panel<BLOCKS> for Avx512 {
    fn expand<E: Expand>(&self, tiles: &[u8], block: usize, panel: &mut [PanelGroup<BLOCKS>]) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { expand_tiles::<E>(tiles, block, panel) }
    }

    fn prefetch(&self, bytes: &[u8]) {
        prefetch(bytes);
    }

    fn add(&self, panel: &[PanelGroup<BLOCKS>], x: &[PackedGroup], sums: &mut Sums<BLOCKS>) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { add(panel, x, sums) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn expand_tiles<E: Expand>(tiles: &[u8], block: usize, panel: &mut [PanelGroup<BLOCKS>]) {
    let widen = |halves: &[u8; 32]| {
        let mut out = [0.0; TILE_ROWS];
        store_floats(load_halves(halves), &mut out);
        out
    };
    expand::<BLOCKS, E>(tiles, block, panel, widen, |lines| {
        let (mut sums, mut out) = (_mm512_setzero_si512(), [0; TILE_ROWS]);
        for line in lines {
            sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), load_line(line));
        }
        store_integers(sums, &mut out);
        out
    });
}

/// At most 255 · 128 · 32 in size: exact in i32.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add(panel: &[PanelGroup<BLOCKS>], x: &[PackedGroup], sums: &mut Sums<BLOCKS>) {
    assert_eq!(panel.len(), x.len());
    let mut floats = [[_mm512_setzero_ps(); BLOCKS]; PACKED_TOKENS];
    for (floats, sums) in floats.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *floats = load_floats_of(sums);
    }
    for (group, x) in panel.iter().zip(x) {
        let mut whole = [group.starts.each_ref().map(|starts| load_integers(starts)); PACKED_TOKENS];
        let (words, scales) = x.as_chunks::<PACKED_TOKENS>().0.split_at(8);
        for (lines, words) in group.lines.iter().zip(words) {
            let lines = lines.each_ref().map(|line| load_line(line));
            for (whole, &word) in whole.iter_mut().zip(words) {
                let x = _mm512_set1_epi32(word.cast_signed());
                for (whole, line) in whole.iter_mut().zip(lines) {
                    *whole = _mm512_dpbusd_epi32(*whole, x, line);
                }
            }
        }
        let weight_scales = group.scales.each_ref().map(|scales| load_floats_of(scales));
        for ((floats, whole), &scale) in floats.iter_mut().zip(whole).zip(&scales[0]) {
            let x = _mm512_set1_ps(f32::from_bits(scale));
            for ((floats, whole), scale) in floats.iter_mut().zip(whole).zip(weight_scales) {
                *floats = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), _mm512_mul_ps(scale, x), *floats);
            }
        }
    }
    for (floats, sums) in floats.as_flattened().iter().zip(sums.as_flattened_mut()) {
        store_floats(*floats, sums);
    }
}
