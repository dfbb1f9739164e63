//! Levels of integer encodings, as signed bytes.
//!
//! A tile consists of halves of 64 columns. Codes in bit planes have their own lines of every plane
//! in each half. The half's two groups of 32 columns are the low and the high nibbles of the same
//! lines:
//!
//! ```text
//! plane   lines of a half   bits of four f = 0..8 of a group, in nibble `PART`
//! 4       8                 line f, all
//! 2       4                 line f mod 4, from 2 · ⌊f / 4⌋
//! 1       2                 line f mod 2, from ⌊f / 2⌋
//! ```
//! Codes of four bits and more stay unsigned where levels are consecutive: products start from
//! −offset · Σ activations. Other codes look up their level. A nibble holds two 2-bit codes; it
//! indexes one table for its low bits and another for its high bits.

use super::dot::Codes;
use super::lanes::*;
use crate::coded::{Coded, Order, Plain};
use std::marker::PhantomData;

/// An encoding whose codes this module loads into registers.
pub trait Lines: Coded {
    /// 16 rows × 32 columns of a tile.
    type Group<'a, const PART: usize>: Codes;

    /// Whether the two groups of a half share lines.
    const SHARES_LINES: bool;

    /// The group of half `index` in nibble `PART`; where groups share no lines, group `index`.
    fn group<const PART: usize>(tile: Self::Bytes<'_>, index: usize) -> Self::Group<'_, PART>;

    /// [`again_bytes`] of a tile.
    fn again(tile: Self::Bytes<'_>) -> Self::Bytes<'_>;
}

impl<E: Plain> Lines for E {
    type Group<'a, const PART: usize> = Group<'a, E, PART>;
    const SHARES_LINES: bool = matches!(E::ORDER, Order::Planes(..));

    #[inline(always)]
    fn group<const PART: usize>(tile: Self::Bytes<'_>, index: usize) -> Self::Group<'_, PART> {
        Group { half: Half { tile, index }, encoding: PhantomData }
    }

    #[inline(always)]
    fn again(tile: Self::Bytes<'_>) -> Self::Bytes<'_> {
        again_bytes(tile)
    }
}

/// The lines of a group: of a half of a tile, or of the group where groups [share no
/// lines](Lines::SHARES_LINES).
#[derive(Clone, Copy)]
pub struct Half<'a, const PART: usize> {
    /// The tile.
    pub tile: &'a [u8],
    /// Index of the half or group.
    pub index: usize,
}

impl<const PART: usize> Half<'_, PART> {
    /// Four rows of a line of the tile.
    #[inline(always)]
    fn line(self, line: usize, q: usize) -> U8x16 {
        load_u8(&self.tile.as_chunks::<16>().0[4 * line + q])
    }

    /// Four rows of a line of the plane of `BITS` bits whose first byte is `at`.
    #[inline(always)]
    fn load<const BITS: usize>(self, at: usize, line: usize, q: usize) -> U8x16 {
        self.line(at / 64 + 2 * BITS * self.index + line, q)
    }

    /// Codes of four bits, as [`Codes::pair`] has them.
    #[inline(always)]
    pub fn nibbles(self, index: usize, q: usize) -> [U8x16; 2] {
        [index, index + 4].map(|line| nibbles::<PART>(self.load::<4>(0, line, q)))
    }

    /// Codes of four low bits and `HIGH` high bits, whose plane begins at byte `at`.
    #[inline(always)]
    pub fn with_high_plane<const HIGH: usize>(self, at: usize, index: usize, q: usize) -> [U8x16; 2] {
        let high = self.load::<HIGH>(at, index % (2 * HIGH), q);
        let mask = splat_u8((16 << HIGH) - 1);
        // High bits of part 0 move up four places; those of part 1 are in place.
        let code = |low: U8x16, shift: usize| {
            let high = shift_right(high, shift);
            and(if PART == 0 { put_above(low, high) } else { put_below(high, low) }, mask)
        };
        let shift = index / (2 * HIGH);
        [code(self.load::<4>(0, index, q), shift), code(self.load::<4>(0, index + 4, q), shift + 2)]
    }
}

/// 16 rows × 32 columns of a tile.
pub struct Group<'a, E, const PART: usize> {
    half: Half<'a, PART>,
    encoding: PhantomData<E>,
}

impl<E, const PART: usize> Clone for Group<'_, E, PART> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, const PART: usize> Copy for Group<'_, E, PART> {}

impl<E: Coded, const PART: usize> Codes for Group<'_, E, PART> {
    const OFFSET: i8 = match E::ORDER {
        Order::Halves => E::OFFSET as i8,
        Order::Planes(4, _) if !E::IS_TABLE => E::OFFSET as i8,
        _ => 0,
    };

    const LARGEST: i32 = match E::ORDER {
        Order::Halves => E::LARGEST_CODE,
        Order::Planes(4, _) if !E::IS_TABLE => E::LARGEST_CODE,
        // Levels that are never written have such codes too.
        Order::Planes(..) if !E::IS_TABLE && E::LARGEST_CODE - E::OFFSET > E::OFFSET => {
            E::LARGEST_CODE - E::OFFSET
        }
        _ => E::LARGEST_LEVEL,
    };

