//! Changes of basis that leave what a model computes as it is and make its matrices easier to round.
//!
//! Between two linear maps with nothing but linear in between there is room for any invertible matrix and its inverse. What
//! is put there, [`hadamard`](super::hadamard) rotations or [`awq`](super::awq) scales, is multiplied into the weights on both sides: the file holds
//! a model like any other, and running it costs nothing more.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use pith_format::{Kind, TensorId};

use super::PassError;
use super::rotation::Rotation;
use crate::checkpoint::families::{Binding, RowMap};
use crate::checkpoint::rows::{read_rows, read_vector};
use crate::checkpoint::{Checkpoint, CheckpointError, SourceType};

/// What becomes of a tensor `W`: columns are scaled and then rotated, rows are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// All values are 1: a norm whose weights went elsewhere.
    pub(super) ones: bool,
    pub(super) col_scales: Option<Arc<[f32]>>,
    pub(super) col_rotation: Option<Arc<Rotation>>,
    pub(super) row_scales: Option<Arc<[f32]>>,
    pub(super) row_rotation: Option<Arc<Rotation>>,
}

/// What becomes of all of them.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    changes: HashMap<TensorId, Change>,
}

impl Changes {
    pub(crate) fn of(&self, id: TensorId) -> Option<&Change> {
        self.changes.get(&id)
    }

    /// What the columns of a matrix were multiplied by.
    pub(crate) fn col_scales(&self, id: TensorId) -> Option<&Arc<[f32]>> {
        self.of(id)?.col_scales.as_ref()
    }

    pub(super) fn entry(&mut self, id: TensorId) -> &mut Change {
        self.changes.entry(id).or_default()
    }
}

impl Change {
    /// Whether rows can be made without all the others.
    fn is_by_row(&self) -> bool {
        self.row_rotation.is_none()
    }

    /// Changes rows from `first` on; all of them where rows are rotated.
    fn apply(&self, first: usize, cols: usize, values: &mut [f32]) {
        if self.ones {
            values.fill(1.0);
            return;
        }
        for (row, values) in values.chunks_exact_mut(cols).enumerate() {
            if let Some(scales) = &self.col_scales {
                values.iter_mut().zip(&scales[..]).for_each(|(value, scale)| *value *= scale);
            }
            if let Some(scales) = &self.row_scales {
                values.iter_mut().for_each(|value| *value *= scales[first + row]);
            }
            if let Some(rotation) = &self.col_rotation {
                rotation.apply(values, 1);
            }
        }
        if let Some(rotation) = &self.row_rotation {
            rotation.apply(values, cols);
        }
    }
}

/// A tensor's values as they go into the file.
pub(crate) struct Source<'a> {
    checkpoint: &'a Checkpoint,
    stored: &'a Binding,
    change: Option<&'a Change>,
    /// What is read here: of type F32 where something changes.
    pub(crate) binding: Binding,
    /// All rows, once they were needed together.
    whole: Option<Vec<f32>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, stored: &'a Binding, changes: Option<&'a Changes>) -> Self {
        let change = changes.and_then(|changes| changes.of(stored.id));
        let binding = match change {
            None => stored.clone(),
            Some(_) => Binding {
                dtype: SourceType::F32,
                row_map: RowMap::From(0),
                transposed: false,
                offset: 0.0,
                survey: None,
                ..stored.clone()
            },
        };
        Self { checkpoint, stored, change, binding, whole: None }
    }

    /// Rows of a matrix, in the type of [`Source::binding`].
    pub(crate) fn rows(&mut self, rows: Range<usize>) -> Result<Vec<u8>, PassError> {
        let Some(change) = self.change else { return Ok(read_rows(self.checkpoint, self.stored, rows)?) };
        let cols = self.stored.cols;
        if change.is_by_row() {
            let mut values = load_rows(self.checkpoint, self.stored, rows.clone())?;
            change.apply(rows.start, cols, &mut values);
            return Ok(to_bytes(&values));
        }
        if self.whole.is_none() {
            let mut values = load_rows(self.checkpoint, self.stored, 0..self.stored.rows)?;
            change.apply(0, cols, &mut values);
            self.whole = Some(values);
        }
        let whole = self.whole.as_ref().expect("set above");
        Ok(to_bytes(&whole[rows.start * cols..rows.end * cols]))
    }

    /// All values of a vector.
    pub(crate) fn vector(&self) -> Result<Vec<f32>, PassError> {
        debug_assert_eq!(self.stored.id.role.kind(), Kind::Vector);
        let mut values = read_vector(self.checkpoint, self.stored)?;
        if let Some(change) = self.change {
            change.apply(0, 1, &mut values);
        }
        Ok(values)
    }
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The checked values of some rows of a matrix. Those of a transposed or packed tensor are gathered from all of it.
pub(super) fn load_rows(
    checkpoint: &Checkpoint,
    binding: &Binding,
    rows: Range<usize>,
) -> Result<Vec<f32>, PassError> {
    let stored = read_rows(checkpoint, binding, rows.clone())?;
    let mut values = vec![0.0f32; rows.len() * binding.cols];
    binding.dtype.decode(&stored, &mut values).expect("the binding's type was seen to be loadable");
    values.iter_mut().for_each(|value| *value += binding.offset);
    let Some(at) = values.iter().position(|value| !value.is_finite()) else { return Ok(values) };
    Err(CheckpointError::NotFinite {
        tensor: binding.tensor.clone(),
        id: binding.id,
        row: rows.start + at / binding.cols,
        column: at % binding.cols,
        value: values[at],
    }
    .into())
}
