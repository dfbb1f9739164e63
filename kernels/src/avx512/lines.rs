//! Unsigned codes, the form that `vpdpbusd` multiplies: a line is a register of 16 rows × 4
//! columns.
//!
//! Rotations move the codes of a plane into place. They are the same for all lines of a group, so a
//! loop over the groups of a half can share them. The other bits that a rotation moves along are
//! masked away, or are ignored by `vpshufb`, which reads the lowest four bits if the highest is 0.

use super::Avx512;
use super::memory::{broadcast_table, load_floats_of, load_halves, load_line, load_nibbles};
use crate::coded::Coded;
use pith_format::encoding::{
    Q2Tile, Q3Tile, Q4G64Tile, Q4NLTile, Q4Tile, Q5Tile, Q6Tile, Q8Tile, TernaryTile,
};
use std::arch::x86_64::*;

/// An encoding whose codes this module loads into registers.
pub trait Lines: Coded {
    /// Columns `4 · four ..` of a group of 32: level + `1 << OFFSET_BITS`.
    fn line(_: Avx512, tile: &[u8], group: usize, four: usize) -> __m512i;
}

/// Scales of the levels of a group of 32 columns, row by row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub fn scales<E: Coded>(tile: &[u8], group: usize) -> __m512 {
    let scales = load_halves(E::halves(tile, group));
    if !E::HAS_FACTORS {
        return scales;
    }
    // The permutation reads only the four lowest bits.
    let nibbles = load_nibbles(E::factor_bytes(tile, group));
    let nibbles = moved(nibbles, -4 * odd(group));
    _mm512_mul_ps(scales, _mm512_permutexvar_ps(nibbles, load_floats_of(&E::FACTORS)))
}

/// 1 for the second group of a half of 64 columns.
#[inline(always)]
fn odd(group: usize) -> i32 {
    (group % 2) as i32
}

/// Rotates left within 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn moved(line: __m512i, bits: i32) -> __m512i {
    _mm512_rolv_epi32(line, _mm512_set1_epi32(bits & 31))
}

/// Low or high nibbles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(line: &[u8; 64], high: i32) -> __m512i {
    _mm512_and_si512(moved(load_line(line), -4 * high), _mm512_set1_epi8(15))
}

/// Bits of `a` where `mask` is 1, of `b` where it is 0.
#[inline]
#[target_feature(enable = "avx512f")]
fn select(mask: u8, a: __m512i, b: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi8(mask.cast_signed()), a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn masked(line: __m512i, mask: u8) -> __m512i {
    _mm512_and_si512(line, _mm512_set1_epi8(mask.cast_signed()))
}

/// Unsigned codes of the levels numbered `indices`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn looked_up<E: Coded>(indices: __m512i) -> __m512i {
    _mm512_shuffle_epi8(broadcast_table(&E::TABLE), indices)
}

/// Line `index` of a half of a plane of `bits` bits whose first byte is `at`.
#[inline(always)]
fn plane(tile: &[u8], at: usize, bits: usize, group: usize, index: usize) -> &[u8; 64] {
    &tile[at..].as_chunks().0[group / 2 * 2 * bits + index]
}

/// 4-bit codes with those of a plane of `BITS` bits above them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn with_high_plane<const BITS: usize>(tile: &[u8], group: usize, four: usize) -> __m512i {
    let low = moved(load_line(plane(tile, 0, 4, group, four)), -4 * odd(group));
    let high = load_line(plane(tile, 1024, BITS, group, four % (2 * BITS)));
    let high = moved(high, 4 - 4 * odd(group) - (BITS * (four / (2 * BITS))) as i32);
    select(15, low, masked(high, ((1 << BITS) - 1) << 4))
}

/// A line of 2-bit codes: in the low nibbles for a half's first group, in the high nibbles for its
/// second.
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(tile: &[u8], group: usize, four: usize) -> __m512i {
    moved(load_line(plane(tile, 0, 2, group, four % 4)), -2 * (four / 4) as i32)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn q8(tile: &[u8], group: usize, four: usize) -> __m512i {
    _mm512_xor_si512(load_line(&tile.as_chunks().0[8 * group + four]), _mm512_set1_epi8(i8::MIN))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn q4(tile: &[u8], group: usize, four: usize) -> __m512i {
    nibbles(&tile.as_chunks().0[4 * group + four % 4], (four / 4) as i32)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn q4g64(tile: &[u8], group: usize, four: usize) -> __m512i {
    nibbles(plane(tile, 0, 4, group, four), odd(group))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn q4nl(tile: &[u8], group: usize, four: usize) -> __m512i {
    looked_up::<Q4NLTile>(nibbles(plane(tile, 0, 4, group, four), odd(group)))
}

/// A line's high bits belong to fours `l + 4k`, at bit `l / 2 + 2k`: two steps of `k` fill the
/// nibbles of both groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn q3(tile: &[u8], group: usize, four: usize) -> __m512i {
    let high = load_line(plane(tile, 512, 1, group, four % 2));
    let high = moved(high, 2 - 2 * (four / 4) as i32 - (four % 4 / 2) as i32);
    let both = select(0x33, pairs(tile, group, four), masked(high, 0x44));
    looked_up::<Q3Tile>(moved(both, -4 * odd(group)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn q2(tile: &[u8], group: usize, four: usize) -> __m512i {
    let both = masked(pairs(tile, group, four), 0x33);
    looked_up::<Q2Tile>(moved(both, -4 * odd(group)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn ternary(tile: &[u8], group: usize, four: usize) -> __m512i {
    let line = load_line(plane(tile, 0, 2, group, four % 4));
    masked(moved(line, -4 * odd(group) - 2 * (four / 4) as i32), 3)
}

macro_rules! lines {
    ($($tile:ident $line:expr,)*) => {$(
        impl Lines for $tile {
            #[inline(always)]
            fn line(_: Avx512, tile: &[u8], group: usize, four: usize) -> __m512i {
                // SAFETY: a value of `Avx512` exists only where `detect` found the features.
                unsafe { $line(tile, group, four) }
            }
        }
    )*};
}

lines! {
    Q8Tile q8,
    Q6Tile with_high_plane::<2>,
    Q5Tile with_high_plane::<1>,
    Q4Tile q4,
    Q4G64Tile q4g64,
    Q4NLTile q4nl,
    Q3Tile q3,
    Q2Tile q2,
    TernaryTile ternary,
}
