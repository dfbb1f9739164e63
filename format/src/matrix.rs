//! A weight matrix in its stored form.

use crate::encoding::{Encoding, TILE_ROWS};
use crate::error::FormatError;
use std::ops::Range;

/// A `rows × cols` matrix: blocks of 16 rows in sequence, each with its own codes and scales.
///
/// The last block is padded with zero rows. Most encodings cut a block into tiles of equal size,
/// the last one padded with zero columns; other encodings have blocks of different sizes.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    encoding: Encoding,
    rows: usize,
    cols: usize,
    bytes: &'a [u8],
    /// Offsets of the blocks in the whole matrix, then the end of the last one, where blocks differ
    /// in size.
    blocks: Option<&'a [u64]>,
}

impl<'a> Matrix<'a> {
    /// A matrix over `bytes`. Their number must be exactly that of the shape.
    pub fn new(encoding: Encoding, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self, FormatError> {
        let matrix = Self { encoding, rows, cols, bytes, blocks: None };
        matrix.check(encoding.matrix_bytes(rows as u64, cols as u64))
    }

    /// A matrix with blocks of different sizes. `blocks`: their offsets in `bytes`, then the end of
    /// the last one.
    pub fn indexed(
        encoding: Encoding,
        rows: usize,
        cols: usize,
        bytes: &'a [u8],
        blocks: &'a [u64],
    ) -> Result<Self, FormatError> {
        let sound = encoding.is_indexed()
            && blocks.len() == rows.div_ceil(TILE_ROWS) + 1
            && blocks[0] == 0
            && blocks.is_sorted();
        let matrix = Self { encoding, rows, cols, bytes, blocks: Some(blocks) };
        matrix.check(blocks.last().copied().filter(|_| sound))
    }

    fn check(self, expected_bytes: Option<u64>) -> Result<Self, FormatError> {
        let Self { encoding, rows, cols, bytes, .. } = self;
        if rows == 0 || cols == 0 || expected_bytes != Some(bytes.len() as u64) {
            let found_bytes = bytes.len();
            return Err(FormatError::MatrixSize { encoding, rows, cols, expected_bytes, found_bytes });
        }
        Ok(self)
    }

    /// Encoding of the blocks.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Rows without padding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns without padding.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of all blocks, which a product with the matrix reads.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of blocks of 16 rows, including the padded last one.
    pub fn block_count(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }

    /// Tiles per block.
    pub fn tile_count(&self) -> usize {
        self.cols.div_ceil(self.encoding.tile_cols())
    }

    /// Byte range of these blocks. Panics if the range ends beyond the last block.
    pub fn block_range(&self, blocks: Range<usize>) -> Range<usize> {
        match self.blocks {
            Some(ends) => (ends[blocks.start] - ends[0]) as usize..(ends[blocks.end] - ends[0]) as usize,
            None => {
                let block_bytes = self.tile_count() * self.encoding.tile_bytes();
                blocks.start * block_bytes..blocks.end * block_bytes
            }
        }
    }

    /// Bytes of one block.
    #[inline]
    pub fn block(&self, block_index: usize) -> &'a [u8] {
        &self.bytes[self.block_range(block_index..block_index + 1)]
    }

    /// Bytes read by the look-up of a row: its whole block. Panics if there is no such row.
    pub fn look_up_bytes(&self, row: usize) -> usize {
        self.block(row / TILE_ROWS).len()
    }

    /// The matrix of a range of blocks: rows `16 · start .. min(16 · end, rows)`.
    ///
    /// Panics if the range is empty or beyond the last block.
    pub fn band(&self, blocks: Range<usize>) -> Self {
        assert!(blocks.start < blocks.end && blocks.end <= self.block_count());
        let rows = (blocks.end * TILE_ROWS).min(self.rows) - blocks.start * TILE_ROWS;
        let bytes = &self.bytes[self.block_range(blocks.clone())];
        let ends = self.blocks.map(|ends| &ends[blocks.start..=blocks.end]);
        Self { rows, bytes, blocks: ends, ..*self }
    }

    /// Decodes row `row` to `out` (`cols` values), for an embedding look-up.
    ///
    /// Reads lines of the row's whole block, since a line holds 16 rows. Panics if `row` is out of
    /// range.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols);
        let tile_cols = self.encoding.tile_cols();
        let mut tile = [0.0f32; TILE_ROWS * crate::encoding::MAX_TILE_COLS];
        let tile = &mut tile[..TILE_ROWS * tile_cols];
        let block = self.block(row / TILE_ROWS);
        for (tile_index, out) in out.chunks_mut(tile_cols).enumerate() {
            self.encoding.decode(block, self.cols, tile_index, tile);
            out.copy_from_slice(&tile[row % TILE_ROWS * tile_cols..][..out.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::encode_block;

    #[test]
    fn rows_survive_padding() {
        let (rows, cols) = (19, 7);
        let weights: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
        let bytes_len = Encoding::F32.matrix_bytes(rows as u64, cols as u64).unwrap() as usize;
        let mut bytes = vec![0; bytes_len];
        for (rows, block) in weights.chunks(16 * cols).zip(bytes.chunks_mut(bytes_len / 2)) {
            encode_block(Encoding::F32, rows, cols, block);
        }
        let matrix = Matrix::new(Encoding::F32, rows, cols, &bytes).unwrap();
        let mut row = vec![0.0; cols];
        for index in 0..rows {
            matrix.decode_row(index, &mut row);
            assert_eq!(row, weights[index * cols..][..cols]);
        }
        let band = matrix.band(1..2);
        assert_eq!(band.rows(), 3);
        band.decode_row(2, &mut row);
        assert_eq!(row, weights[18 * cols..][..cols]);
    }

    #[test]
    fn wrong_byte_count_is_rejected() {
        assert!(Matrix::new(Encoding::Q8, 16, 64, &[0; 1087]).is_err());
        assert!(Matrix::new(Encoding::Q8, 0, 64, &[]).is_err());
    }
}
