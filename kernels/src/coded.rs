//! Properties of the integer encodings that kernels use, and the one table of these encodings.

use pith_format::TILE_ROWS;
use pith_format::encoding::{
    Grouped, Q2Tile, Q3Tile, Q4G64Tile, Q4NLTile, Q4Tile, Q5Tile, Q6Tile, Q8Tile, TernaryTile, Tile,
};

use crate::activations::ACTIVATION_GROUP;

/// A tile of integer levels of at most 8 bits, followed by scales.
pub trait Coded: Tile {
    /// A level + `1 << OFFSET_BITS` is an unsigned code.
    const OFFSET_BITS: u32;

    /// The format's description of groups.
    const KNOWN: Grouped = match Self::GROUPED {
        Some(grouped) => grouped,
        None => panic!("an encoding of floats"),
    };

    /// A level times `1 << ROOM_BITS` fits a signed byte; ternary has an unused code of 2.
    const ROOM_BITS: u32 = 7 - if Self::OFFSET_BITS == 0 { 1 } else { Self::OFFSET_BITS };

    /// Number of pairs of products whose sum fits 16 bits: products of unsigned codes and int8 from
    /// −127 on, or of levels and unsigned bytes. A group has 8 pairs; for 8-bit codes none fits.
    const PAIRS: usize = if Self::OFFSET_BITS < 3 { 8 } else { 64 >> Self::OFFSET_BITS };

    /// Unsigned codes of up to 16 levels, repeated to fill the table.
    const TABLE: [u8; 16] = {
        let (levels, mut table, mut index) = (Self::KNOWN.levels, [0; 16], 0);
        while index < 16 {
            table[index] = (levels[index % levels.len()] as i16 + (1 << Self::OFFSET_BITS)) as u8;
            index += 1;
        }
        table
    };

    /// Factors by nibble; zeros where the encoding has none.
    const FACTORS: [f32; 16] = {
        let (factors, mut table, mut index) = (Self::KNOWN.factors, [0.0; 16], 0);
        while index < factors.len() {
            table[index] = factors[index] as f32;
            index += 1;
        }
        table
    };

    /// Whether a group's scale is the tile's scale times a factor.
    const HAS_FACTORS: bool = !Self::KNOWN.factors.is_empty();

    /// Offset of the scales in the tile.
    const SCALES: usize = {
        let groups = Self::COLS / Self::KNOWN.group_cols;
        Self::BYTES
            - match Self::HAS_FACTORS {
                true => 2 * TILE_ROWS + TILE_ROWS * groups / 2,
                false => 2 * TILE_ROWS * groups,
            }
    };

    /// f16 scales of a group of 32 columns; where there are factors, scales before multiplication.
    #[inline(always)]
    fn halves(tile: &[u8], group: usize) -> &[u8; 2 * TILE_ROWS] {
        let index = if Self::HAS_FACTORS { 0 } else { group * ACTIVATION_GROUP / Self::KNOWN.group_cols };
        &tile[Self::SCALES..].as_chunks().0[index]
    }

    /// Factors of a pair of groups: low nibbles for the even group, high nibbles for the odd one.
    #[inline(always)]
    fn factor_bytes(tile: &[u8], group: usize) -> &[u8; TILE_ROWS] {
        &tile[Self::SCALES + 2 * TILE_ROWS..].as_chunks().0[group / 2]
    }
}

/// The table: encoding, tile, bits of its offset. [`with_tile!`] matches over it.
macro_rules! coded {
    ($dollar:tt $($encoding:ident $tile:ident $offset:literal,)*) => {
        $(impl Coded for $tile {
            const OFFSET_BITS: u32 = $offset;
        })*

        /// `with_tile!(encoding, E => value, else other)`: for an integer encoding `value`, where
        /// `E` is its tile type; otherwise `other`.
        macro_rules! with_tile {
            ($dollar encoding:expr, $dollar name:ident => $dollar value:expr, else $dollar other:expr) => {
                match $dollar encoding {
                    $(pith_format::Encoding::$encoding => {
                        type $dollar name = pith_format::encoding::$tile;
                        $dollar value
                    })*
                    _ => $dollar other,
                }
            };
        }
        pub(crate) use with_tile;
    };
}

coded! {
    $
    Q8 Q8Tile 7,
    Q6 Q6Tile 5,
    Q5 Q5Tile 4,
    Q4 Q4Tile 3,
    Q4G64 Q4G64Tile 3,
    Q4NL Q4NLTile 6,
    Q3 Q3Tile 6,
    Q2 Q2Tile 5,
    Ternary TernaryTile 0,
}
