//! What a pass works on: the matrices that read one input, or a run of rows of one of them.

use std::borrow::Cow;
use std::sync::Arc;

use pith_format::{Encoding, Role, TensorId};
use rayon::prelude::*;

use super::{PassError, Rounded};
use crate::checkpoint::{CheckpointError, SourceType};
use crate::recipe::Quantizer;
use crate::statistics::Site;

/// Where matrices read: a site of a layer, or of none for the head.
pub(crate) type Place = (Option<usize>, Site);

/// Where a matrix reads; `None` for one whose rows are only looked up, and for vectors.
pub(crate) fn place(id: TensorId, tied_head: bool) -> Option<Place> {
    match id.role {
        Role::TokenEmbedding => tied_head.then_some((None, Site::Head)),
        role => Site::of(role).map(|site| (id.layer, site)),
    }
}

/// Matrices that read one input, as far as they are in memory at once.
///
/// A pass may change weights, take rows, columns or whole members away, and put a mask on a member. What changes a shape
/// is declared before, in [`Pass::reshape`](super::Pass::reshape).
pub(crate) struct Group {
    /// Where the members read.
    pub(crate) input: Option<Place>,
    /// What columns were multiplied by since statistics of the input were taken; the input is divided by it.
    pub(crate) input_scales: Option<Arc<[f32]>>,
    pub(crate) members: Vec<Member>,
}

/// A matrix, a run of its rows, or a vector.
pub(crate) struct Member {
    pub(crate) id: TensorId,
    /// The tensor whose weights these are: another than `id` where a pass added a matrix to that one.
    pub(crate) origin: TensorId,
    /// Name of the tensor in the checkpoint, for messages.
    pub(crate) tensor: String,
    /// `None` for a vector, whose values are stored as they are.
    pub(crate) encoding: Option<Encoding>,
    /// Which quantizer rounds it; `None`: to the nearest level by the weights alone.
    pub(crate) quantizer: Option<Quantizer>,
    /// Place of the first of these rows in the matrix.
    pub(crate) first_row: usize,
    /// Columns of a matrix, 1 for a vector.
    pub(crate) cols: usize,
    /// Row by row.
    pub(crate) weights: Vec<f32>,
    /// Weights that must become zero, where some must. Their values stay until the member is rounded: an error that a
    /// quantizer may give to the other weights of the row.
    pub(crate) mask: Option<Vec<bool>>,
    /// What another matrix holds of the weights already; the rest is stored.
    pub(crate) base: Option<Vec<f32>>,
    /// The codes that the checkpoint holds, where these can be stored as they are.
    pub(crate) codes: Option<Codes>,
    /// The weights rounded.
    pub(crate) levels: Option<Rounded>,
    /// The levels are the checkpoint's own codes.
    pub(crate) carried: bool,
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

    /// The weights for a pass to change; codes of the checkpoint no longer stand for them.
    pub(crate) fn weights_mut(&mut self) -> &mut [f32] {
        self.codes = None;
        &mut self.weights
    }

    /// The weights with zeros under the mask and without what another matrix holds of them.
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

    /// Every weight is a number, and the encoding has a zero for those under a mask.
    pub(crate) fn check(&self) -> Result<(), PassError> {
        let levels = self.encoding.and_then(|encoding| Some((encoding, encoding.grouped()?.levels)));
        if let (Some(_), Some((encoding, levels))) = (&self.mask, levels)
            && !levels.contains(&0)
        {
            return Err(PassError::NoZero { id: self.id, encoding });
        }
        let Some(at) = self.weights.par_iter().position_first(|weight| !weight.is_finite()) else {
            return Ok(());
        };
        let (row, column) = (self.first_row + at / self.cols, at % self.cols);
        let (tensor, id, value) = (self.tensor.clone(), self.id, self.weights[at]);
        Err(CheckpointError::NotFinite { tensor, id, row, column, value }.into())
    }
}
