//! Unsigned codes, the form that `vpmaddubsw` and `vpdpbusd` multiply: half a line is a register of
//! 8 rows × 4 columns.
//!
//! Shifts of 16 bits move the codes of a plane into place. The other bits that a shift moves along
//! are masked away, or are ignored by `vpshufb`, which reads the lowest four bits if the highest is
//! 0.

use super::Avx2;
use super::memory::{
    broadcast_table, halves, load_bytes, load_floats, load_half_bytes, load_rows, load_signed_rows,
    load_words, prefetch_part,
};
use crate::coded::{Coded, Order, Plain, nibble_factors, place_of, plane_bytes};
use crate::tiles::Parts;
use pith_format::encoding::{FLOAT9_EXPONENT, First, Multiplier, Nested};
use std::arch::x86_64::*;

/// An encoding whose codes this module loads into registers.
pub trait Lines: Coded {
    /// Columns `4 · four ..` of a group of 32, first or second 8 rows: level + [`Coded::OFFSET`].
    fn line(_: Avx2, tile: Self::Bytes<'_>, group: usize, four: usize, side: usize) -> __m256i;
}

impl<F: First + Plain, const LOW: usize> Lines for Nested<F, LOW> {
    #[inline(always)]
    fn line(_: Avx2, tile: Parts<'_>, group: usize, four: usize, side: usize) -> __m256i {
        joined::<F, LOW>(tile, group, four, side)
    }
}

impl<E: Plain> Lines for E {
    #[inline(always)]
    fn line(_: Avx2, tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
        line::<E>(tile, group, four, side)
    }
}

inlined! {
    fn line<E: Coded>(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
        match E::ORDER {
            Order::Bytes => _mm256_xor_si256(load(tile, 8 * group + four, side), _mm256_set1_epi8(i8::MIN)),
            Order::Halves => masked(moved(load(tile, 4 * group + four % 4, side), -4 * (four / 4) as i32), 15),
            Order::Planes(4, 0) => level::<E>(nibbles(tile, group, four, side)),
            Order::Planes(4, high) => with_high_plane(tile, E::HIGH / 64, high, group, four, side),
            Order::Planes(2, 0) if E::IS_TABLE => {
                level::<E>(moved(pairs(tile, group, four, side), -4 * odd(group)))
            }
            Order::Planes(2, 0) => {
                let line = plane(tile, 0, 2, group, four % 4, side);
                masked(moved(line, -4 * odd(group) - 2 * (four / 4) as i32), 3)
            }
            Order::Planes(..) => {
                let both = moved(with_single_bits(tile, E::HIGH / 64, group, four, side), -4 * odd(group));
                if E::IS_TABLE { level::<E>(both) } else { masked(both, 7) }
            }
            Order::Digits => digits(tile, group, four, side),
            Order::Nested => unreachable!("it has two parts"),
        }
    }
}

inlined! {
    /// Codes of a first part above their low bits. Codes that are never written count as the least one
    /// that is: −128.
    fn joined<F: Plain, const LOW: usize>(tile: Parts<'_>, group: usize, four: usize, side: usize) -> __m256i {
        // The bits of the first part stay within their bytes.
        let high = _mm256_sll_epi16(line::<F>(tile.first, group, four, side), _mm_cvtsi32_si128(LOW as i32));
        let low = match LOW {
            4 => nibbles(tile.low, group, four, side),
            _ => with_high_plane(tile.low, plane_bytes(4, F::COLS) / 64, LOW - 4, group, four, side),
        };
        _mm256_max_epu8(_mm256_or_si256(high, low), _mm256_set1_epi8(1 << (LOW - 1)))
    }
}

inlined! {
    /// Scales of the levels in the first or second half of a group of 32 columns, for the first or the
    /// second 8 rows. Halves differ in [split](Coded::IS_SPLIT) encodings alone.
    pub fn scales<E: Coded>(tile: &[u8], group: usize, half: usize, side: usize) -> __m256 {
        multipliers::<E, false>(tile, 2 * group + half, side)
    }
}

inlined! {
    /// Minima of the weights, like [`scales`]; `None` where the encoding has none.
    pub fn minima<E: Coded>(tile: &[u8], group: usize, half: usize, side: usize) -> Option<__m256> {
        if const { E::MINIMA.is_none() } {
            return None;
        }
        Some(multipliers::<E, true>(tile, 2 * group + half, side))
    }
}

inlined! {
    fn multipliers<E: Coded, const MINIMUM: bool>(tile: &[u8], index: usize, side: usize) -> __m256 {
        let place = const { place_of::<E>(MINIMUM) };
        match place.multiplier {
            Multiplier::Half => load_half_bytes(&halves(place.half_of::<E>(tile, index))[side]),
            Multiplier::Fraction { shift } => {
                let unit = _mm256_set1_ps(1.0 / (1 << shift) as f32);
                _mm256_mul_ps(load_half_bytes(&halves(place.half_of::<E>(tile, index))[side]), unit)
            }
            Multiplier::Exponent => {
                let exponents = load_rows(&halves(place.low_of::<E>(tile, index).0)[side]);
                // The two smallest powers are subnormal.
                let least = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), exponents);
                let bits = _mm256_slli_epi32::<23>(_mm256_sub_epi32(exponents, _mm256_set1_epi32(1)));
                let is_least = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), exponents);
                _mm256_castsi256_ps(_mm256_blendv_epi8(bits, least, is_least))
            }
            Multiplier::Float9 => small_floats(load_words(&halves(place.half_of::<E>(tile, index))[side])),
            Multiplier::Zero { shift } => {
                let words = load_words(&halves(place.half_of::<E>(tile, index))[side]);
                let zeros = _mm256_cvtepi32_ps(_mm256_and_si256(words, _mm256_set1_epi32(0x7f)));
                let unit = _mm256_set1_ps(-1.0 / (1 << shift) as f32);
                _mm256_mul_ps(_mm256_mul_ps(small_floats(words), unit), zeros)
            }
            Multiplier::Factors(_) => {
                let scales = load_half_bytes(&halves(place.half_of::<E>(tile, index))[side]);
                _mm256_mul_ps(scales, factors::<E, MINIMUM>(tile, index, side))
            }
        }
    }
}

