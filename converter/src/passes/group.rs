//! The unit that a pass works on: the matrices that read one input, or a run of rows of one of
//! them.

use std::borrow::Cow;
use std::sync::Arc;

use pith_format::{Encoding, Role, TensorId};

use super::{PassError, Rounded};
use crate::checkpoint::SourceType;
use crate::recipe::Quantizer;
use crate::scan::first_index;
use crate::statistics::Site;

/// The input of a matrix: a site of a layer, or of no layer for the head.
pub(crate) type Place = (Option<usize>, Site);

/// The input of a matrix; `None` for vectors and for matrices whose rows are only looked up.
pub(crate) fn place(id: TensorId, tied_head: bool) -> Option<Place> {
    match id.role {
        Role::TokenEmbedding => tied_head.then_some((None, Site::Head)),
        role => Site::of(role).map(|site| (id.layer, site)),
    }
}

/// Matrices that read one input, as far as they are in memory at once.
///
/// A pass may change weights, remove rows, columns or whole members, and put a mask on a member.
/// Changes of shape are declared beforehand in [`Pass::reshape`](super::Pass::reshape).
pub(crate) struct Group {
    /// The input of all members.
    pub(crate) input: Option<Place>,
    /// Factors of the columns since the statistics of the input were collected; the input is
    /// divided by them.
    pub(crate) input_scales: Option<Arc<[f32]>>,
    pub(crate) members: Vec<Member>,
}

/// A matrix, a run of its rows, or a vector.
pub(crate) struct Member {
    pub(crate) id: TensorId,
    /// The tensor whose weights these are; not `id` where a pass added the matrix.
    pub(crate) origin: TensorId,
    /// Name of the tensor in the checkpoint, for messages.
    pub(crate) tensor: String,
    /// `None` for a vector, whose values are stored as they are.
    pub(crate) encoding: Option<Encoding>,
    /// The quantizer; `None`: nearest level, by the weights alone.
    pub(crate) quantizer: Option<Quantizer>,
    /// Index in the matrix of the first of these rows.
    pub(crate) first_row: usize,
    /// Columns of a matrix, 1 for a vector.
    pub(crate) cols: usize,
    /// Row by row.
    pub(crate) weights: Vec<f32>,
    /// Weights that must become zero. Their values stay until the member is rounded, so that a
    /// quantizer can cancel their error in the other weights of the row.
    pub(crate) mask: Option<Vec<bool>>,
    /// The part of the weights that another matrix holds; the residual is stored.
    pub(crate) base: Option<Vec<f32>>,
    /// The checkpoint's codes, where they can be repacked without loss.
    pub(crate) codes: Option<Codes>,
    /// The rounded weights.
    pub(crate) levels: Option<Rounded>,
    /// The levels are the checkpoint's own codes.
    pub(crate) repacked: bool,
}

/// Rows of codes and scales as a checkpoint stores them.
pub(crate) struct Codes {
    pub(crate) dtype: SourceType,
    pub(crate) row_bytes: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Member {
    /// Rows in memory.
    pub(crate) fn rows(&self) -> usize {
        self.weights.len() / self.cols
    }

    /// The weights, for a pass to change. Drops the checkpoint's codes, which no longer hold.
    pub(crate) fn weights_mut(&mut self) -> &mut [f32] {
        self.codes = None;
        &mut self.weights
    }

    /// The weights to store: zero under the mask, and less the part that another matrix holds.
    pub(crate) fn to_store(&self) -> Cow<'_, [f32]> {
        if self.mask.is_none() && self.base.is_none() {
            return Cow::Borrowed(&self.weights);
        }
        let mut weights = self.weights.clone();
        if let Some(base) = &self.base {
            weights.iter_mut().zip(base).for_each(|(weight, base)| *weight -= base);
        }
        if let Some(mask) = &self.mask {
            weights.iter_mut().zip(mask).filter(|(_, masked)| **masked).for_each(|(weight, _)| *weight = 0.0);
        }
        Cow::Owned(weights)
    }

    /// Checks that every weight is a number, and that the encoding has a zero where there is a
    /// mask.
    pub(crate) fn check(&self) -> Result<(), PassError> {
        let grouped = self.encoding.and_then(|encoding| Some((encoding, encoding.grouped()?)));
        if let (Some(_), Some((encoding, grouped))) = (&self.mask, grouped)
            && !grouped.has_zero()
        {
            return Err(PassError::NoZero { id: self.id, encoding });
        }
        let Some(at) = first_index(&self.weights, |weight| !weight.is_finite()) else {
            return Ok(());
        };
        let (row, column) = (self.first_row + at / self.cols, at % self.cols);
        let (tensor, id, value) = (self.tensor.clone(), self.id, self.weights[at]);
        Err(PassError::NotFinite { tensor, id, row, column, value })
    }
}
