//! Changes of basis that leave what a model computes as it is and make its matrices easier to round.
//!
//! Where nothing but linear maps lies between two matrices there is room for any invertible matrix and its inverse.
//! [`hadamard`](super::hadamard) puts rotations there, [`awq`](super::awq) scales. Both are multiplied into the weights on
//! either side: the file holds a model like any other, and running it costs nothing more.

use std::collections::HashMap;
use std::sync::Arc;

use pith_format::TensorId;

use super::rotation::Rotation;
use super::{Extent, Group, PassReport};

/// What becomes of a tensor `W`: columns are scaled and then rotated, rows are.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// All values are 1: a norm whose weights went elsewhere.
    pub(super) ones: bool,
    pub(super) col_scales: Option<Arc<[f32]>>,
    pub(super) col_rotation: Option<Arc<Rotation>>,
    pub(super) row_scales: Option<Arc<[f32]>>,
    pub(super) row_rotation: Option<Arc<Rotation>>,
}

/// What becomes of all of them.
#[derive(Debug, Default)]
pub(super) struct Changes {
    changes: HashMap<TensorId, Change>,
}

impl Changes {
    fn of(&self, id: TensorId) -> Option<&Change> {
        self.changes.get(&id)
    }

    /// What the columns of a matrix were multiplied by.
    pub(super) fn col_scales(&self, id: TensorId) -> Option<&Arc<[f32]>> {
        self.of(id)?.col_scales.as_ref()
    }

    /// What must be in memory to change a tensor: all of it where rows are mixed.
    pub(super) fn extent(&self, id: TensorId) -> Extent {
        let mixes_rows = self.of(id).is_some_and(|change| change.row_rotation.is_some());
        if mixes_rows { Extent::Matrix } else { Extent::Rows }
    }

    /// Changes the members of a group.
    pub(super) fn apply(&self, group: &mut Group) -> PassReport {
        let mut report = PassReport::default();
        for member in &mut group.members {
            let Some(change) = self.of(member.origin) else { continue };
            let (first_row, cols) = (member.first_row, member.cols);
            change.apply(first_row, cols, member.weights_mut());
            report.members += 1;
        }
        report
    }

    pub(super) fn entry(&mut self, id: TensorId) -> &mut Change {
        self.changes.entry(id).or_default()
    }
}

impl Change {
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
