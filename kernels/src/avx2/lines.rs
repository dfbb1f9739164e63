//! Unsigned codes, the form that `vpmaddubsw` and `vpdpbusd` multiply: half a line is a register of
//! 8 rows × 4 columns.
//!
//! Shifts of 16 bits move the codes of a plane into place. The other bits that a shift moves along
//! are masked away, or are ignored by `vpshufb`, which reads the lowest four bits if the highest is
//! 0.

use super::Avx2;
use super::memory::{broadcast_table, halves, load_bytes, load_floats, load_half_bytes, load_nibbles};
use crate::coded::Coded;
use pith_format::encoding::{
    Q2Tile, Q3Tile, Q4G64Tile, Q4NLTile, Q4Tile, Q5Tile, Q6Tile, Q8Tile, TernaryTile,
};
use std::arch::x86_64::*;

/// An encoding whose codes this module loads into registers.
pub trait Lines: Coded {
    /// Columns `4 · four ..` of a group of 32, first or second 8 rows: level + `1 << OFFSET_BITS`.
    fn line(_: Avx2, tile: &[u8], group: usize, four: usize, side: usize) -> __m256i;
}

/// Scales of the levels of a group of 32 columns, for the first or the second 8 rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn scales<E: Coded>(tile: &[u8], group: usize, side: usize) -> __m256 {
    let scales = load_half_bytes(&halves(E::halves(tile, group))[side]);
    if !E::HAS_FACTORS {
        return scales;
    }
    // The permutation reads only the three lowest bits; the fourth, shifted to the sign, selects
    // the table.
    let nibbles = load_nibbles(&halves(E::factor_bytes(tile, group))[side]);
    let nibbles = if odd(group) == 1 { _mm256_srli_epi32::<4>(nibbles) } else { nibbles };
    let tables = halves(&E::FACTORS).each_ref().map(|table| load_floats(table));
    let [low, high] = tables.map(|table| _mm256_permutevar8x32_ps(table, nibbles));
    let factors = _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(nibbles)));
    _mm256_mul_ps(scales, factors)
}

/// 1 for the second group of a half of 64 columns.
#[inline(always)]
fn odd(group: usize) -> i32 {
    (group % 2) as i32
}

/// Shifts left within 16 bits, right for negative `bits`.
#[inline]
#[target_feature(enable = "avx2")]
fn moved(line: __m256i, bits: i32) -> __m256i {
    match bits {
        0 => line,
        1.. => _mm256_sll_epi16(line, _mm_cvtsi32_si128(bits)),
        _ => _mm256_srl_epi16(line, _mm_cvtsi32_si128(-bits)),
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn masked(line: __m256i, mask: u8) -> __m256i {
    _mm256_and_si256(line, _mm256_set1_epi8(mask.cast_signed()))
}

/// Unsigned codes of the levels numbered `indices`.
#[inline]
#[target_feature(enable = "avx2")]
fn looked_up<E: Coded>(indices: __m256i) -> __m256i {
    _mm256_shuffle_epi8(broadcast_table(&E::TABLE), indices)
}

/// Half of line `index` of the tile.
#[inline]
#[target_feature(enable = "avx2")]
fn load(tile: &[u8], index: usize, side: usize) -> __m256i {
    load_bytes(&tile.as_chunks().0[2 * index + side])
}

/// Half of line `index` of a half of a plane of `bits` bits whose first line is `at`.
#[inline]
#[target_feature(enable = "avx2")]
fn plane(tile: &[u8], at: usize, bits: usize, group: usize, index: usize, side: usize) -> __m256i {
    load(tile, at + group / 2 * 2 * bits + index, side)
}

/// 4-bit codes.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
    masked(moved(plane(tile, 0, 4, group, four, side), -4 * odd(group)), 15)
}

/// 4-bit codes with those of a plane of `BITS` bits above them.
#[inline]
#[target_feature(enable = "avx2")]
fn with_high_plane<const BITS: usize>(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
    let high = plane(tile, 16, BITS, group, four % (2 * BITS), side);
    let high = moved(high, 4 - 4 * odd(group) - (BITS * (four / (2 * BITS))) as i32);
    _mm256_or_si256(nibbles(tile, group, four, side), masked(high, ((1 << BITS) - 1) << 4))
}

/// Half a line of 2-bit codes: in the low nibbles for a half's first group, in the high nibbles for
/// its second.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
    masked(moved(plane(tile, 0, 2, group, four % 4, side), -2 * (four / 4) as i32), 0x33)
}

#[inline]
#[target_feature(enable = "avx2")]
fn q8(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
    _mm256_xor_si256(load(tile, 8 * group + four, side), _mm256_set1_epi8(i8::MIN))
}

#[inline]
#[target_feature(enable = "avx2")]
fn q4(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
    masked(moved(load(tile, 4 * group + four % 4, side), -4 * (four / 4) as i32), 15)
}

#[inline]
#[target_feature(enable = "avx2")]
fn q4nl(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
    looked_up::<Q4NLTile>(nibbles(tile, group, four, side))
}

/// A line's high bits belong to fours `l + 4k`, at bit `l / 2 + 2k`: two steps of `k` fill the
/// nibbles of both groups.
#[inline]
#[target_feature(enable = "avx2")]
fn q3(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
    let high = plane(tile, 8, 1, group, four % 2, side);
    let high = moved(high, 2 - 2 * (four / 4) as i32 - (four % 4 / 2) as i32);
    let both = _mm256_or_si256(pairs(tile, group, four, side), masked(high, 0x44));
    looked_up::<Q3Tile>(moved(both, -4 * odd(group)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn q2(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
    looked_up::<Q2Tile>(moved(pairs(tile, group, four, side), -4 * odd(group)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn ternary(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
    let line = plane(tile, 0, 2, group, four % 4, side);
    masked(moved(line, -4 * odd(group) - 2 * (four / 4) as i32), 3)
}

macro_rules! lines {
    ($($tile:ident $line:expr,)*) => {$(
        impl Lines for $tile {
            #[inline(always)]
            fn line(_: Avx2, tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
                // SAFETY: a value of `Avx2` exists only where `detect` found the features.
                unsafe { $line(tile, group, four, side) }
            }
        }
    )*};
}

lines! {
    Q8Tile q8,
    Q6Tile with_high_plane::<2>,
    Q5Tile with_high_plane::<1>,
    Q4Tile q4,
    Q4G64Tile nibbles,
    Q4NLTile q4nl,
    Q3Tile q3,
    Q2Tile q2,
    TernaryTile ternary,
}
