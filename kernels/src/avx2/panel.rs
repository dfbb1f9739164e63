//! Panels of levels below 8 bits with `vpmaddubsw`: 16 rows, a micro-kernel of 16 rows × 3 tokens,
//! whose integer and float sums take 12 registers.
//!
//! Levels and scales are the encoding's own. A product of an activation byte (at most 255) and a
//! 4-bit level is at most 255 · 8 in size. Two of them fit i16, and so do eight such pairs: 32
//! columns are summed in i16 and widened once. The sums start at `−128 · Σ levels`. They may wrap
//! around on the way; the final sum of at most 127 · 8 · 16 fits, so it wraps back. Larger levels
//! are widened after fewer [pairs](crate::coded::Coded::LEVEL_PAIRS), and their sums start in i32.
//!
//! Two 8-bit products overflow i16 by themselves: there a panel gains nothing over
//! [blocks](super::q8).

use super::Avx2;
use super::lines::{Lines, minima as minima_of, scales};
use super::memory::{
    halves, halves_mut, in_turn, load_bytes, load_floats, prefetch, store_bytes, store_floats,
};
use crate::activations::{ACTIVATION_GROUP, PACKED_TOKENS, PackedGroup};
use crate::panels::{Line, Panel, Scales, Sums};
use crate::tiles::Tiles;
use pith_format::TILE_ROWS;
use std::arch::x86_64::*;

/// Tokens of the micro-kernel.
const TOKENS: usize = PACKED_TOKENS / 2;

/// The kernel of these panels, for encodings whose groups of 32 columns have `PARTS` scales, and a
/// minimum if `MINIMA` is 1.
pub struct Levels<const PARTS: usize, const MINIMA: usize>(pub Avx2);

/// Whether an encoding has panels here.
pub const fn has_panels<E: Lines>() -> bool {
    E::LEVEL_PAIRS != 0 && !(E::IS_SPLIT && E::MINIMA.is_some())
}

/// 32 columns of a panel.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Group<const PARTS: usize, const MINIMA: usize> {
    /// Signed codes, four columns per line.
    lines: [Line; 8],
    /// `−128 · Σ codes` of every row and part in i32; where 8 pairs fit and there is one part, of its
    /// even and its odd pairs of columns in i16.
    starts: [Line; PARTS],
    scales: [[f32; TILE_ROWS]; PARTS],
    /// Value of level 0.
    minima: [[f32; TILE_ROWS]; MINIMA],
}

impl<E: Lines, const PARTS: usize, const MINIMA: usize> Panel<1, E> for Levels<PARTS, MINIMA> {
    type Group = Group<PARTS, MINIMA>;
    const ZEROS: Self::Group = Group {
        lines: [[0; 64]; 8],
        starts: [[0; 64]; PARTS],
        scales: [[0.0; TILE_ROWS]; PARTS],
        minima: [[0.0; TILE_ROWS]; MINIMA],
    };

    fn expand(&self, tiles: E::Bytes<'_>, _: usize, panel: &mut [Self::Group], _: &mut [f32; TILE_ROWS]) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { expand::<E, PARTS, MINIMA>(self.0, tiles, panel) }
    }

    fn prefetch(&self, bytes: &[u8]) {
        prefetch(bytes);
    }

