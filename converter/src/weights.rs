//! A tensor's values in the file's order of rows, still as the source stores them.

use std::ops::Range;

use crate::arch::{Binding, RowMap};
use crate::error::ConvertError;
use crate::source::Checkpoint;
use pith_format::TILE_ROWS;

/// Weights handled at a time, which bounds memory: some tens of megabytes whatever the model.
pub(crate) const BAND_VALUES: usize = 1 << 22;

/// Rows of a matrix handled at a time: whole blocks of tiles.
pub(crate) fn band_rows(binding: &Binding) -> usize {
    (BAND_VALUES / binding.cols / TILE_ROWS * TILE_ROWS).max(TILE_ROWS)
}

/// The stored bytes of some rows of a matrix: one row after the other, each `cols` values of the binding's type.
pub(crate) fn read_rows(
    checkpoint: &Checkpoint,
    binding: &Binding,
    rows: Range<usize>,
) -> Result<Vec<u8>, ConvertError> {
    if binding.transposed {
        return read_columns(checkpoint, binding, rows);
    }
    if let RowMap::From(start) = binding.row_map {
        return Ok(checkpoint.raw_rows(&binding.tensor, start + rows.start..start + rows.end)?);
    }
    let sources: Vec<usize> = rows.map(|row| binding.row_map.source(row)).collect();
    let first = sources.iter().copied().min().unwrap_or(0);
    let end = sources.iter().copied().max().map_or(0, |last| last + 1);
    let stored = checkpoint.raw_rows(&binding.tensor, first..end)?;
    let row_bytes = binding.row_bytes();
    let mut gathered = Vec::with_capacity(sources.len() * row_bytes);
    for source in sources {
        gathered.extend_from_slice(&stored[(source - first) * row_bytes..][..row_bytes]);
    }
    Ok(gathered)
}

/// Rows that the source has as columns.
fn read_columns(
    checkpoint: &Checkpoint,
    binding: &Binding,
    rows: Range<usize>,
) -> Result<Vec<u8>, ConvertError> {
    let stored = checkpoint.raw(&binding.tensor)?;
    let value_bytes = binding.dtype.block_bytes();
    let line_bytes = stored.len() / binding.cols;
    let mut gathered = Vec::with_capacity(rows.len() * binding.row_bytes());
    for row in rows {
        let at = binding.row_map.source(row) * value_bytes;
        for line in stored.chunks_exact(line_bytes) {
            gathered.extend_from_slice(&line[at..at + value_bytes]);
        }
    }
    Ok(gathered)
}

/// All values of a vector.
pub(crate) fn read_vector(checkpoint: &Checkpoint, binding: &Binding) -> Result<Vec<f32>, ConvertError> {
    let stored = checkpoint.load_f32(&binding.tensor)?;
    let values: Vec<f32> =
        (0..binding.rows).map(|row| stored[binding.row_map.source(row)] + binding.offset).collect();
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(row) => Err(ConvertError::NotFinite {
            tensor: binding.tensor.clone(),
            id: binding.id,
            row,
            column: 0,
            value: values[row],
        }),
    }
}
