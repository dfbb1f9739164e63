//! The source of a file's tensor in the checkpoint.

use pith_format::{Role, Scope, TensorId};

use super::rule::RowMap;
use crate::checkpoint::SourceType;
use crate::checkpoint::survey::Survey;

/// A tensor of the file and the source of its values.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) id: TensorId,
    /// The source tensor.
    pub(crate) tensor: String,
    pub(crate) dtype: SourceType,
    /// Rows of a matrix, length of a vector.
    pub(crate) rows: usize,
    /// Columns of a matrix, 1 for a vector.
    pub(crate) cols: usize,
    pub(crate) row_map: RowMap,
    pub(crate) transposed: bool,
    pub(crate) offset: f32,
    /// Bytes of these values in the checkpoint's files.
    pub(crate) stored_bytes: u64,
    /// Properties of the codes of a quantized matrix, once they were read.
    pub(crate) survey: Option<Survey>,
}

impl Binding {
    /// Bytes of a row in the source's type.
    pub(crate) fn row_bytes(&self) -> usize {
        self.cols / self.dtype.block_len() * self.dtype.block_bytes()
    }

    /// Bytes of the tensor in the checkpoint's files.
    pub(crate) fn source_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The bytes of the first `rows` rows in the checkpoint's files.
    pub(crate) fn source_bytes_to(&self, rows: usize) -> u64 {
        (u128::from(self.stored_bytes) * rows as u128 / self.rows as u128) as u64
    }
}

/// Every tensor that a file may hold, in the order in which the forward pass reads them.
pub(super) fn file_order(layer_count: usize) -> impl Iterator<Item = TensorId> {
    let is_layer = |role: &&Role| role.scope() == Scope::Layer;
    let first = Role::ALL.iter().take_while(move |role| !is_layer(role));
    let last = Role::ALL.iter().skip_while(move |role| !is_layer(role)).filter(move |role| !is_layer(role));
    let layers = (0..layer_count).flat_map(move |layer| {
        Role::ALL.iter().filter(is_layer).map(move |&role| TensorId::layer(role, layer))
    });
    first.map(|&role| TensorId::model(role)).chain(layers).chain(last.map(|&role| TensorId::model(role)))
}
