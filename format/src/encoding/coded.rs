//! Encodings with codes in [planes](super::planes): 128 columns × 16 rows per tile.
//!
//! ```text
//!          planes   bytes of codes  groups       behind the codes
//! Q6       4 + 2    1024 + 512      64 columns   f16 × 16 for each of two groups
//! Q5       4 + 1    1024 + 256      64 columns   f16 × 16 for each of two groups
//! Q4NL     4        1024            64 columns   f16 × 16 for each of two groups
//! Q3       2 + 1    512 + 256       32 columns   f16 × 16 for the tile, factors of four groups
//! Q2       2        512             32 columns   f16 × 16 for the tile, factors of four groups
//! Ternary  2        512             128 columns  f16 × 16 for the tile
//! ```
//! `weight = scale · level[code]`, or `scale · factor · level[code]`. A factor is a nibble: its low
//! three bits plus 1, negative if the high bit is set. It lies in byte `16 · (group / 2) + row`,
//! groups of even number in the low nibbles.
//!
//! Levels are 7-bit integers, so that a sum of two products with int8 fits in 16 bits. The levels
//! of Q4NL are those of ggml's IQ4_NL, halved. The levels of Q3 and Q2 are those of ik_llama.cpp's
//! IQ3_K and IQ2_K: dense around zero, and longer on one side, which the sign of the scale or
//! factor chooses.

use super::planes::{self, COLS, plane_bytes};
use super::rounding::encode;
use super::{Codes, Grouped, Operation, TILE_ROWS, Tile, read_scales, write_scales};
use half::f16;

/// Factors, indexed by nibble.
const FACTORS: [i8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, -1, -2, -3, -4, -5, -6, -7, -8];

/// Uniform levels for all `COUNT` codes, centred on zero.
const fn uniform<const COUNT: usize>() -> [i8; COUNT] {
    let (mut levels, mut index) = ([0; COUNT], 0);
    while index < COUNT {
        levels[index] = index as i8 - (COUNT / 2) as i8;
        index += 1;
    }
    levels
}

