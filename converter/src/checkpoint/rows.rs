//! The values of a tensor, in the row order of the file and the type of the source.

use std::ops::Range;
use std::path::Path;

use pith_format::TILE_ROWS;
use rayon::prelude::*;

use super::families::{Binding, RowMap};
use super::survey::Survey;
use super::{Checkpoint, CheckpointError, SourceType};
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
        Some(row) => {
            let found = format!("row {row}, column 0 is {}", values[row]);
            Err(not_finite(checkpoint.file_of(&binding.tensor), binding, found))
        }
    }
}

fn not_finite(file: &Path, binding: &Binding, found: String) -> CheckpointError {
    let (path, tensor) = (file.into(), binding.tensor.clone());
    CheckpointError::NotFinite { path, tensor, id: binding.id, found: found.into() }
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

/// The checked values of rows that `file` stores; `first_row` is the index of the first one in the
/// matrix.
pub(crate) fn decode_rows(
    file: &Path,
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
    let origin = origin(binding.dtype, &stored[at / cols * row_bytes..][..row_bytes], column);
    Err(not_finite(file, binding, format!("row {row}, column {column} is {}{origin}", values[at])))
}

/// The block that a value which is no number comes from, and its stored scale or minimum if that
/// is none either: a part of the message.
fn origin(dtype: SourceType, row: &[u8], column: usize) -> String {
    if dtype.block_len() == 1 {
        return String::new();
    }
    let block = &row[column / dtype.block_len() * dtype.block_bytes()..][..dtype.block_bytes()];
    match dtype.code_blocks().and_then(|codes| codes.not_finite(block, dtype.block_len())) {
        Some(number) => format!(", in a block of {dtype} that stores the scale or minimum {number}"),
        None => format!(", in a block of {dtype}"),
    }
}

/// The checked values of some rows of a matrix. A transposed or packed tensor is read as a whole
/// for them.
pub(crate) fn load_rows(
    checkpoint: &Checkpoint,
    binding: &Binding,
    rows: Range<usize>,
) -> Result<Vec<f32>, CheckpointError> {
    let stored = read_rows(checkpoint, binding, rows.clone())?;
    decode_rows(checkpoint.file_of(&binding.tensor), binding, rows.start, &stored)
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let error = decode_rows(Path::new("a.gguf"), &binding, 16, &stored).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.gguf: tensor \"up\", to make layers.0.ffn.up: row 17, column 0 is inf, in a block of Q8_0 that stores \
             the scale or minimum inf, expected a finite number"
        );
    }
}
