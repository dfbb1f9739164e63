//! Q4: codes 0..=15 for −8..=7, one f16 scale per 32 or 64 columns of a row;
//! `weight = scale · (code − 8)`.
//!
//! A group's first half of columns lies in the low nibbles, its second half in the high nibbles of
//! the same lines:
//! ```text
//! Q4 (64 columns)                                     Q4G64 (128 columns)
//! 0    4 lines: columns 0..32                         0     8 lines: columns 0..64
//! 256  4 lines: columns 32..64                        512   8 lines: columns 64..128
//! 512  f16 × 16: scales of columns 0..32              1024  f16 × 16: scales of columns 0..64
//! 544  f16 × 16: scales of columns 32..64             1056  f16 × 16: scales of columns 64..128
//! line c of a group, byte j: row j / 4; low nibble column 4c + j % 4, high nibble column GROUP/2 + 4c + j % 4
//! ```

use super::rounding::encode;
use super::{Codes, Grouped, Multiplier, Operation, TILE_ROWS, Tile, read_scales, write_scales};

/// 64 columns × 16 rows in 576 bytes, groups of 32 columns.
pub struct Q4Tile;

/// 128 columns × 16 rows in 1088 bytes, groups of 64 columns.
pub struct Q4G64Tile;

const LEVELS: [i8; 16] = [-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7];

/// Groups per tile.
const GROUPS: usize = 2;

/// Lines of a group of 64 columns.
const MAX_LINES: usize = 8;

impl Tile for Q4Tile {
    const COLS: usize = 64;
    const BYTES: usize = 576;
    const OPERATION: Operation = Operation::Integer;
    const GROUPED: Option<Grouped> = Some(Grouped {
        group_cols: 32,
        levels: &LEVELS,
        scale: Multiplier::Half,
        minimum: None,
        pack: pack::<32>,
    });

    fn encode(weights: &[f32], bytes: &mut [u8]) {
        encode(&Self::GROUPED.expect("set above"), Self::COLS, weights, None, bytes);
    }

    fn decode(bytes: &[u8], weights: &mut [f32]) {
        decode::<32>(bytes, weights);
    }
}

impl Tile for Q4G64Tile {
    const COLS: usize = 128;
    const BYTES: usize = 1088;
    const OPERATION: Operation = Operation::Integer;
    const GROUPED: Option<Grouped> = Some(Grouped {
        group_cols: 64,
        levels: &LEVELS,
        scale: Multiplier::Half,
        minimum: None,
        pack: pack::<64>,
    });

    fn encode(weights: &[f32], bytes: &mut [u8]) {
        encode(&Self::GROUPED.expect("set above"), Self::COLS, weights, None, bytes);
    }

    fn decode(bytes: &[u8], weights: &mut [f32]) {
        decode::<64>(bytes, weights);
    }
}

/// Bytes of one group's codes: 16 rows × half a byte per column.
const fn group_bytes(group_cols: usize) -> usize {
    TILE_ROWS * group_cols / 2
}

/// Byte of a column in a group, and whether it is the high nibble.
fn place(group_cols: usize, row: usize, col: usize) -> (usize, bool) {
    let within = col % group_cols;
    let lane = within % (group_cols / 2);
    let byte = col / group_cols * group_bytes(group_cols) + lane / 4 * 64 + row * 4 + lane % 4;
    (byte, within >= group_cols / 2)
}

fn pack<const GROUP: usize>(codes: &Codes<'_>, bytes: &mut [u8]) {
    let (codes, scales) = (codes.levels, codes.scales);
    let cols = GROUPS * GROUP;
    let code_bytes = GROUPS * group_bytes(GROUP);
    assert_eq!((codes.len(), scales.len()), (TILE_ROWS * cols, TILE_ROWS * GROUPS));
    assert_eq!(bytes.len(), code_bytes + GROUPS * 32);
    bytes[..code_bytes].fill(0);
    for (index, &code) in codes.iter().enumerate() {
        let (byte, high) = place(GROUP, index / cols, index % cols);
        let nibble = (code + 8) as u8 & 15;
        bytes[byte] |= if high { nibble << 4 } else { nibble };
    }
    for group in 0..GROUPS {
        write_scales(scales, group, GROUPS, &mut bytes[code_bytes + 32 * group..][..32]);
    }
}

fn decode<const GROUP: usize>(bytes: &[u8], weights: &mut [f32]) {
    let cols = GROUPS * GROUP;
    let code_bytes = GROUPS * group_bytes(GROUP);
    assert_eq!((weights.len(), bytes.len()), (TILE_ROWS * cols, code_bytes + GROUPS * 32));
    for group in 0..GROUPS {
        let scales = read_scales(&bytes[code_bytes + 32 * group..]);
        let mut codes = [[[0i8; 64]; 2]; MAX_LINES];
        let lines = bytes[group * group_bytes(GROUP)..][..group_bytes(GROUP)].as_chunks::<64>().0;
        for (line, [low, high]) in lines.iter().zip(&mut codes) {
            *low = line.map(|byte| (byte & 15) as i8 - 8);
            *high = line.map(|byte| (byte >> 4) as i8 - 8);
        }
        // Row by row, four columns of a line at a time: compilers vectorise this order.
        for (row, scale) in scales.iter().enumerate() {
            let weights = &mut weights[row * cols + group * GROUP..][..GROUP];
            let (low, high) = weights.split_at_mut(GROUP / 2);
            for (half, weights) in [low, high].into_iter().enumerate() {
                for (line, weights) in codes.iter().zip(weights.as_chunks_mut::<4>().0) {
                    for (lane, weight) in weights.iter_mut().enumerate() {
                        *weight = scale * f32::from(line[half][4 * row + lane]);
                    }
                }
            }
        }
    }
}
