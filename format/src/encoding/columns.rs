//! A test-only encoding with blocks of different sizes: f32, with zero columns left out of each
//! block.
//!
//! ```text
//! 0     bits of the columns that are there, ⌈cols / 8⌉ bytes
//!       f32 × 16 for each of them: row 0 to 15
//! ```

use super::{Blocks, Operation, TILE_ROWS};

/// See the module.
pub struct ColumnBlocks;

/// Bytes of one column.
const COLUMN_BYTES: usize = 4 * TILE_ROWS;

impl Blocks for ColumnBlocks {
    const COLS: usize = 16;
    const OPERATION: Operation = Operation::Float;
    const BITS: f64 = 32.0;

    fn encode(weights: &[f32], cols: usize) -> Vec<u8> {
        let mut bytes = vec![0; cols.div_ceil(8)];
        for col in 0..cols {
            let column: Vec<f32> = (0..TILE_ROWS).map(|row| weights[row * cols + col]).collect();
            if column.iter().any(|&weight| weight != 0.0) {
                bytes[col / 8] |= 1 << (col % 8);
                bytes.extend(column.iter().flat_map(|weight| weight.to_le_bytes()));
            }
        }
        bytes
    }

    fn decode(block: &[u8], cols: usize, tile_index: usize, weights: &mut [f32]) {
        weights.fill(0.0);
        let Some((mask, columns)) = block.split_at_checked(cols.div_ceil(8)) else { return };
        let is_there = |col: usize| mask[col / 8] >> (col % 8) & 1 == 1;
        let first = tile_index * Self::COLS;
        let before = (0..first).filter(|&col| is_there(col)).count();
        let there = (first..cols.min(first + Self::COLS)).filter(|&col| is_there(col));
        for (col, column) in there.zip(columns.chunks_exact(COLUMN_BYTES).skip(before)) {
            for (row, value) in column.as_chunks().0.iter().enumerate() {
                weights[row * Self::COLS + col - first] = f32::from_le_bytes(*value);
            }
        }
    }
}
