//! Encodings with codes in [planes](super::planes): 128 columns × 16 rows per tile.
//!
//! ```text
//!          planes   bytes of codes  groups       behind the codes
//! Q6       4 + 2    1024 + 512      64 columns   f16 × 16 for each of two groups
//! Q5       4 + 1    1024 + 256      64 columns   f16 × 16 for each of two groups
//! Q4NL     4        1024            64 columns   f16 × 16 for each of two groups
//! Q3       2 + 1    512 + 256       32 columns   f16 × 16 for the tile, factors of four groups
//! Q3G32    2 + 1    512 + 256       32 columns   f16 × 16 for each of four groups
//! Q2       2        512             32 columns   f16 × 16 for the tile, factors of four groups
//! Ternary  2        512             128 columns  f16 × 16 for the tile
//! ```
//! `weight = scale · level[code]`, or `scale · factor · level[code]`. A factor is a nibble: its low
//! three bits plus 1, negative if the high bit is set.
//!
//! Levels are 7-bit integers, so that a sum of two products with int8 fits in 16 bits. The levels
//! of Q4NL are those of ggml's IQ4_NL, halved. The levels of Q3 and Q2 are those of ik_llama.cpp's
//! IQ3_K and IQ2_K: dense around zero, and longer on one side, which the sign of the scale or
//! factor chooses.

use super::layout::{tiles, uniform};
use super::multiplier::{Multiplier::Half, SIGNED_NIBBLE};

tiles! {
    /// 6-bit codes, one f16 scale per 64 columns: 1600 bytes.
    Q6Tile, 128 columns, 4 + 2 bits, groups of 64, Half, None, 64 of uniform::<64>(-32);
    /// 5-bit codes, one f16 scale per 64 columns: 1344 bytes.
    Q5Tile, 128 columns, 4 + 1 bits, groups of 64, Half, None, 32 of uniform::<32>(-16);
    /// 16 levels, one f16 scale per 64 columns: 1088 bytes.
    Q4NLTile, 128 columns, 4 + 0 bits, groups of 64, Half, None, 16 of [-64, -52, -42, -33, -25, -18, -11, -5, 1, 7, 13, 19, 27, 35, 45, 57];
    /// 8 levels, one factor per 32 columns: 832 bytes.
    Q3Tile, 128 columns, 2 + 1 bits, groups of 32, SIGNED_NIBBLE, None, 8 of [-63, -40, -23, -10, 1, 13, 28, 47];
    /// 3-bit codes, one f16 scale per 32 columns: 896 bytes.
    Q3G32Tile, 128 columns, 2 + 1 bits, groups of 32, Half, None, 8 of uniform::<8>(-4);
    /// 4 levels, one factor per 32 columns: 576 bytes.
    Q2Tile, 128 columns, 2 + 0 bits, groups of 32, SIGNED_NIBBLE, None, 4 of [-31, -13, 1, 17];
    /// −1, 0 and 1, one f16 scale per 128 columns: 544 bytes. The fourth code, which is never
    /// written, is 2.
    TernaryTile, 128 columns, 2 + 0 bits, groups of 128, Half, None, 3 of [-1, 0, 1, 2];
}
