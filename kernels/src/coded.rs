//! Properties of the integer encodings that kernels use, and the one table of these encodings.

use pith_format::TILE_ROWS;
use pith_format::encoding::*;

use crate::activations::{ACTIVATION_GROUP, HALF_GROUP};
use crate::tiles::{Parts, Tiles};

/// Order of the codes in a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Bytes: a line for every four columns.
    Bytes,
    /// Nibbles of halves of groups of 32 columns.
    Halves,
    /// Bit planes of so many low and high bits.
    Planes(usize, usize),
    /// Five digits of base 3 in a byte.
    Digits,
    /// Two parts: see [`Nested`].
    Nested,
}

/// Place of scales or minima in a tile.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Storage.
    pub multiplier: Multiplier,
    /// Offset of the f16.
    pub halves: usize,
    /// Offset of the integers.
    pub integers: usize,
    /// Groups of the tile.
    pub groups: usize,
}

/// A tile of integer levels of at most 8 bits, and scales.
pub trait Coded: Tile {
    /// Tiles as kernels hold them.
    type Bytes<'a>: Tiles<'a>;

    /// Order of the codes.
    const ORDER: Order;

    /// Bytes of a tile in each stream; the scales are at the end of the first.
    const TILE_BYTES: [usize; 2] = [Self::BYTES, 0];

    /// The format's description of groups.
    const KNOWN: Grouped = match Self::GROUPED {
        Some(grouped) => grouped,
        None => panic!("an encoding of floats"),
    };

    /// Whether codes index a table of levels. Otherwise levels are consecutive.
    const IS_TABLE: bool = !is_even(Self::KNOWN.levels);

    /// A level + this is an unsigned code.
    const OFFSET: i32 = match Self::IS_TABLE {
        false if Self::KNOWN.levels.len() == 255 => 128,
        false => -(Self::KNOWN.levels[0] as i32),
        true => (-(Self::KNOWN.levels[0] as i32)).unsigned_abs().next_power_of_two() as i32,
    };

    /// Largest unsigned code, those that are never written included.
    const LARGEST_CODE: i32 = match Self::ORDER {
        Order::Bytes | Order::Nested => 255,
        _ if Self::IS_TABLE => Self::KNOWN.levels[Self::KNOWN.levels.len() - 1] as i32 + Self::OFFSET,
        Order::Halves => 15,
        Order::Planes(low, high) => (1 << (low + high)) - 1,
        Order::Digits => 2,
    };

    /// Largest absolute value of a level that is written.
    const LARGEST_LEVEL: i32 = {
        let (low, high) =
            (-(Self::KNOWN.levels[0] as i32), Self::KNOWN.levels[Self::KNOWN.levels.len() - 1] as i32);
        if low > high { low } else { high }
    };

    /// A level times `1 << ROOM_BITS` fits a signed byte.
    const ROOM_BITS: u32 = match Self::LARGEST_LEVEL {
        1 => 6,
        // −2ⁿ fits, and nothing above 2ⁿ − 1 is written.
        largest => 7 - (largest as u32).next_power_of_two().ilog2(),
    };

    /// Number of pairs of products of unsigned codes and int8 from −127 on whose sum fits 16 bits.
    /// A group has 8 pairs; for 8-bit codes none fits.
    const PAIRS: usize = pairs(i16::MAX as i32 / (2 * 127), Self::LARGEST_CODE);

    /// The same for products of levels and unsigned bytes.
    const LEVEL_PAIRS: usize = pairs(64, Self::LARGEST_LEVEL);

    /// Unsigned codes of up to 16 levels, repeated to fill the table.
    const TABLE: [u8; 16] = {
        let (levels, mut table, mut index) = (Self::KNOWN.levels, [0; 16], 0);
        while index < 16 {
            // The sixteenth code of fifteen levels, which is never written, is 0.
            let level = if levels.len() == 15 && index == 15 { 0 } else { levels[index % levels.len()] };
            table[index] = (level as i32 + Self::OFFSET) as u8;
            index += 1;
        }
        table
    };

    /// Offset of the plane of high bits.
    const HIGH: usize = match Self::ORDER {
        Order::Planes(low, _) => plane_bytes(low, Self::COLS),
        _ => 0,
    };

    /// Columns that share a scale, at most [`ACTIVATION_GROUP`]: that, or [`HALF_GROUP`].
    const SCALE_COLS: usize =
        if Self::KNOWN.group_cols < ACTIVATION_GROUP { Self::KNOWN.group_cols } else { ACTIVATION_GROUP };

    /// Whether a group of activations meets two groups of weights.
    const IS_SPLIT: bool = Self::SCALE_COLS < ACTIVATION_GROUP;

    /// Whether a group of activations meets one scale and no minimum.
    const IS_PLAIN: bool = !Self::IS_SPLIT && Self::KNOWN.minimum.is_none();

