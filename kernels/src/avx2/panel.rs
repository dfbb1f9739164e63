//! Panels of 4-bit codes with `vpmaddubsw`: 16 rows, tiles of 16 rows × 3 tokens, whose integer and float sums take 12
//! registers.
//!
//! Codes and scales are those of the encoding. A product of an activation's byte, at most 255, with a code of 4 bits is at
//! most 255 · 8 in size, two of them fit i16, and eight such pairs as well: 32 columns are summed in i16 and widened once.
//! The sums start at `−128 · Σ codes`; what wraps around on the way to a sum of at most 127 · 8 · 16 wraps back.
//!
//! Two products of 8 bits fill i16 by themselves, and each pair is widened at once: there a panel gains nothing over
//! [blocks](super::q8).

use super::Avx2;
use super::memory::{
    halves, halves_mut, in_turn, load_bytes, load_floats, load_half_bytes, load_pairs, prefetch,
    store_floats, store_pairs,
};
use crate::activations::{ACTIVATION_GROUP, PACKED_TOKENS, PackedGroup};
use crate::panels::{Expand, Line, Panel, Scales, Sums};
use pith_format::TILE_ROWS;
use pith_format::encoding::Tile;
use std::arch::x86_64::*;

/// Tokens of a tile.
const TOKENS: usize = PACKED_TOKENS / 2;

/// 32 columns of a panel.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Group {
    /// Signed codes of every four columns.
    lines: [Line; 8],
    /// `−128 · Σ codes` of every row, of its even and its odd pairs of columns.
    starts: [i16; 2 * TILE_ROWS],
    scales: [f32; TILE_ROWS],
}

impl Panel<1> for Avx2 {
    type Group = Group;
    const ZEROS: Group = Group { lines: [[0; 64]; 8], starts: [0; 2 * TILE_ROWS], scales: [0.0; TILE_ROWS] };

    fn expand<E: Expand>(&self, tiles: &[u8], _: usize, panel: &mut [Group], _: &mut [f32; TILE_ROWS]) {
        const { assert!(E::UNIT == 16.0, "codes of more than 4 bits") };
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { expand::<E>(tiles, panel) }
    }

    fn prefetch(&self, bytes: &[u8]) {
        prefetch(bytes);
    }

    fn add(&self, panel: &[Group], _: &Scales<1>, x: &[PackedGroup], fresh: bool, sums: &mut Sums<1>) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { add::<0>(panel, x, fresh, sums) }
        // SAFETY: as above.
        unsafe { add::<TOKENS>(panel, x, fresh, sums) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn expand<E: Expand>(tiles: &[u8], panel: &mut [Group]) {
    let groups_a_tile = E::Tile::COLS / ACTIVATION_GROUP;
    let ones = _mm256_set1_epi8(1);
    for (tile, groups) in tiles.chunks_exact(E::Tile::BYTES).zip(panel.chunks_mut(groups_a_tile)) {
        E::lines(tile, |group, four, line| {
            if let Some(group) = groups.get_mut(group) {
                group.lines[four] = line.map(|byte| (byte.cast_signed() >> 4).cast_unsigned());
            }
        });
        for (index, group) in groups.iter_mut().enumerate() {
            let scales = halves(E::scales(tile, index)).each_ref().map(|halves| load_half_bytes(halves));
            for (out, scales) in halves_mut(&mut group.scales).iter_mut().zip(scales) {
                store_floats(scales, out);
            }
            let mut sums = [_mm256_setzero_si256(); 2];
            for line in &group.lines {
                for (sum, line) in sums.iter_mut().zip(halves(line)) {
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(ones, load_bytes(line)));
                }
            }
            for (out, sum) in halves_mut(&mut group.starts).iter_mut().zip(sums) {
                store_pairs(_mm256_slli_epi16::<7>(_mm256_sub_epi16(_mm256_setzero_si256(), sum)), out);
            }
        }
    }
}

/// Tokens from `FIRST` on.
#[target_feature(enable = "avx2,fma,f16c")]
fn add<const FIRST: usize>(panel: &[Group], x: &[PackedGroup], fresh: bool, sums: &mut Sums<1>) {
    assert_eq!(panel.len(), x.len());
    let ones = _mm256_set1_epi16(1);
    let mut floats = [[_mm256_setzero_ps(); 2]; TOKENS];
    for (group, x) in panel.iter().zip(x) {
        let mut pairs = [halves(&group.starts).each_ref().map(|starts| load_pairs(starts)); TOKENS];
        let (words, x_scales) = x.as_chunks::<PACKED_TOKENS>().0.split_at(8);
        for (line, words) in group.lines.iter().zip(words) {
            let line = halves(line).each_ref().map(|half| load_bytes(half));
            for (token, pairs) in pairs.iter_mut().enumerate() {
                let x = _mm256_set1_epi32(words[FIRST + token].cast_signed());
                for (pairs, codes) in pairs.iter_mut().zip(line) {
                    *pairs = in_turn(_mm256_add_epi16(*pairs, _mm256_maddubs_epi16(x, codes)));
                }
            }
        }
        let scales = halves(&group.scales).each_ref().map(|scales| load_floats(scales));
        for (token, (floats, pairs)) in floats.iter_mut().zip(pairs).enumerate() {
            let x_scale = _mm256_set1_ps(f32::from_bits(x_scales[0][FIRST + token]));
            for ((floats, pairs), scale) in floats.iter_mut().zip(pairs).zip(scales) {
                let whole = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, ones));
                *floats = _mm256_fmadd_ps(whole, _mm256_mul_ps(scale, x_scale), *floats);
            }
        }
    }
    for (floats, sums) in floats.into_iter().zip(&mut sums[FIRST..]) {
        for (floats, sums) in floats.into_iter().zip(halves_mut(&mut sums[0])) {
            let before = if fresh { _mm256_setzero_ps() } else { load_floats(sums) };
            store_floats(_mm256_add_ps(floats, before), sums);
        }
    }
}
