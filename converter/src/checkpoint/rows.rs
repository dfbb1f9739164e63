//! The values of a tensor, in the row order of the file and the type of the source.

use std::ops::Range;

use pith_format::TILE_ROWS;
use rayon::prelude::*;

use super::families::{Binding, RowMap};
use super::survey::Survey;
use super::{Checkpoint, CheckpointError};
use crate::scan::first_index;

/// Weights handled at a time. Limits memory to some tens of megabytes for any model.
pub(crate) const BAND_VALUES: usize = 1 << 22;

/// Rows of a matrix handled at a time: whole blocks of 16 rows.
pub(crate) fn band_rows(binding: &Binding) -> usize {
    (BAND_VALUES / binding.cols / TILE_ROWS * TILE_ROWS).max(TILE_ROWS)
}

/// The stored bytes of some rows of a matrix, one row after the other: `cols` values of the
/// binding's type each.
pub(crate) fn read_rows(
    checkpoint: &Checkpoint,
    binding: &Binding,
    rows: Range<usize>,
) -> Result<Vec<u8>, CheckpointError> {
    if binding.transposed {
        return read_columns(checkpoint, binding, rows);
    }
    if let RowMap::From(start) = binding.row_map {
        return checkpoint.raw_rows(&binding.tensor, start + rows.start..start + rows.end);
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

/// Rows that are columns in the source.
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

/// The checked values of stored rows; `first_row` is the index of the first one in the matrix.
pub(crate) fn decode_rows(
    binding: &Binding,
    first_row: usize,
    stored: &[u8],
) -> Result<Vec<f32>, CheckpointError> {
    let (row_bytes, cols) = (binding.row_bytes(), binding.cols);
    let mut values = vec![0.0f32; stored.len() / row_bytes * cols];
    let blocks = stored.par_chunks(TILE_ROWS * row_bytes).zip(values.par_chunks_mut(TILE_ROWS * cols));
    blocks.for_each(|(stored, values)| {
        binding.dtype.decode(stored, values).expect("the binding's type was seen to be loadable");
        if binding.offset != 0.0 {
            values.iter_mut().for_each(|value| *value += binding.offset);
        }
    });
    let Some(at) = first_index(&values, |value| !value.is_finite()) else { return Ok(values) };
    let (row, column) = (first_row + at / cols, at % cols);
    let (tensor, id, value) = (binding.tensor.clone(), binding.id, values[at]);
    Err(CheckpointError::NotFinite { tensor, id, row, column, value })
}

/// The checked values of some rows of a matrix. A transposed or packed tensor is read as a whole
/// for them.
pub(crate) fn load_rows(
    checkpoint: &Checkpoint,
    binding: &Binding,
    rows: Range<usize>,
) -> Result<Vec<f32>, CheckpointError> {
    decode_rows(binding, rows.start, &read_rows(checkpoint, binding, rows.clone())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::SourceType;
    use half::f16;
    use pith_format::{Role, TensorId};

    #[test]
    fn a_scale_that_is_no_number_is_named() {
        let block = |scale: f16| scale.to_le_bytes().into_iter().chain([1; 32]);
        let mut stored: Vec<u8> = (0..9).flat_map(|_| block(f16::ONE)).collect();
        // The fourth block begins the second row.
        stored[3 * 34..][..2].copy_from_slice(&f16::INFINITY.to_le_bytes());
        let binding = Binding {
            id: TensorId::layer(Role::Up, 0),
            tensor: "up".into(),
            dtype: SourceType::Q8_0,
            rows: 3,
            cols: 96,
            row_map: RowMap::From(0),
            transposed: false,
            offset: 0.0,
            stored_bytes: 0,
            survey: None,
        };
        let error = decode_rows(&binding, 16, &stored).unwrap_err();
        assert!(matches!(error, CheckpointError::NotFinite { row: 17, column: 0, .. }), "{error}");
    }
}
