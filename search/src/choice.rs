//! What can be done with a matrix.

use pith_converter::{ConvertError, Quantizer, Rounder};
use pith_format::{Encoding, TensorId, UnknownEncoding};
use pith_runtime::{Model, RuntimeError};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What is done with a matrix. The search knows what it costs, what it damages and how to apply it, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Choice {
    /// It is stored so.
    Encoding(Encoding),
}

impl Choice {
    /// Bytes of a `rows × cols` matrix.
    pub fn bytes(self, rows: usize, cols: usize) -> u64 {
        let Self::Encoding(encoding) = self;
        encoding.matrix_bytes(rows as u64, cols as u64).expect("a matrix that lies in an open file")
    }

    /// Bytes that looking up one of its rows reads.
    pub fn row_bytes(self, cols: usize) -> u64 {
        self.bytes(1, cols)
    }

    /// Bits of a weight.
    pub fn bits(self) -> f64 {
        let Self::Encoding(encoding) = self;
        encoding.bits_per_weight()
    }

    /// What a recipe says of it.
    pub fn encoding(self) -> Encoding {
        let Self::Encoding(encoding) = self;
        encoding
    }

    /// The matrix as it becomes.
    pub(crate) fn tiles(
        self,
        rounder: &Rounder<'_>,
        id: TensorId,
        quantizer: Quantizer,
    ) -> Result<Vec<u8>, ConvertError> {
        let Self::Encoding(encoding) = self;
        rounder.round(id, encoding, quantizer)
    }

    /// The model with [`Choice::tiles`] in the matrix's place.
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
