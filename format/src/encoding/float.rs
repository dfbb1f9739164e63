//! F32 and F16: `COLS` lines; line `k` holds column `k` of the 16 rows.

use super::{Operation, TILE_ROWS, Tile, widened};
use half::f16;

/// 4 columns × 16 rows of f32: 4 lines of 64 bytes.
pub struct F32Tile;

/// 4 columns × 16 rows of f16: 4 half-lines of 32 bytes.
pub struct F16Tile;

impl Tile for F32Tile {
    const COLS: usize = 4;
    const BYTES: usize = 256;
    const OPERATION: Operation = Operation::Float;

    fn encode(weights: &[f32], bytes: &mut [u8]) {
        assert_eq!((weights.len(), bytes.len()), (TILE_ROWS * Self::COLS, Self::BYTES));
        for (index, out) in bytes.chunks_exact_mut(4).enumerate() {
            out.copy_from_slice(&weights[row_major(index)].to_le_bytes());
        }
    }

    fn decode(bytes: &[u8], weights: &mut [f32]) {
        assert_eq!((weights.len(), bytes.len()), (TILE_ROWS * Self::COLS, Self::BYTES));
        for (index, value) in bytes.chunks_exact(4).enumerate() {
            weights[row_major(index)] = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
        }
    }
}

impl Tile for F16Tile {
    const COLS: usize = 4;
    const BYTES: usize = 128;
    const OPERATION: Operation = Operation::Float;

    fn encode(weights: &[f32], bytes: &mut [u8]) {
        assert_eq!((weights.len(), bytes.len()), (TILE_ROWS * Self::COLS, Self::BYTES));
        for (index, out) in bytes.chunks_exact_mut(2).enumerate() {
            out.copy_from_slice(&f16::from_f32(weights[row_major(index)]).to_le_bytes());
        }
    }

    fn decode(bytes: &[u8], weights: &mut [f32]) {
        assert_eq!((weights.len(), bytes.len()), (TILE_ROWS * Self::COLS, Self::BYTES));
        for (col, half_line) in bytes.as_chunks::<32>().0.iter().enumerate() {
            let halves =
                std::array::from_fn(|row| f16::from_le_bytes([half_line[2 * row], half_line[2 * row + 1]]));
            for (row, value) in widened(&halves).into_iter().enumerate() {
                weights[row * Self::COLS + col] = value;
            }
        }
    }
}

/// Row-major position in the tile of stored value `index`.
fn row_major(index: usize) -> usize {
    (index % TILE_ROWS) * F32Tile::COLS + index / TILE_ROWS
}