    /// Whether a level times the integer factor of its scale fits a signed byte with its sign
    /// changed. These products have one scale for the row of a tile.
    const HAS_SMALL_PRODUCTS: bool = match (Self::KNOWN.scale, Self::KNOWN.minimum) {
        (Multiplier::Factors(factors), None) => small_products(Self::KNOWN.levels, factors),
        _ => false,
    };

    /// Zero points are in units of `2^−shift` levels. In these units a level less its zero point
    /// fits a signed byte, so that panels need no minima.
    const ZERO_SHIFT: Option<u32> = match Self::KNOWN.minimum {
        Some(Multiplier::Zero { shift }) => Some(shift),
        _ => None,
    };

    /// Whether panels may round weights again to 8 bits: where the own rounding is so coarse that a
    /// second one adds nothing that a model shows. Weights of other formats, which are carried
    /// exactly, are not rounded again.
    const ROUNDS_AGAIN: bool;

    /// Place of the scales.
    const SCALES: Place = {
        let (groups, scale) = (Self::COLS / Self::KNOWN.group_cols, Self::KNOWN.scale);
        let (mut halves, mut integers) = (scale.half_bytes(groups), scale.integer_bytes(groups));
        if let Some(minimum) = Self::KNOWN.minimum {
            halves += minimum.half_bytes(groups);
            integers += minimum.integer_bytes(groups);
        }
        let halves = Self::TILE_BYTES[0] - halves - integers;
        Place { multiplier: scale, halves, integers: Self::TILE_BYTES[0] - integers, groups }
    };

    /// Place of the minima; `None` where there are none.
    const MINIMA: Option<Place> = match Self::KNOWN.minimum {
        None => None,
        Some(multiplier) => {
            let scales = Self::SCALES;
            Some(Place {
                multiplier,
                halves: match multiplier {
                    // In the words of the scales.
                    Multiplier::Zero { .. } => scales.halves,
                    _ => scales.halves + scales.multiplier.half_bytes(scales.groups),
                },
                integers: scales.integers + scales.multiplier.integer_bytes(scales.groups),
                groups: scales.groups,
            })
        }
    };
}

/// Encodings whose tiles are one stream of bytes.
pub trait Plain: for<'a> Coded<Bytes<'a> = &'a [u8]> {}

impl<F: First + Plain, const LOW: usize> Coded for Nested<F, LOW> {
    type Bytes<'a> = Parts<'a>;
    const ORDER: Order = Order::Nested;
    const TILE_BYTES: [usize; 2] = [F::BYTES, Self::BYTES - F::BYTES];
    /// That of the codes of both parts, one behind the other.
    const OFFSET: i32 = 128 + (1 << (LOW - 1));
    const ROUNDS_AGAIN: bool = false;
}

impl Place {
    /// Index of the group of weights that holds columns `HALF_GROUP · index ..` of the tile.
    #[inline(always)]
    const fn group(&self, tile_cols: usize, index: usize) -> usize {
        index * HALF_GROUP / (tile_cols / self.groups)
    }

    /// The f16 or words of the group of columns `HALF_GROUP · index ..`, or of the tile.
    #[inline(always)]
    pub fn half_of<'a, E: Coded>(&self, tile: &'a [u8], index: usize) -> &'a [u8; 2 * TILE_ROWS] {
        let index = if let Multiplier::Factors(_) = self.multiplier { 0 } else { self.group(E::COLS, index) };
        &tile[self.halves..].as_chunks().0[index]
    }

    /// The bytes with the lowest bits of integers of the group, and the shift to them.
    #[inline(always)]
    pub fn low_of<'a, E: Coded>(&self, tile: &'a [u8], index: usize) -> (&'a [u8; TILE_ROWS], u32) {
        let group = self.group(E::COLS, index);
        let bytes = tile[self.integers..].as_chunks().0;
        match self.multiplier {
            Multiplier::Factors(table) if table.len() < 256 => (&bytes[group / 2], 4 * (group % 2) as u32),
            _ => (&bytes[group], 0),
        }
    }

    /// The bytes with the highest two bits of integers of 6 bits, and the shift to them.
    #[inline(always)]
    pub fn high_of<'a, E: Coded>(&self, tile: &'a [u8], index: usize) -> (&'a [u8; TILE_ROWS], u32) {
        let group = self.group(E::COLS, index);
        let bytes = tile[self.integers + TILE_ROWS * self.groups / 2..].as_chunks().0;
        (&bytes[group / 4], 2 * (group % 4) as u32)
    }
}

/// Bytes of a plane of `cols` columns.
pub const fn plane_bytes(bits: usize, cols: usize) -> usize {
    TILE_ROWS * cols * bits / 8
}

/// The place of the minima or of the scales. As a constant it leaves so little of the code that
/// reads it that it is inlined: a call in the loop over groups halves the speed on x86.
pub const fn place_of<E: Coded>(minima: bool) -> Place {
    match (minima, E::MINIMA) {
        (true, Some(place)) => place,
        _ => E::SCALES,
    }
}

