//! Encodings in bit planes: decoding the codes of a pair of fours to signed bytes.
//!
//! Q6 and Q5 combine planes and keep unsigned codes: products start from −offset · Σ activations.
//! The other encodings look up a code's level. A nibble holds two 2-bit codes; it indexes one table
//! for its low bits and another for its high bits.

use super::lanes::*;
use super::planes::{Coded, load, nibbles};
use pith_format::encoding::{Q2Tile, Q3Tile, Q4NLTile, Q5Tile, Q6Tile, TernaryTile, Tile};

/// 6-bit codes.
#[derive(Clone, Copy)]
pub struct Q6;

impl Coded for Q6 {
    type Tile = Q6Tile;
    const BITS: usize = 6;
    const OFFSET: i8 = 32;
    const LARGEST: i32 = 63;

    #[inline(always)]
    fn pair<const PART: usize>(tile: &[u8], half: usize, index: usize, q: usize) -> [I8x16; 2] {
        together::<2, PART>(tile, half, index, q)
    }
}

/// 5-bit codes.
#[derive(Clone, Copy)]
pub struct Q5;

impl Coded for Q5 {
    type Tile = Q5Tile;
    const BITS: usize = 5;
    const OFFSET: i8 = 16;
    const LARGEST: i32 = 31;

    #[inline(always)]
    fn pair<const PART: usize>(tile: &[u8], half: usize, index: usize, q: usize) -> [I8x16; 2] {
        together::<1, PART>(tile, half, index, q)
    }
}

/// Codes of four low bits and `HIGH` high bits.
#[inline(always)]
fn together<const HIGH: usize, const PART: usize>(
    tile: &[u8],
    half: usize,
    index: usize,
    q: usize,
) -> [I8x16; 2] {
    let (low, rest) = tile.split_at(1024);
    let high = load::<HIGH>(rest, half, index % (2 * HIGH), q);
    let mask = splat_u8((16 << HIGH) - 1);
    // High bits of part 0 move up four places; those of part 1 are in place.
    let code = |low: U8x16, shift: usize| {
        let high = shift_right(high, shift);
        signed(and(if PART == 0 { put_above(low, high) } else { put_below(high, low) }, mask))
    };
    let shift = index / (2 * HIGH);
    [code(load::<4>(low, half, index, q), shift), code(load::<4>(low, half, index + 4, q), shift + 2)]
}

/// The `COUNT` levels of a tile.
const fn levels<T: Tile, const COUNT: usize>() -> [i8; COUNT] {
    let known = T::GROUPED.expect("codes have groups").levels;
    let (mut levels, mut index) = ([0; COUNT], 0);
    while index < COUNT {
        levels[index] = known[index];
        index += 1;
    }
    levels
}

/// Level of each nibble: the two bits from `low` on are the code's low bits, the bit at `high` its
/// third.
const fn table<const COUNT: usize>(levels: [i8; COUNT], low: usize, high: Option<usize>) -> [i8; 16] {
    let (mut table, mut nibble) = ([0; 16], 0);
    while nibble < 16 {
        let above = if let Some(high) = high { (nibble >> high & 1) << 2 } else { 0 };
        table[nibble] = levels[(nibble >> low & 3) | above];
        nibble += 1;
    }
    table
}

/// 16 levels.
#[derive(Clone, Copy)]
pub struct Q4NL;

impl Coded for Q4NL {
    type Tile = Q4NLTile;
    const BITS: usize = 4;
    const OFFSET: i8 = 0;
    const LARGEST: i32 = 64;

    #[inline(always)]
    fn pair<const PART: usize>(tile: &[u8], half: usize, index: usize, q: usize) -> [I8x16; 2] {
        let table = load_i8(&const { levels::<Q4NLTile, 16>() });
        let level = |line| lookup(table, nibbles::<PART>(load::<4>(tile, half, line, q)));
        [level(index), level(index + 4)]
    }
}

/// 8 levels.
#[derive(Clone, Copy)]
pub struct Q3;

impl Coded for Q3 {
    type Tile = Q3Tile;
    const BITS: usize = 3;
    const OFFSET: i8 = 0;
    const LARGEST: i32 = 63;

    #[inline(always)]
    fn pair<const PART: usize>(tile: &[u8], half: usize, index: usize, q: usize) -> [I8x16; 2] {
        const LEVELS: [i8; 8] = levels::<Q3Tile, 8>();
        // For each position of the high bits in the nibbles, beside the low bits of one code.
        const TABLES: [[[i8; 16]; 2]; 2] = [
            [table(LEVELS, 0, Some(2)), table(LEVELS, 2, Some(0))],
            [table(LEVELS, 0, Some(3)), table(LEVELS, 2, Some(1))],
        ];
        let (low, rest) = tile.split_at(512);
        let (low, high) = (load::<2>(low, half, index, q), load::<1>(rest, half, index % 2, q));
        let two = splat_u8(0x03);
        let (low, above, below) = match PART {
            0 => (low, and(high, two), and(shift_right(high, 2), two)),
            _ => (shift_right(low, 4), and(shift_right(high, 4), two), shift_right(high, 6)),
        };
        let tables = &TABLES[index / 2];
        [
            lookup(load_i8(&tables[0]), put_above_two(low, above)),
            lookup(load_i8(&tables[1]), or(and(low, splat_u8(0x0c)), below)),
        ]
    }
}

/// 4 levels.
#[derive(Clone, Copy)]
pub struct Q2;

impl Coded for Q2 {
    type Tile = Q2Tile;
    const BITS: usize = 2;
    const OFFSET: i8 = 0;
    const LARGEST: i32 = 31;

    #[inline(always)]
    fn pair<const PART: usize>(tile: &[u8], half: usize, index: usize, q: usize) -> [I8x16; 2] {
        const LEVELS: [i8; 4] = levels::<Q2Tile, 4>();
        two_bits::<PART>(&const { [table(LEVELS, 0, None), table(LEVELS, 2, None)] }, tile, half, index, q)
    }
}

/// −1, 0 and 1; code 2 is never written.
#[derive(Clone, Copy)]
pub struct Ternary;

impl Coded for Ternary {
    type Tile = TernaryTile;
    const BITS: usize = 2;
    const OFFSET: i8 = 0;
    const LARGEST: i32 = 2;

    #[inline(always)]
    fn pair<const PART: usize>(tile: &[u8], half: usize, index: usize, q: usize) -> [I8x16; 2] {
        const LEVELS: [i8; 4] = [-1, 0, 1, 2];
        two_bits::<PART>(&const { [table(LEVELS, 0, None), table(LEVELS, 2, None)] }, tile, half, index, q)
    }
}

/// Levels of the low and the high half of a part's nibbles.
#[inline(always)]
fn two_bits<const PART: usize>(
    tables: &[[i8; 16]; 2],
    tile: &[u8],
    half: usize,
    index: usize,
    q: usize,
) -> [I8x16; 2] {
    let codes = nibbles::<PART>(load::<2>(tile, half, index, q));
    [lookup(load_i8(&tables[0]), codes), lookup(load_i8(&tables[1]), codes)]
}
