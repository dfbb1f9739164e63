//! A tensor's values in the file's order of rows, still as the source stores them.

use std::ops::Range;

use pith_format::TILE_ROWS;
use rayon::prelude::*;

use super::families::{Binding, RowMap};
use super::survey::Survey;
use super::{Checkpoint, CheckpointError};

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
) -> Result<Vec<u8>, CheckpointError> {
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
) -> Result<Vec<u8>, CheckpointError> {
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
pub(crate) fn read_vector(checkpoint: &Checkpoint, binding: &Binding) -> Result<Vec<f32>, CheckpointError> {
    let stored = checkpoint.load_f32(&binding.tensor)?;
    let values: Vec<f32> =
        (0..binding.rows).map(|row| stored[binding.row_map.source(row)] + binding.offset).collect();
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(row) => Err(CheckpointError::NotFinite {
            tensor: binding.tensor.clone(),
            id: binding.id,
            row,
            column: 0,
            value: values[row],
        }),
    }
}

/// Reads all codes and scales of a matrix of [`SourceType::Packed`](super::SourceType::Packed).
pub(crate) fn survey(checkpoint: &Checkpoint, binding: &Binding) -> Result<Survey, CheckpointError> {
    let mut survey = Survey::empty();
    for first in (0..binding.rows).step_by(band_rows(binding)) {
        let stored = read_rows(checkpoint, binding, first..binding.rows.min(first + band_rows(binding)))?;
        let rows = stored.par_chunks(binding.row_bytes()).with_min_len(TILE_ROWS);
        survey = survey.and(rows.map(Survey::of_row).reduce(Survey::empty, Survey::and));
    }
    Ok(survey)
}