    fn add(&self, panel: &[Self::Group], _: &Scales<1>, x: &[PackedGroup], fresh: bool, sums: &mut Sums<1>) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { add::<E, 0, PARTS, MINIMA>(panel, x, fresh, sums) }
        // SAFETY: as above.
        unsafe { add::<E, TOKENS, PARTS, MINIMA>(panel, x, fresh, sums) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn expand<E: Lines, const PARTS: usize, const MINIMA: usize>(
    kernel: Avx2,
    tiles: E::Bytes<'_>,
    panel: &mut [Group<PARTS, MINIMA>],
) {
    let (zero, ones) = (_mm256_setzero_si256(), _mm256_set1_epi8(1));
    let offset = _mm256_set1_epi8(E::OFFSET as i8);
    for (tile, groups) in tiles.each(E::TILE_BYTES).zip(panel.chunks_mut(E::COLS / ACTIVATION_GROUP)) {
        for (index, group) in groups.iter_mut().enumerate() {
            for side in 0..2 {
                let mut sums = [zero; PARTS];
                for (four, line) in group.lines.iter_mut().enumerate() {
                    let levels = _mm256_sub_epi8(E::line(kernel, tile, index, four, side), offset);
                    let sum = &mut sums[four * PARTS / 8];
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(ones, levels));
                    store_bytes(levels, &mut halves_mut(line)[side]);
                }
                for (part, sum) in sums.into_iter().enumerate() {
                    let starts = match (E::LEVEL_PAIRS, PARTS) {
                        (8, 1) => _mm256_slli_epi16::<7>(_mm256_sub_epi16(zero, sum)),
                        _ => _mm256_madd_epi16(sum, _mm256_set1_epi16(-128)),
                    };
                    store_bytes(starts, &mut halves_mut(&mut group.starts[part])[side]);
                    let scales = scales::<E>(tile.first(), index, part, side);
                    store_floats(scales, &mut halves_mut(&mut group.scales[part])[side]);
                }
                for minima in &mut group.minima {
                    let minimum =
                        minima_of::<E>(tile.first(), index, 0, side).expect("an encoding with minima");
                    store_floats(minimum, &mut halves_mut(minima)[side]);
                }
            }
        }
    }
}

/// Tokens from `FIRST` on.
#[target_feature(enable = "avx2,fma,f16c")]
fn add<E: Lines, const FIRST: usize, const PARTS: usize, const MINIMA: usize>(
    panel: &[Group<PARTS, MINIMA>],
    x: &[PackedGroup],
    fresh: bool,
    sums: &mut Sums<1>,
) {
    assert_eq!(panel.len(), x.len());
    let mut floats = [[_mm256_setzero_ps(); 2]; TOKENS];
    for (group, x) in panel.iter().zip(x) {
        let (words, x_floats) = x.as_chunks::<PACKED_TOKENS>().0.split_at(8);
        for part in 0..PARTS {
            let fours = part * 8 / PARTS..(part + 1) * 8 / PARTS;
            let (lines, words) = (&group.lines[fours.clone()], &words[fours]);
            let whole = match (E::LEVEL_PAIRS, PARTS) {
                (8, 1) => sums_of_8::<FIRST>(lines, &group.starts[part], words),
                _ => sums_of_fewer::<E, FIRST>(lines, &group.starts[part], words),
            };
            let scales = halves(&group.scales[part]).each_ref().map(load_floats);
            for (token, (floats, whole)) in floats.iter_mut().zip(whole).enumerate() {
                let x_scale = _mm256_set1_ps(f32::from_bits(x_floats[0][FIRST + token]));
                for ((floats, whole), scale) in floats.iter_mut().zip(whole).zip(scales) {
                    let whole = _mm256_cvtepi32_ps(whole);
                    *floats = _mm256_fmadd_ps(whole, _mm256_mul_ps(scale, x_scale), *floats);
                }
            }
        }
        for minima in &group.minima {
            let minima = halves(minima).each_ref().map(load_floats);
            for (token, floats) in floats.iter_mut().enumerate() {
                let x_sum = _mm256_set1_ps(f32::from_bits(x_floats[1][FIRST + token]));
                for (floats, minima) in floats.iter_mut().zip(minima) {
                    *floats = _mm256_fmadd_ps(minima, x_sum, *floats);
                }
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

inlined! {
    /// Sums of a group for three tokens where all 8 pairs fit i16.
    fn sums_of_8<const FIRST: usize>(
        lines: &[Line],
        starts: &Line,
        words: &[[u32; PACKED_TOKENS]],
    ) -> [[__m256i; 2]; TOKENS] {
        let mut pairs = [halves(starts).each_ref().map(load_bytes); TOKENS];
        for (line, words) in lines.iter().zip(words) {
            let line = halves(line).each_ref().map(load_bytes);
            for (token, pairs) in pairs.iter_mut().enumerate() {
                let x = _mm256_set1_epi32(words[FIRST + token].cast_signed());
                for (pairs, codes) in pairs.iter_mut().zip(line) {
                    *pairs = in_turn(_mm256_add_epi16(*pairs, _mm256_maddubs_epi16(x, codes)));
                }
            }
        }
        let ones = _mm256_set1_epi16(1);
        pairs.map(|pairs| pairs.map(|pairs| _mm256_madd_epi16(pairs, ones)))
    }
}

inlined! {
    /// Sums of a group, or of a half, for three tokens where fewer pairs fit i16.
    fn sums_of_fewer<E: Lines, const FIRST: usize>(
        lines: &[Line],
        starts: &Line,
        words: &[[u32; PACKED_TOKENS]],
    ) -> [[__m256i; 2]; TOKENS] {
        let ones = _mm256_set1_epi16(1);
        let mut whole = [halves(starts).each_ref().map(load_bytes); TOKENS];
        let pairs = E::LEVEL_PAIRS.min(lines.len());
        for (lines, words) in lines.chunks_exact(pairs).zip(words.chunks_exact(pairs)) {
            for (token, whole) in whole.iter_mut().enumerate() {
                for (side, whole) in whole.iter_mut().enumerate() {
                    let mut pairs = _mm256_setzero_si256();
                    for (line, words) in lines.iter().zip(words) {
                        let x = _mm256_set1_epi32(words[FIRST + token].cast_signed());
                        let line = load_bytes(&halves(line)[side]);
                        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(x, line));
                    }
                    *whole = in_turn(_mm256_add_epi32(*whole, _mm256_madd_epi16(pairs, ones)));
                }
            }
        }
        whole
    }
}
