//! Unsigned codes, the form that `vpdpbusd` multiplies: a line is a register of 16 rows × 4
//! columns.
//!
//! Rotations move the codes of a plane into place. They are the same for all lines of a group, so a
//! loop over the groups of a run can share them. The other bits that a rotation moves along are
//! masked away, or are ignored by `vpshufb`, which reads the lowest four bits if the highest is 0.

use super::Avx512;
use super::memory::{
    broadcast_table, load_floats_of, load_halves, load_line, load_rows, load_signed_rows, load_words,
};
use crate::coded::{Coded, Order, Plain, place_of, plane_bytes};
use crate::tiles::Parts;
use pith_format::encoding::{FLOAT9_EXPONENT, First, Multiplier, Nested};
use std::arch::x86_64::*;

/// An encoding whose codes this module loads into registers.
pub trait Lines: Coded {
    /// Columns `4 · four ..` of a group of 32: level + [`Coded::OFFSET`].
    fn line(_: Avx512, tile: Self::Bytes<'_>, group: usize, four: usize) -> __m512i;
}

impl<F: First + Plain, const LOW: usize> Lines for Nested<F, LOW> {
    #[inline(always)]
    fn line(_: Avx512, tile: Parts<'_>, group: usize, four: usize) -> __m512i {
        joined::<F, LOW>(tile, group, four)
    }
}

impl<E: Plain> Lines for E {
    #[inline(always)]
    fn line(_: Avx512, tile: &[u8], group: usize, four: usize) -> __m512i {
        line::<E>(tile, group, four)
    }
}

inlined! {
    fn line<E: Coded>(tile: &[u8], group: usize, four: usize) -> __m512i {
        match E::ORDER {
            Order::Bytes => {
                _mm512_xor_si512(load_line(&tile.as_chunks().0[8 * group + four]), _mm512_set1_epi8(i8::MIN))
            }
            Order::Halves => nibbles(&tile.as_chunks().0[4 * group + four % 4], (four / 4) as i32),
            Order::Planes(4, 0) => level::<E>(nibbles(plane(tile, 0, 4, group, four), odd(group))),
            Order::Planes(4, high) => with_high_plane(tile, E::HIGH, high, group, four),
            Order::Planes(2, 0) if E::IS_TABLE => {
                level::<E>(moved(masked(pairs(tile, group, four), 0x33), -4 * odd(group)))
            }
            Order::Planes(2, 0) => {
                let line = load_line(plane(tile, 0, 2, group, four % 4));
                masked(moved(line, -4 * odd(group) - 2 * (four / 4) as i32), 3)
            }
            Order::Planes(..) => {
                let both = moved(with_single_bits(tile, E::HIGH, group, four), -4 * odd(group));
                if E::IS_TABLE { level::<E>(both) } else { masked(both, 7) }
            }
            Order::Digits => digits(tile, group, four),
            Order::Nested => unreachable!("it has two parts"),
        }
    }
}

inlined! {
    /// Codes of a first part above their low bits. Each plane moves its bits to their place, and masks
    /// pick them. Codes that are never written count as the least one that is: −128.
    fn joined<F: Plain, const LOW: usize>(tile: Parts<'_>, group: usize, four: usize) -> __m512i {
        let (half, odd) = ((four / 4) as i32, odd(group));
        let lowest = moved(load_line(plane(tile.low, 0, 4, group, four)), -4 * odd);
        let codes = match (F::ORDER, LOW) {
            (Order::Halves, 4) => {
                let high = load_line(&tile.first.as_chunks().0[4 * group + four % 4]);
                select(15, lowest, moved(high, 4 - 4 * half))
            }
            (Order::Planes(2, 1), 5) => {
                // Where the planes of single bits have them.
                let at = 4 * odd + (four / 2) as i32;
                let fifth = load_line(plane(tile.low, plane_bytes(4, F::COLS), 1, group, four % 2));
                let pairs = load_line(plane(tile.first, 0, 2, group, four % 4));
                let top = load_line(plane(tile.first, F::HIGH, 1, group, four % 2));
                let low = select(15, lowest, moved(fifth, 4 - at));
                let high = select(0x60, moved(pairs, 5 - 4 * odd - 2 * half), moved(top, 7 - at));
                select(31, low, high)
            }
            _ => unreachable!("no nested encoding has these parts"),
        };
        _mm512_max_epu8(codes, _mm512_set1_epi8(1 << (LOW - 1)))
    }
}

inlined! {
    /// Scales of the levels in the first or second half of a group of 32 columns, row by row. Halves
    /// differ in [split](Coded::IS_SPLIT) encodings alone.
    pub fn scales<E: Coded>(tile: &[u8], group: usize, half: usize) -> __m512 {
        multipliers::<E, false>(tile, 2 * group + half)
    }
}

inlined! {
    /// Minima of the weights, like [`scales`]; `None` where the encoding has none.
    pub fn minima<E: Coded>(tile: &[u8], group: usize, half: usize) -> Option<__m512> {
        if const { E::MINIMA.is_none() } {
            return None;
        }
        Some(multipliers::<E, true>(tile, 2 * group + half))
    }
}

inlined! {
    fn multipliers<E: Coded, const MINIMUM: bool>(tile: &[u8], index: usize) -> __m512 {
        // A constant, so that what remains is small enough to be inlined.
        let place = const { place_of::<E>(MINIMUM) };
        match place.multiplier {
            Multiplier::Half => load_halves(place.half_of::<E>(tile, index)),
            Multiplier::Fraction { shift } => {
                let unit = _mm512_set1_ps(1.0 / (1 << shift) as f32);
                _mm512_mul_ps(load_halves(place.half_of::<E>(tile, index)), unit)
            }
            Multiplier::Exponent => {
                let exponents = load_rows(place.low_of::<E>(tile, index).0);
                // The two smallest powers are subnormal.
                let least = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), exponents);
                let bits = _mm512_slli_epi32::<23>(_mm512_sub_epi32(exponents, _mm512_set1_epi32(1)));
                let is_least = _mm512_cmplt_epi32_mask(exponents, _mm512_set1_epi32(2));
                _mm512_castsi512_ps(_mm512_mask_mov_epi32(bits, is_least, least))
            }
            Multiplier::Float9 => small_floats(load_words(place.half_of::<E>(tile, index))),
            Multiplier::Zero { shift } => {
                let words = load_words(place.half_of::<E>(tile, index));
                let zeros = _mm512_cvtepi32_ps(_mm512_and_si512(words, _mm512_set1_epi32(0x7f)));
                let unit = _mm512_set1_ps(-1.0 / (1 << shift) as f32);
                _mm512_mul_ps(_mm512_mul_ps(small_floats(words), unit), zeros)
            }
            Multiplier::Factors(_) => {
                let scales = load_halves(place.half_of::<E>(tile, index));
                _mm512_mul_ps(scales, factors::<E, MINIMUM>(tile, index))
            }
        }
    }
}

