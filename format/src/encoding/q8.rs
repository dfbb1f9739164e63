//! Q8: signed bytes, with one f16 scale per 32 columns of a row; `weight = scale · code`.
//!
//! ```text
//! 0     16 lines of 64 bytes; line c, byte j: row j / 4, column 4c + j % 4
//! 1024  f16 × 16: scales of columns 0..32, row after row
//! 1056  f16 × 16: scales of columns 32..64
//! ```

use super::rounding::encode;
use super::{Codes, Grouped, Multiplier, Operation, TILE_ROWS, Tile, read_scales, write_scales};

/// 64 columns × 16 rows in 1088 bytes.
pub struct Q8Tile;

const GROUP: usize = 32;
const CODE_BYTES: usize = 1024;

/// −127 to 127.
const LEVELS: [i8; 255] = {
    let (mut levels, mut index) = ([0; 255], 0);
    while index < 255 {
        levels[index] = (index as i16 - 127) as i8;
        index += 1;
    }
    levels
};

impl Tile for Q8Tile {
    const COLS: usize = 64;
    const BYTES: usize = 1088;
    const OPERATION: Operation = Operation::Integer;
    const GROUPED: Option<Grouped> =
        Some(Grouped { group_cols: GROUP, levels: &LEVELS, scale: Multiplier::Half, minimum: None, pack });

    fn encode(weights: &[f32], bytes: &mut [u8]) {
        encode(&Self::GROUPED.expect("set above"), Self::COLS, weights, None, bytes);
    }

    fn decode(bytes: &[u8], weights: &mut [f32]) {
        assert_eq!((weights.len(), bytes.len()), (TILE_ROWS * Self::COLS, Self::BYTES));
        for group in 0..2 {
            let scales = read_scales(&bytes[CODE_BYTES + 32 * group..]);
            let lines = bytes[group * CODE_BYTES / 2..][..CODE_BYTES / 2].as_chunks::<64>().0;
            // Row by row, four columns of a line at a time: compilers vectorise this order.
            for (row, scale) in scales.iter().enumerate() {
                let weights = &mut weights[row * Self::COLS + group * GROUP..][..GROUP];
                for (line, weights) in lines.iter().zip(weights.as_chunks_mut::<4>().0) {
                    for (lane, weight) in weights.iter_mut().enumerate() {
                        *weight = scale * f32::from(line[4 * row + lane] as i8);
                    }
                }
            }
        }
    }
}

fn pack(codes: &Codes<'_>, bytes: &mut [u8]) {
    let (codes, scales) = (codes.levels, codes.scales);
    assert_eq!((codes.len(), scales.len(), bytes.len()), (TILE_ROWS * 64, TILE_ROWS * 2, Q8Tile::BYTES));
    for (index, &code) in codes.iter().enumerate() {
        bytes[offset(index / 64, index % 64)] = code as u8;
    }
    for group in 0..2 {
        write_scales(scales, group, 2, &mut bytes[CODE_BYTES + 32 * group..][..32]);
    }
}

fn offset(row: usize, col: usize) -> usize {
    col / 4 * 64 + row * 4 + col % 4
}