inlined! {
    /// The floats in the high bits of words.
    fn small_floats(words: __m256i) -> __m256 {
        let bits = _mm256_and_si256(_mm256_slli_epi32::<12>(words), _mm256_set1_epi32(0x1ff << 19));
        _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32((FLOAT9_EXPONENT << 23).cast_signed())))
    }
}

inlined! {
    /// The integers of a group as floats.
    fn factors<E: Coded, const MINIMUM: bool>(tile: &[u8], index: usize, side: usize) -> __m256 {
        let place = const { place_of::<E>(MINIMUM) };
        let table = const { place_of::<E>(MINIMUM).multiplier.factors() };
        let (low, shift) = place.low_of::<E>(tile, index);
        let low = &halves(low)[side];
        if table.len() == 256 {
            return _mm256_cvtepi32_ps(load_signed_rows(low));
        }
        let low = _mm256_srl_epi32(load_rows(low), _mm_cvtsi32_si128(shift as i32));
        if table.len() == 16 && table[0] != 0 {
            // The permutation reads only the three lowest bits; the fourth, shifted to the sign,
            // selects the table.
            let tables = halves(const { &nibble_factors::<E>() }).each_ref().map(load_floats);
            let [first, second] = tables.map(|table| _mm256_permutevar8x32_ps(table, low));
            return _mm256_blendv_ps(first, second, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(low)));
        }
        let mut codes = _mm256_and_si256(low, _mm256_set1_epi32(15));
        if table.len() == 64 {
            let (high, shift) = place.high_of::<E>(tile, index);
            let high = _mm256_srl_epi32(load_rows(&halves(high)[side]), _mm_cvtsi32_si128(shift as i32));
            let high = _mm256_slli_epi32::<4>(_mm256_and_si256(high, _mm256_set1_epi32(3)));
            codes = _mm256_or_si256(codes, high);
        }
        let first = _mm256_set1_epi32(i32::from(table[0]));
        _mm256_cvtepi32_ps(match table[1] > table[0] {
            true => _mm256_add_epi32(first, codes),
            false => _mm256_sub_epi32(first, codes),
        })
    }
}

/// [`prefetch_part`] for one of `runs` runs of columns of a tile, in each of its streams.
#[inline(always)]
pub fn prefetch_run(streams: [&[u8]; 2], run: usize, runs: usize) {
    for tile in streams {
        let bytes = tile.len() / runs;
        prefetch_part(&tile[run * bytes..][..bytes], tile);
    }
}

