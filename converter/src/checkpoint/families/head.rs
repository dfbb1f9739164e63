//! A head beside a configuration that ties it to the embedding.

use crate::checkpoint::{Checkpoint, CheckpointError, TensorInfo};

/// Values compared at once.
const CHUNK_VALUES: usize = 1 << 20;

/// Whether both matrices hold the same values. Reads them up to the first difference.
pub(super) fn same_values(
    checkpoint: &Checkpoint,
    one: &TensorInfo,
    other: &TensorInfo,
) -> Result<bool, CheckpointError> {
    if one.shape != other.shape || !one.dtype.is_loadable() || !other.dtype.is_loadable() {
        return Ok(false);
    }
    let (rows, cols) = (one.rows(), one.cols());
    let step = (CHUNK_VALUES / cols.max(1)).max(1);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for first in (0..rows).step_by(step) {
        let chunk = first..rows.min(first + step);
        left.resize(chunk.len() * cols, 0.0);
        right.resize(chunk.len() * cols, 0.0);
        checkpoint.load_rows_f32(&one.name, chunk.clone(), &mut left)?;
        checkpoint.load_rows_f32(&other.name, chunk, &mut right)?;
        if left != right {
            return Ok(false);
        }
    }
    Ok(true)
}
