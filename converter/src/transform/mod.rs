//! Changes of basis that leave what a model computes as it is and make its matrices easier to round.
//!
//! Between two linear maps with nothing but linear in between there is room for any invertible matrix and its inverse. What
//! is put there, [`hadamard`] rotations or [`awq`] scales, is multiplied into the weights on both sides: the file holds
//! a model like any other, and running it costs nothing more.

pub(crate) mod awq;
mod hadamard;
mod rotation;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use pith_format::{Kind, Provenance, TensorId};

use crate::arch::{Binding, RowMap};
use crate::error::ConvertError;
use crate::source::{Checkpoint, SourceType};
use crate::weights::{read_rows, read_vector};
use rotation::Rotation;

pub(crate) use hadamard::hadamard;

/// Which change of basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transform {
    /// Columns are scaled by how large their inputs are, so that rounding spares those that matter, and what gives the inputs is
    /// scaled back (AWQ: Lin et al., arXiv 2306.00978). Needs a calibration with Hessians.
    Awq,
    /// Inputs are rotated so that none is much larger than the others (QuaRot's merged rotations: Ashkboos et al., arXiv
    /// 2404.00456). The file's head is a matrix of its own even where the checkpoint's is the embedding.
    Hadamard,
}

impl Transform {
    /// Name in recipes and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Awq => "awq",
            Self::Hadamard => "hadamard",
        }
    }

    /// Whether a calibration is of the changed model; otherwise it is of the checkpoint as it was.
    pub(crate) fn is_calibrated_after(self) -> bool {
        self == Self::Hadamard
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Awq, Self::Hadamard].into_iter().find(|transform| transform.name() == name)
    }
}

/// The change of basis that a file went through.
pub(crate) fn recorded(provenance: &Provenance) -> Option<Transform> {
    provenance.passes.iter().find_map(|pass| Transform::of_name(&pass.name))
}

/// Tells models apart whose matrices read different inputs: the checkpoint's checksum, and the change of basis if there was one.
pub(crate) fn identity(provenance: &Provenance) -> String {
    identity_of(&provenance.source.checksum, recorded(provenance))
}

/// [`identity`] of what is not written yet.
pub(crate) fn identity_of(checksum: &str, transform: Option<Transform>) -> String {
    match transform {
        Some(transform) => format!("{checksum}:{}", transform.name()),
        None => checksum.into(),
    }
}

/// What becomes of a tensor `W`: columns are scaled and then rotated, rows are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// All values are 1: a norm whose weights went elsewhere.
    ones: bool,
    col_scales: Option<Arc<[f32]>>,
    col_rotation: Option<Arc<Rotation>>,
    row_scales: Option<Arc<[f32]>>,
    row_rotation: Option<Arc<Rotation>>,
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

    fn entry(&mut self, id: TensorId) -> &mut Change {
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
    pub(crate) fn rows(&mut self, rows: Range<usize>) -> Result<Vec<u8>, ConvertError> {
        let Some(change) = self.change else { return read_rows(self.checkpoint, self.stored, rows) };
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
    pub(crate) fn vector(&self) -> Result<Vec<f32>, ConvertError> {
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
fn load_rows(
    checkpoint: &Checkpoint,
    binding: &Binding,
    rows: Range<usize>,
) -> Result<Vec<f32>, ConvertError> {
    let stored = read_rows(checkpoint, binding, rows.clone())?;
    let mut values = vec![0.0f32; rows.len() * binding.cols];
    binding.dtype.decode(&stored, &mut values).expect("the binding's type was seen to be loadable");
    values.iter_mut().for_each(|value| *value += binding.offset);
    let Some(at) = values.iter().position(|value| !value.is_finite()) else { return Ok(values) };
    Err(ConvertError::NotFinite {
        tensor: binding.tensor.clone(),
        id: binding.id,
        row: rows.start + at / binding.cols,
        column: at % binding.cols,
        value: values[at],
    })
}