inlined! {
    /// The zero points of a group of 32 columns, each in its row's four bytes.
    pub fn zeros<E: Coded>(tile: &[u8], group: usize) -> __m512i {
        let words = load_words(E::SCALES.half_of::<E>(tile, 2 * group));
        let zeros = _mm512_and_si512(words, _mm512_set1_epi32(0x7f));
        let twice = _mm512_or_si512(zeros, _mm512_slli_epi32::<8>(zeros));
        _mm512_or_si512(twice, _mm512_slli_epi32::<16>(twice))
    }
}

inlined! {
    /// The floats in the high bits of words.
    fn small_floats(words: __m512i) -> __m512 {
        let bits = _mm512_and_si512(_mm512_slli_epi32::<12>(words), _mm512_set1_epi32(0x1ff << 19));
        _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32((FLOAT9_EXPONENT << 23).cast_signed())))
    }
}

inlined! {
    /// The scales of a tile, row by row, that the integers of its groups are factors of.
    pub fn shared_scales<E: Coded>(tile: &[u8]) -> __m512 {
        load_halves(const { place_of::<E>(false) }.half_of::<E>(tile, 0))
    }
}

inlined! {
    /// The integers of a group as floats.
    pub fn factors<E: Coded, const MINIMUM: bool>(tile: &[u8], index: usize) -> __m512 {
        let place = const { place_of::<E>(MINIMUM) };
        let table = const { place_of::<E>(MINIMUM).multiplier.factors() };
        let (low, shift) = place.low_of::<E>(tile, index);
        if table.len() == 256 {
            return _mm512_cvtepi32_ps(load_signed_rows(low));
        }
        let low = _mm512_srl_epi32(load_rows(low), _mm_cvtsi32_si128(shift as i32));
        if table.len() == 16 && table[0] != 0 {
            // The permutation reads only the four lowest bits.
            return _mm512_permutexvar_ps(low, load_floats_of(&const { crate::coded::nibble_factors::<E>() }));
        }
        let mut codes = _mm512_and_si512(low, _mm512_set1_epi32(15));
        if table.len() == 64 {
            let (high, shift) = place.high_of::<E>(tile, index);
            let high = _mm512_srl_epi32(load_rows(high), _mm_cvtsi32_si128(shift as i32));
            let high = _mm512_slli_epi32::<4>(_mm512_and_si512(high, _mm512_set1_epi32(3)));
            codes = _mm512_or_si512(codes, high);
        }
        let first = _mm512_set1_epi32(i32::from(table[0]));
        _mm512_cvtepi32_ps(match table[1] > table[0] {
            true => _mm512_add_epi32(first, codes),
            false => _mm512_sub_epi32(first, codes),
        })
    }
}