/// 1 for the second group of a run of 64 columns.
#[inline(always)]
fn odd(group: usize) -> i32 {
    (group % 2) as i32
}

inlined! {
    /// Shifts left within 16 bits, right for negative `bits`.
    fn moved(line: __m256i, bits: i32) -> __m256i {
        match bits {
            0 => line,
            1.. => _mm256_sll_epi16(line, _mm_cvtsi32_si128(bits)),
            _ => _mm256_srl_epi16(line, _mm_cvtsi32_si128(-bits)),
        }
    }
}

inlined! {
    fn masked(line: __m256i, mask: u8) -> __m256i {
        _mm256_and_si256(line, _mm256_set1_epi8(mask.cast_signed()))
    }
}

inlined! {
    /// Unsigned codes of levels: the codes themselves, or those of a table of 16.
    fn level<E: Coded>(codes: __m256i) -> __m256i {
        if E::IS_TABLE { _mm256_shuffle_epi8(broadcast_table(&E::TABLE), codes) } else { codes }
    }
}

inlined! {
    /// Half of line `index` of the tile.
    fn load(tile: &[u8], index: usize, side: usize) -> __m256i {
        load_bytes(&tile.as_chunks().0[2 * index + side])
    }
}

inlined! {
    /// Half of line `index` of a run of a plane of `bits` bits whose first line is `at`.
    fn plane(tile: &[u8], at: usize, bits: usize, group: usize, index: usize, side: usize) -> __m256i {
        load(tile, at + group / 2 * 2 * bits + index, side)
    }
}

inlined! {
    /// 4-bit codes.
    fn nibbles(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
        masked(moved(plane(tile, 0, 4, group, four, side), -4 * odd(group)), 15)
    }
}

inlined! {
    /// 4-bit codes with those of a plane of `bits` bits, which begins at line `at`, above them.
    fn with_high_plane(tile: &[u8], at: usize, bits: usize, group: usize, four: usize, side: usize) -> __m256i {
        let high = plane(tile, at, bits, group, four % (2 * bits), side);
        let high = moved(high, 4 - 4 * odd(group) - (bits * (four / (2 * bits))) as i32);
        _mm256_or_si256(nibbles(tile, group, four, side), masked(high, ((1 << bits) - 1) << 4))
    }
}

inlined! {
    /// Half a line of 2-bit codes: in the low nibbles for a run's first group, in the high nibbles for
    /// its second.
    fn pairs(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
        masked(moved(plane(tile, 0, 2, group, four % 4, side), -2 * (four / 4) as i32), 0x33)
    }
}

inlined! {
    /// [`pairs`] with a plane of single bits, which begins at line `at`, above them. A line's high bits
    /// belong to fours `l + 4k`, at bit `l / 2 + 2k`: two steps of `k` fill the nibbles of both groups.
    fn with_single_bits(tile: &[u8], at: usize, group: usize, four: usize, side: usize) -> __m256i {
        let high = plane(tile, at, 1, group, four % 2, side);
        let high = moved(high, 2 - 2 * (four / 4) as i32 - (four % 4 / 2) as i32);
        _mm256_or_si256(pairs(tile, group, four, side), masked(high, 0x44))
    }
}

inlined! {
    /// Digits of base 3: `3 · (byte · 3^k mod 256) >> 8`, in 16 bits for the even and the odd bytes.
    fn digits(tile: &[u8], group: usize, four: usize, side: usize) -> __m256i {
        let four = 8 * group + four;
        let line = load(tile, four / 5, side);
        let power = _mm256_set1_epi16([1, 3, 9, 27, 81][four % 5]);
        let (low, three) = (_mm256_set1_epi16(0xff), _mm256_set1_epi16(3));
        let digit = |bytes: __m256i| {
            let shifted = _mm256_and_si256(_mm256_mullo_epi16(bytes, power), low);
            _mm256_srli_epi16::<8>(_mm256_mullo_epi16(shifted, three))
        };
        let even = digit(_mm256_and_si256(line, low));
        let odd = digit(_mm256_srli_epi16::<8>(line));
        _mm256_or_si256(even, _mm256_slli_epi16::<8>(odd))
    }
}
