//! The position of a tensor in its file, and its decoding to f32.

use std::ops::Range;

use rayon::prelude::*;

use super::file::SourceFile;
use super::{CheckpointError, SourceType};

/// Raw bytes that one thread decodes at a time: large enough to amortise a read, small compared
/// with a tensor.
const CHUNK_BYTES: usize = 1 << 20;

/// A tensor's description in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Name in the checkpoint.
    pub name: String,
    /// How the values are stored.
    pub dtype: SourceType,
    /// Dimensions, outermost first; for GGUF the reverse of the file's order. Empty for a scalar.
    pub shape: Vec<usize>,
    /// Bytes in the file, over all tensors that make it up.
    pub bytes: u64,
    /// Index of the file among the checkpoint's files.
    pub(crate) file: usize,
    /// Position of the first byte in that file.
    pub(crate) offset: u64,
}

impl TensorInfo {
    /// The product of all dimensions but the last; 1 for vectors and scalars.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// The last dimension; 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The shape and size of a tensor; `None` on overflow or if the shape is not whole blocks.
    ///
    /// Also limits the product of any dimensions, so that `rows` and `elements` cannot overflow
    /// later.
    pub(super) fn sized(dtype: SourceType, shape: &[u64]) -> Option<(Vec<usize>, u64)> {
        let dims = shape.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>()?;
        dims.iter().try_fold(1usize, |product, &d| product.checked_mul(d.max(1)))?;
        Some((dims, dtype.bytes_of(shape.iter().product())?))
    }

    /// The number of values in `rows`; an error where the tensor has no such rows.
    pub(super) fn values_of(&self, rows: &Range<usize>) -> Result<usize, CheckpointError> {
        self.row_bytes(rows)?;
        Ok(rows.len() * self.cols())
    }

    /// The byte range of `rows` within the tensor.
    fn row_bytes(&self, rows: &Range<usize>) -> Result<Range<u64>, CheckpointError> {
        if rows.start > rows.end || rows.end > self.rows() {
            return Err(CheckpointError::Rows {
                tensor: self.name.clone(),
                rows: self.rows(),
                start: rows.start,
                end: rows.end,
            });
        }
        let bytes_up_to = |row: usize| self.dtype.bytes_of((row * self.cols()) as u64);
        match (bytes_up_to(rows.start), bytes_up_to(rows.end)) {
            (Some(start), Some(end)) => Ok(start..end),
            // Only packed sub-byte types without a decoder have rows that end within a block.
            _ => Err(CheckpointError::Rows {
                tensor: self.name.clone(),
                rows: 1,
                start: rows.start,
                end: rows.end,
            }),
        }
    }

    /// The stored bytes of `rows`.
    pub(super) fn read_raw(&self, file: &SourceFile, rows: Range<usize>) -> Result<Vec<u8>, CheckpointError> {
        let range = self.row_bytes(&rows)?;
        let mut out = vec![0; (range.end - range.start) as usize];
        file.read_at(self.offset + range.start, &mut out)?;
        Ok(out)
    }

    /// An error where the type has no decoder.
    pub(super) fn check_loadable(&self, file: &SourceFile) -> Result<(), CheckpointError> {
        if self.dtype.is_loadable() {
            return Ok(());
        }
        let (path, tensor) = (file.path().into(), self.name.clone());
        Err(CheckpointError::UnsupportedType { path, tensor, found: self.dtype })
    }

    /// Decodes `rows` into `out`, a chunk at a time on all cores.
    pub(super) fn read_f32(
        &self,
        file: &SourceFile,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        self.check_loadable(file)?;
        let range = self.row_bytes(&rows)?;
        let expected = rows.len() * self.cols();
        if out.len() != expected {
            return Err(CheckpointError::OutputLen { tensor: self.name.clone(), expected, found: out.len() });
        }
        let (block_len, block_bytes) = (self.dtype.block_len(), self.dtype.block_bytes());
        let chunk_blocks = CHUNK_BYTES / block_bytes;
        let chunk = |buffer: &mut Vec<u8>, index: usize, out: &mut [f32]| {
            buffer.resize(out.len() / block_len * block_bytes, 0);
            let at = self.offset + range.start + (index * chunk_blocks * block_bytes) as u64;
            file.read_at(at, buffer)?;
            self.dtype.decode(buffer, out).expect("the type was seen to be loadable");
            Ok(())
        };
        if out.len() <= chunk_blocks * block_len {
            return chunk(&mut Vec::new(), 0, out);
        }
        out.par_chunks_mut(chunk_blocks * block_len)
            .enumerate()
            .try_for_each_init(Vec::new, |buffer, (index, out)| chunk(buffer, index, out))
    }
}