/// Factors of scales by nibble.
pub const fn nibble_factors<E: Coded>() -> [f32; 16] {
    let (factors, mut table, mut index) = (E::KNOWN.scale.factors(), [0.0; 16], 0);
    while index < factors.len() && index < 16 {
        table[index] = factors[index] as f32;
        index += 1;
    }
    table
}

/// Largest power of two up to `room / largest` and 8.
const fn pairs(room: i32, largest: i32) -> usize {
    match room / largest {
        8.. => 8,
        4.. => 4,
        2.. => 2,
        1 => 1,
        _ => 0,
    }
}

/// Whether every level times every factor is in `−127 ..= 128`.
const fn small_products(levels: &[i8], factors: &[i8]) -> bool {
    let mut level = 0;
    while level < levels.len() {
        let mut factor = 0;
        while factor < factors.len() {
            if !matches!(levels[level] as i32 * factors[factor] as i32, -127..=128) {
                return false;
            }
            factor += 1;
        }
        level += 1;
    }
    true
}

/// Whether levels are consecutive integers.
const fn is_even(levels: &[i8]) -> bool {
    levels[levels.len() - 1] as i32 - levels[0] as i32 + 1 == levels.len() as i32
}

/// The table: encoding, tile, order of its codes, whether panels may round it again; then the nested
/// encodings. [`with_tile!`] matches over it.
macro_rules! coded {
    ($dollar:tt { $($encoding:ident $tile:ident $order:expr, $again:ident;)* } { $($nested:ident $parts:ident;)* }) => {
        $(impl Coded for $tile {
            type Bytes<'a> = &'a [u8];
            const ORDER: Order = $order;
            const ROUNDS_AGAIN: bool = coded!(@ $again);
        }
        impl Plain for $tile {})*

        /// `with_tile!(encoding, E => value, else other)`: for an integer encoding `value`, where
        /// `E` is its tile type; otherwise `other`.
        macro_rules! with_tile {
            ($dollar encoding:expr, $dollar name:ident => $dollar value:expr, else $dollar other:expr) => {
                match $dollar encoding {
                    $(pith_format::Encoding::$encoding => {
                        type $dollar name = pith_format::encoding::$tile;
                        $dollar value
                    })*
                    $(pith_format::Encoding::$nested => {
                        type $dollar name = pith_format::encoding::$parts;
                        $dollar value
                    })*
                    _ => $dollar other,
                }
            };
        }
        pub(crate) use with_tile;
    };
    (@ Again) => { true };
    (@ Exact) => { false };
}

coded! {
    $ {
        Q8 Q8Tile Order::Bytes, Exact;
        Q6 Q6Tile Order::Planes(4, 2), Exact;
        Q5 Q5Tile Order::Planes(4, 1), Exact;
        Q4 Q4Tile Order::Halves, Exact;
        Q4G64 Q4G64Tile Order::Planes(4, 0), Again;
        Q4NL Q4NLTile Order::Planes(4, 0), Again;
        Q3 Q3Tile Order::Planes(2, 1), Again;
        Q3G32 Q3G32Tile Order::Planes(2, 1), Again;
        Q2 Q2Tile Order::Planes(2, 0), Again;
        Ternary TernaryTile Order::Planes(2, 0), Again;
        Q41 Q41Tile Order::Planes(4, 0), Exact;
        Q50 Q50Tile Order::Planes(4, 1), Exact;
        Q51 Q51Tile Order::Planes(4, 1), Exact;
        Iq4Nl Iq4NlTile Order::Planes(4, 0), Exact;
        Mxfp4 Mxfp4Tile Order::Planes(4, 0), Exact;
        Q2K Q2KTile Order::Planes(2, 0), Again;
        Q3K Q3KTile Order::Planes(2, 1), Exact;
        Q4K Q4KTile Order::Planes(4, 0), Exact;
        Q5K Q5KTile Order::Planes(4, 1), Exact;
        Q6K Q6KTile Order::Planes(4, 2), Exact;
        Iq4Xs Iq4XsTile Order::Planes(4, 0), Exact;
        Tq1 Tq1Tile Order::Digits, Exact;
        Tq2 Tq2Tile Order::Planes(2, 0), Exact;
        Q6A Q6ATile Order::Planes(4, 2), Exact;
        Q5A Q5ATile Order::Planes(4, 1), Exact;
        Q4A Q4ATile Order::Planes(4, 0), Exact;
        Q3A Q3ATile Order::Planes(2, 1), Exact;
    } {
        Q8N4 Q8N4Tile;
        Q8N3 Q8N3Tile;
    }
}

/// Products of 3 bits and 6 fit a byte; those of 6 bits and 8 do not.
const _: () = assert!(Q3KTile::HAS_SMALL_PRODUCTS && !Q6KTile::HAS_SMALL_PRODUCTS);