/// 1 for the second group of a run of 64 columns.
#[inline(always)]
fn odd(group: usize) -> i32 {
    (group % 2) as i32
}

inlined! {
    /// Rotates left within 32 bits.
    fn moved(line: __m512i, bits: i32) -> __m512i {
        _mm512_rolv_epi32(line, _mm512_set1_epi32(bits & 31))
    }
}

inlined! {
    /// Low or high nibbles.
    fn nibbles(line: &[u8; 64], high: i32) -> __m512i {
        _mm512_and_si512(moved(load_line(line), -4 * high), _mm512_set1_epi8(15))
    }
}

inlined! {
    /// Bits of `a` where `mask` is 1, of `b` where it is 0.
    fn select(mask: u8, a: __m512i, b: __m512i) -> __m512i {
        _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi8(mask.cast_signed()), a, b)
    }
}

inlined! {
    fn masked(line: __m512i, mask: u8) -> __m512i {
        _mm512_and_si512(line, _mm512_set1_epi8(mask.cast_signed()))
    }
}

inlined! {
    /// Unsigned codes of levels: the codes themselves, or those of a table of 16.
    fn level<E: Coded>(codes: __m512i) -> __m512i {
        if E::IS_TABLE { _mm512_shuffle_epi8(broadcast_table(&E::TABLE), codes) } else { codes }
    }
}

/// Line `index` of a run of a plane of `bits` bits whose first byte is `at`.
#[inline(always)]
fn plane(tile: &[u8], at: usize, bits: usize, group: usize, index: usize) -> &[u8; 64] {
    &tile[at..].as_chunks().0[group / 2 * 2 * bits + index]
}

inlined! {
    /// 4-bit codes with those of a plane of `bits` bits, which begins at byte `at`, above them.
    fn with_high_plane(tile: &[u8], at: usize, bits: usize, group: usize, four: usize) -> __m512i {
        let low = moved(load_line(plane(tile, 0, 4, group, four)), -4 * odd(group));
        let high = load_line(plane(tile, at, bits, group, four % (2 * bits)));
        let high = moved(high, 4 - 4 * odd(group) - (bits * (four / (2 * bits))) as i32);
        select(15, low, masked(high, ((1 << bits) - 1) << 4))
    }
}

inlined! {
    /// A line of 2-bit codes: in the low nibbles for a run's first group, in the high nibbles for its
    /// second.
    fn pairs(tile: &[u8], group: usize, four: usize) -> __m512i {
        moved(load_line(plane(tile, 0, 2, group, four % 4)), -2 * (four / 4) as i32)
    }
}

inlined! {
    /// [`pairs`] with a plane of single bits, which begins at byte `at`, above them. A line's high bits
    /// belong to fours `l + 4k`, at bit `l / 2 + 2k`: two steps of `k` fill the nibbles of both groups.
    fn with_single_bits(tile: &[u8], at: usize, group: usize, four: usize) -> __m512i {
        let high = load_line(plane(tile, at, 1, group, four % 2));
        let high = moved(high, 2 - 2 * (four / 4) as i32 - (four % 4 / 2) as i32);
        select(0x33, pairs(tile, group, four), masked(high, 0x44))
    }
}

inlined! {
    /// Digits of base 3: `3 · (byte · 3^k mod 256) >> 8`, in 16 bits for the even and the odd bytes.
    fn digits(tile: &[u8], group: usize, four: usize) -> __m512i {
        let four = 8 * group + four;
        let line = load_line(&tile.as_chunks().0[four / 5]);
        let power = _mm512_set1_epi16([1, 3, 9, 27, 81][four % 5]);
        let (low, three) = (_mm512_set1_epi16(0xff), _mm512_set1_epi16(3));
        let digit = |bytes: __m512i| {
            let shifted = _mm512_and_si512(_mm512_mullo_epi16(bytes, power), low);
            _mm512_srli_epi16::<8>(_mm512_mullo_epi16(shifted, three))
        };
        let even = digit(_mm512_and_si512(line, low));
        let odd = digit(_mm512_srli_epi16::<8>(line));
        _mm512_or_si512(even, _mm512_slli_epi16::<8>(odd))
    }
}
