//! Choices for one matrix.

use pith_converter::{ConvertError, Quantizer, Rounder};
use pith_format::{Encoding, TensorId, UnknownEncoding};
use pith_runtime::{Model, RuntimeError};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A choice for a matrix. The search knows its cost, its sensitivity and its effect, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Choice {
    /// Store the matrix in this encoding.
    Encoding(Encoding),
}

impl Choice {
    /// Bytes of a `rows × cols` matrix.
    pub fn bytes(self, rows: usize, cols: usize) -> u64 {
        let Self::Encoding(encoding) = self;
        encoding.matrix_bytes(rows as u64, cols as u64).expect("a matrix that lies in an open file")
    }

    /// Bytes read to look up one of its rows.
    pub fn row_bytes(self, cols: usize) -> u64 {
        self.bytes(1, cols)
    }

    /// Bits per weight.
    pub fn bits(self) -> f64 {
        let Self::Encoding(encoding) = self;
        encoding.bits_per_weight()
    }

    /// Its encoding in a recipe.
    pub fn encoding(self) -> Encoding {
        let Self::Encoding(encoding) = self;
        encoding
    }

    /// The tiles of a matrix after this choice.
    pub(crate) fn tiles(
        self,
        rounder: &Rounder<'_>,
        id: TensorId,
        quantizer: Quantizer,
    ) -> Result<Vec<u8>, ConvertError> {
        let Self::Encoding(encoding) = self;
        rounder.round(id, encoding, quantizer)
    }

    /// The model with [`Choice::tiles`] in place of the matrix.
    pub(crate) fn apply(self, model: Model, id: TensorId, tiles: Arc<[u8]>) -> Result<Model, RuntimeError> {
        let Self::Encoding(encoding) = self;
        model.with_matrix(id, encoding, tiles)
    }
}

impl From<Encoding> for Choice {
    fn from(encoding: Encoding) -> Self {
        Self::Encoding(encoding)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Encoding(encoding) = self;
        encoding.fmt(formatter)
    }
}

impl FromStr for Choice {
    type Err = UnknownEncoding;

    fn from_str(name: &str) -> Result<Self, UnknownEncoding> {
        Ok(Self::Encoding(name.parse()?))
    }
}