    #[inline(always)]
    fn pair(self, index: usize, q: usize) -> [I8x16; 2] {
        // Constants of type bool: the compiler drops the other branches before it inlines.
        if Self::IS_BYTES {
            [index, index + 4].map(|four| signed(self.half.line(8 * self.half.index + four, q)))
        } else if Self::IS_HALVES {
            let line = self.half.line(4 * self.half.index + index, q);
            [low_nibbles(line), high_nibbles(line)]
        } else if Self::IS_DIGITS {
            [index, index + 4].map(|four| self.digits(four, q))
        } else if Self::HAS_SINGLE_BITS {
            self.with_single_bits(index, q)
        } else if Self::HAS_PAIRS {
            let codes = nibbles::<PART>(self.half.load::<2>(0, index, q));
            let tables = &const { [table::<E>(0, 2, None), table::<E>(2, 2, None)] };
            [lookup(load_i8(&tables[0]), codes), lookup(load_i8(&tables[1]), codes)]
        } else if Self::HAS_ONE_HIGH_BIT {
            self.half.with_high_plane::<1>(E::HIGH, index, q).map(signed)
        } else if Self::HAS_TWO_HIGH_BITS {
            self.half.with_high_plane::<2>(E::HIGH, index, q).map(signed)
        } else if E::IS_TABLE {
            let table = load_i8(&const { table::<E>(0, 4, None) });
            self.half.nibbles(index, q).map(|codes| lookup(table, codes))
        } else {
            self.half.nibbles(index, q).map(signed)
        }
    }
}

impl<E: Coded, const PART: usize> Group<'_, E, PART> {
    const IS_BYTES: bool = matches!(E::ORDER, Order::Bytes);
    const IS_HALVES: bool = matches!(E::ORDER, Order::Halves);
    const IS_DIGITS: bool = matches!(E::ORDER, Order::Digits);
    const HAS_PAIRS: bool = matches!(E::ORDER, Order::Planes(2, 0));
    const HAS_SINGLE_BITS: bool = matches!(E::ORDER, Order::Planes(2, 1));
    const HAS_ONE_HIGH_BIT: bool = matches!(E::ORDER, Order::Planes(4, 1));
    const HAS_TWO_HIGH_BITS: bool = matches!(E::ORDER, Order::Planes(4, 2));

    /// Levels of codes of two low bits and one high bit.
    #[inline(always)]
    fn with_single_bits(self, index: usize, q: usize) -> [I8x16; 2] {
        // For each position of the high bits in the nibbles, beside the low bits of one code.
        let tables = &const {
            [
                [table::<E>(0, 2, Some(2)), table::<E>(2, 2, Some(0))],
                [table::<E>(0, 2, Some(3)), table::<E>(2, 2, Some(1))],
            ]
        }[index / 2];
        let (low, high) = (self.half.load::<2>(0, index, q), self.half.load::<1>(E::HIGH, index % 2, q));
        let two = splat_u8(0x03);
        let (low, above, below) = match PART {
            0 => (low, and(high, two), and(shift_right(high, 2), two)),
            _ => (shift_right(low, 4), and(shift_right(high, 4), two), shift_right(high, 6)),
        };
        [
            lookup(load_i8(&tables[0]), put_above_two(low, above)),
            lookup(load_i8(&tables[1]), or(and(low, splat_u8(0x0c)), below)),
        ]
    }

    /// Digits of base 3, less 1. A byte times `3^k`, modulo 256, has thirds of 256 for digit `k`.
    #[inline(always)]
    fn digits(self, four: usize, q: usize) -> I8x16 {
        let four = 8 * self.half.index + four;
        let bytes = mul_u8(self.half.line(four / 5, q), splat_u8([1, 3, 9, 27, 81][four % 5]));
        let level = sub_i8(splat_i8(-1), at_least(bytes, splat_u8(86)));
        sub_i8(level, at_least(bytes, splat_u8(171)))
    }
}

/// Level of each nibble: the `bits` bits from `low` on are the code's low bits, the bit at `high`
/// the one above them.
const fn table<E: Coded>(low: usize, bits: usize, high: Option<usize>) -> [i8; 16] {
    let (mut table, mut nibble) = ([0; 16], 0);
    while nibble < 16 {
        let above = if let Some(high) = high { (nibble >> high & 1) << bits } else { 0 };
        let code = (nibble >> low & ((1 << bits) - 1)) | above;
        let unsigned = if E::IS_TABLE { E::TABLE[code] as i32 } else { code as i32 };
        table[nibble] = (unsigned - E::OFFSET) as i8;
        nibble += 1;
    }
    table
}

/// Nibbles of a part.
#[inline(always)]
pub fn nibbles<const PART: usize>(bytes: U8x16) -> U8x16 {
    if PART == 0 { and(bytes, splat_u8(15)) } else { shift_right(bytes, 4) }
}
