//! Changes of basis: they keep the function of a model and make its matrices easier to round.
//!
//! Between two matrices with only linear maps in between, any invertible matrix and its inverse can
//! be inserted. [`hadamard`](super::hadamard) inserts rotations, [`awq`](super::awq) scales. Both
//! are multiplied into the weights on either side: the file holds an ordinary model and costs the
//! same to run.

use std::collections::HashMap;
use std::sync::Arc;

use pith_format::TensorId;

use super::rotation::Rotation;
use super::{Extent, Group, PassReport};

/// Change of a tensor `W`: columns are first scaled, then rotated; so are rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// All values become 1: a norm whose weights moved into other matrices.
    pub(super) ones: bool,
    pub(super) col_scales: Option<Arc<[f32]>>,
    pub(super) col_rotation: Option<Arc<Rotation>>,
    pub(super) row_scales: Option<Arc<[f32]>>,
    pub(super) row_rotation: Option<Arc<Rotation>>,
}

/// Changes of all tensors.
#[derive(Debug, Default)]
pub(super) struct Changes {
    changes: HashMap<TensorId, Change>,
}

impl Changes {
    fn of(&self, id: TensorId) -> Option<&Change> {
        self.changes.get(&id)
    }

    /// The factors of a matrix's columns.
    pub(super) fn col_scales(&self, id: TensorId) -> Option<&Arc<[f32]>> {
        self.of(id)?.col_scales.as_ref()
    }

    /// The rows that must be in memory to change a tensor: all of them where rows are mixed.
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
    /// Changes the rows from `first` on. Where rows are rotated, `values` must hold all of them.
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
