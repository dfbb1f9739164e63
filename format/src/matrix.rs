//! A weight matrix in its stored form.

use crate::encoding::{Encoding, MAX_NESTED_BYTES, TILE_ROWS};
use crate::error::FormatError;
use std::ops::Range;

/// A `rows × cols` matrix: blocks of 16 rows in sequence, each with its own codes and scales.
///
/// The last block is padded with zero rows. Most encodings cut a block into tiles of equal size,
/// the last one padded with zero columns; other encodings have blocks of different sizes. Nested
/// encodings have two parts: the first parts of all tiles, then the low bits of all tiles.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    encoding: Encoding,
    rows: usize,
    cols: usize,
    /// All blocks; of a nested encoding their first parts.
    bytes: &'a [u8],
    /// The low bits of all blocks of a nested encoding.
    low: &'a [u8],
    /// Offsets of the blocks in the whole matrix, then the end of the last one, where blocks differ
    /// in size.
    blocks: Option<&'a [u64]>,
}

impl<'a> Matrix<'a> {
    /// A matrix over `bytes`. Their number must be exactly that of the shape.
    pub fn new(encoding: Encoding, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self, FormatError> {
        let matrix = Self { encoding, rows, cols, bytes, low: &[], blocks: None };
        let matrix = matrix.check(encoding.matrix_bytes(rows as u64, cols as u64))?;
        let (bytes, low) = bytes.split_at(encoding.first_bytes(bytes.len()));
        Ok(Self { bytes, low, ..matrix })
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
        let matrix = Self { encoding, rows, cols, bytes, low: &[], blocks: Some(blocks) };
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
    pub fn bytes(&self) -> MatrixBytes<'a> {
        MatrixBytes { parts: [self.bytes, self.low] }
    }

    /// The first part of a nested encoding: a matrix of fewer bits.
    pub fn first(&self) -> Option<Self> {
        let first = self.encoding.first()?;
        Some(Self { encoding: first, low: &[], ..*self })
    }

    /// Number of blocks of 16 rows, including the padded last one.
    pub fn block_count(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }

    /// Tiles per block.
    pub fn tile_count(&self) -> usize {
        self.cols.div_ceil(self.encoding.tile_cols())
    }

    /// Byte ranges of these blocks in the matrix, by [part](MatrixBytes). Panics if the range ends
    /// beyond the last block.
    pub fn block_ranges(&self, blocks: Range<usize>) -> [Range<usize>; 2] {
        let ([first, low], start) = (self.ranges(blocks), self.bytes.len());
        [first, start + low.start..start + low.end]
    }

    /// [`block_ranges`](Self::block_ranges) from the beginning of each part on.
    #[inline]
    fn ranges(&self, blocks: Range<usize>) -> [Range<usize>; 2] {
        if let Some(ends) = self.blocks {
            let range = (ends[blocks.start] - ends[0]) as usize..(ends[blocks.end] - ends[0]) as usize;
            return [range, 0..0];
        }
        let bytes = self.tile_count() * self.encoding.tile_bytes();
        let first = self.encoding.first_bytes(bytes);
        [first, bytes - first].map(|bytes| blocks.start * bytes..blocks.end * bytes)
    }

    /// Bytes of one block; of a nested encoding those of its first part.
    #[inline]
    pub fn block(&self, block_index: usize) -> &'a [u8] {
        let [first, _] = self.ranges(block_index..block_index + 1);
        &self.bytes[first]
    }

    /// The low bits of one block of a nested encoding; otherwise empty.
    #[inline]
    pub fn low_block(&self, block_index: usize) -> &'a [u8] {
        let [_, low] = self.ranges(block_index..block_index + 1);
        &self.low[low]
    }

    /// Number of bytes of one block, all its parts.
    pub fn block_bytes(&self, block_index: usize) -> usize {
        self.block_ranges(block_index..block_index + 1).iter().map(Range::len).sum()
    }

    /// Bytes read by the look-up of a row: its whole block. Panics if there is no such row.
    pub fn look_up_bytes(&self, row: usize) -> usize {
        self.block_bytes(row / TILE_ROWS)
    }

    /// The matrix of a range of blocks: rows `16 · start .. min(16 · end, rows)`.
    ///
    /// Panics if the range is empty or beyond the last block.
    pub fn band(&self, blocks: Range<usize>) -> Self {
        assert!(blocks.start < blocks.end && blocks.end <= self.block_count());
        let rows = (blocks.end * TILE_ROWS).min(self.rows) - blocks.start * TILE_ROWS;
        let [first, low] = self.ranges(blocks.clone());
        let ends = self.blocks.map(|ends| &ends[blocks.start..=blocks.end]);
        Self { rows, bytes: &self.bytes[first], low: &self.low[low], blocks: ends, ..*self }
    }

    /// Decodes the exact values of 16 rows × [`Encoding::tile_cols`] columns, from column `tile_index
    /// · tile_cols` of a block on. Panics if there is no such tile.
    #[inline]
    pub fn decode_tile(&self, block_index: usize, tile_index: usize, weights: &mut [f32]) {
        let block = self.block(block_index);
        if self.low.is_empty() {
            return self.encoding.decode(block, self.cols, tile_index, weights);
        }
        let bytes = self.encoding.tile_bytes();
        let first = self.encoding.first_bytes(bytes);
        let mut tile = [0; MAX_NESTED_BYTES];
        let (tile, low) = (&mut tile[..bytes], bytes - first);
        tile[..first].copy_from_slice(&block[tile_index * first..][..first]);
        tile[first..].copy_from_slice(&self.low_block(block_index)[tile_index * low..][..low]);
        self.encoding.decode(tile, self.encoding.tile_cols(), 0, weights);
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
        for (tile_index, out) in out.chunks_mut(tile_cols).enumerate() {
            self.decode_tile(row / TILE_ROWS, tile_index, tile);
            out.copy_from_slice(&tile[row % TILE_ROWS * tile_cols..][..out.len()]);
        }
    }
}

/// The bytes of a matrix: one run, or those of both parts of a nested encoding.
#[derive(Clone, Copy, Debug)]
pub struct MatrixBytes<'a> {
    /// The second part is empty where there is one.
    pub parts: [&'a [u8]; 2],
}

impl MatrixBytes<'_> {
    /// Number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "a matrix is never empty")]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
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