/// Declares a tile: bits of the `low` and `high` planes, columns per group, whether groups have
/// factors, and how many of the codes' levels may be written.
macro_rules! coded {
    ($($(#[$about:meta])* $tile:ident, $low:literal + $high:literal bits, $group:literal columns, $factors:expr, $used:literal of $levels:expr;)*) => {$(
        $(#[$about])*
        pub struct $tile;

        impl $tile {
            const LAYOUT: Layout =
                Layout { low: $low, high: $high, group_cols: $group, has_factors: $factors, levels: &$levels };
        }

        impl Tile for $tile {
            const COLS: usize = COLS;
            const BYTES: usize = Self::LAYOUT.bytes();
            const OPERATION: Operation = Operation::Integer;
            const GROUPED: Option<Grouped> = Some(Grouped {
                group_cols: $group,
                levels: Self::LAYOUT.levels.split_at($used).0,
                factors: if $factors { &FACTORS } else { &[] },
                pack: |codes, bytes| Self::LAYOUT.pack(codes, bytes),
            });

            fn encode(weights: &[f32], bytes: &mut [u8]) {
                encode(&Self::GROUPED.expect("set above"), COLS, weights, None, bytes);
            }

            fn decode(bytes: &[u8], weights: &mut [f32]) {
                Self::LAYOUT.decode(bytes, weights);
            }
        }
    )*};
}

coded! {
    /// 6-bit codes, one f16 scale per 64 columns: 1600 bytes.
    Q6Tile, 4 + 2 bits, 64 columns, false, 64 of uniform::<64>();
    /// 5-bit codes, one f16 scale per 64 columns: 1344 bytes.
    Q5Tile, 4 + 1 bits, 64 columns, false, 32 of uniform::<32>();
    /// 16 levels, one f16 scale per 64 columns: 1088 bytes.
    Q4NLTile, 4 + 0 bits, 64 columns, false, 16 of [-64, -52, -42, -33, -25, -18, -11, -5, 1, 7, 13, 19, 27, 35, 45, 57];
    /// 8 levels, one factor per 32 columns: 832 bytes.
    Q3Tile, 2 + 1 bits, 32 columns, true, 8 of [-63, -40, -23, -10, 1, 13, 28, 47];
    /// 4 levels, one factor per 32 columns: 576 bytes.
    Q2Tile, 2 + 0 bits, 32 columns, true, 4 of [-31, -13, 1, 17];
    /// −1, 0 and 1, one f16 scale per 128 columns: 544 bytes. The fourth code, which is never
    /// written, is 2.
    TernaryTile, 2 + 0 bits, 128 columns, false, 3 of [-1, 0, 1, 2];
}

/// Parameters of a tile's layout.
struct Layout {
    low: usize,
    high: usize,
    group_cols: usize,
    has_factors: bool,
    levels: &'static [i8],
}

impl Layout {
    const fn low_bytes(&self) -> usize {
        plane_bytes(self.low)
    }

    const fn code_bytes(&self) -> usize {
        plane_bytes(self.low) + plane_bytes(self.high)
    }

    const fn groups(&self) -> usize {
        COLS / self.group_cols
    }

    /// Bytes of the tile.
    const fn bytes(&self) -> usize {
        let scales = TILE_ROWS * size_of::<f16>();
        self.code_bytes()
            + if self.has_factors { scales + TILE_ROWS * self.groups() / 2 } else { scales * self.groups() }
    }

    fn pack(&self, codes: &Codes<'_>, bytes: &mut [u8]) {
        let groups = self.groups();
        let (scales, factors) = if self.has_factors { (1, groups) } else { (groups, 0) };
        assert_eq!((codes.levels.len(), bytes.len()), (TILE_ROWS * COLS, self.bytes()));
        assert_eq!((codes.scales.len(), codes.factors.len()), (TILE_ROWS * scales, TILE_ROWS * factors));
        let mut code_of = [u8::MAX; 256];
        for (code, &level) in self.levels.iter().enumerate() {
            code_of[usize::from(level as u8)] = code as u8;
        }
        let mut indices: Vec<u8> =
            codes.levels.iter().map(|&level| code_of[usize::from(level as u8)]).collect();
        assert!(!indices.contains(&u8::MAX), "a value is no level of the encoding");
        bytes.fill(0);
        let (planes, rest) = bytes.split_at_mut(self.code_bytes());
        let (low, high) = planes.split_at_mut(self.low_bytes());
        planes::write(self.low, &indices, low);
        if self.high > 0 {
            indices.iter_mut().for_each(|index| *index >>= self.low);
            planes::write(self.high, &indices, high);
        }
        let (halves, nibbles) = rest.split_at_mut(TILE_ROWS * 2 * scales);
        for (group, out) in halves.chunks_exact_mut(2 * TILE_ROWS).enumerate() {
            write_scales(codes.scales, group, scales, out);
        }
        for (row, factors) in codes.factors.chunks_exact(factors.max(1)).enumerate() {
            for (group, &factor) in factors.iter().enumerate() {
                assert!((1..=8).contains(&factor.unsigned_abs()), "{factor} is no factor");
                let nibble = (factor.unsigned_abs() - 1) | if factor < 0 { 8 } else { 0 };
                nibbles[TILE_ROWS * (group / 2) + row] |= nibble << (4 * (group % 2));
            }
        }
    }

    fn decode(&self, bytes: &[u8], weights: &mut [f32]) {
        assert_eq!((weights.len(), bytes.len()), (TILE_ROWS * COLS, self.bytes()));
        let (planes, rest) = bytes.split_at(self.code_bytes());
        let (low, high) = planes.split_at(self.low_bytes());
        let mut codes = [0u8; TILE_ROWS * COLS];
        planes::read(self.low, low, 0, &mut codes);
        if self.high > 0 {
            planes::read(self.high, high, self.low, &mut codes);
        }
        let mut values = [0.0f32; 64];
        values.iter_mut().zip(self.levels).for_each(|(value, &level)| *value = f32::from(level));
        for group in 0..self.groups() {
            let scales = self.scales(rest, group);
            for (row, scale) in scales.into_iter().enumerate() {
                let at = row * COLS + group * self.group_cols;
                let (weights, codes) =
                    (&mut weights[at..][..self.group_cols], &codes[at..][..self.group_cols]);
                for (weight, &code) in weights.iter_mut().zip(codes) {
                    *weight = scale * values[usize::from(code & 63)];
                }
            }
        }
    }

    /// Multipliers of a group's levels, row by row. Factors times scales are exact in f32.
    fn scales(&self, rest: &[u8], group: usize) -> [f32; TILE_ROWS] {
        if !self.has_factors {
            return read_scales(&rest[2 * TILE_ROWS * group..]);
        }
        let nibbles = &rest[2 * TILE_ROWS + TILE_ROWS * (group / 2)..];
        let scales = read_scales(rest);
        std::array::from_fn(|row| {
            let nibble = nibbles[row] >> (4 * (group % 2)) & 15;
            scales[row] * f32::from(FACTORS[usize::from(nibble)])
        })
    }
}
