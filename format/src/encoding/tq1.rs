//! TQ1: −1, 0 and 1 in base 3, five to a byte, one f16 scale for 256 columns: ggml's TQ1_0.
//!
//! ```text
//! 0    12 lines of five fours: four 5l + k of line l is digit k of its bytes
//! 768  1 line: fours 60 to 63 are digits 0 to 3
//! 832  f16 × 16: the scales
//! ```
//! A byte stands for the number `n = Σ digit_k · 3^(4 − k)`: it is `⌈256 n / 243⌉`, so that digit
//! `k` is `3 · (byte · 3^k mod 256) >> 8`. A level is its digit less 1.

use super::rounding::encode;
use super::{Codes, Grouped, Multiplier, Operation, TILE_ROWS, Tile, read_scales, write_scales};

/// 256 columns × 16 rows in 864 bytes.
pub struct Tq1Tile;

const COLS: usize = 256;

/// Bytes of the codes.
const CODE_BYTES: usize = 13 * 64;

/// Digits of a byte.
const DIGITS: usize = 5;

/// `3^k`.
const POWERS: [u8; DIGITS] = [1, 3, 9, 27, 81];

impl Tile for Tq1Tile {
    const COLS: usize = COLS;
    const BYTES: usize = CODE_BYTES + 2 * TILE_ROWS;
    const OPERATION: Operation = Operation::Integer;
    const GROUPED: Option<Grouped> =
        Some(Grouped { group_cols: COLS, levels: &[-1, 0, 1], scale: Multiplier::Half, minimum: None, pack });

    fn encode(weights: &[f32], bytes: &mut [u8]) {
        encode(&Self::GROUPED.expect("set above"), COLS, weights, None, bytes);
    }

    fn decode(bytes: &[u8], weights: &mut [f32]) {
        assert_eq!((weights.len(), bytes.len()), (TILE_ROWS * COLS, Self::BYTES));
        let scales = read_scales(&bytes[CODE_BYTES..]);
        for (row, (weights, scale)) in weights.chunks_exact_mut(COLS).zip(scales).enumerate() {
            for (four, weights) in weights.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let at = four / DIGITS * 64 + 4 * row;
                for (weight, byte) in weights.iter_mut().zip(&bytes[at..at + 4]) {
                    let shifted = byte.wrapping_mul(POWERS[four % DIGITS]);
                    *weight = scale * (f32::from((u16::from(shifted) * 3) >> 8) - 1.0);
                }
            }
        }
    }
}

fn pack(codes: &Codes<'_>, bytes: &mut [u8]) {
    assert_eq!((codes.levels.len(), codes.scales.len()), (TILE_ROWS * COLS, TILE_ROWS));
    assert_eq!(bytes.len(), Tq1Tile::BYTES);
    let mut numbers = [0u16; CODE_BYTES];
    for (row, levels) in codes.levels.chunks_exact(COLS).enumerate() {
        for (col, &level) in levels.iter().enumerate() {
            assert!((-1..=1).contains(&level), "{level} is no level of the encoding");
            let four = col / 4;
            let digit = (level + 1) as u16 * u16::from(POWERS[DIGITS - 1 - four % DIGITS]);
            numbers[four / DIGITS * 64 + 4 * row + col % 4] += digit;
        }
    }
    for (byte, number) in bytes.iter_mut().zip(numbers) {
        *byte = (256 * number).div_ceil(243) as u8;
    }
    write_scales(codes.scales, 0, 1, &mut bytes[CODE_BYTES..]);
}
