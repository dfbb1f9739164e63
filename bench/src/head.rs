//! The head that a decoded token reads. Comparisons of runtimes report it, since it is a fifth or
//! more of a small model's bytes.

use pith_format::{Index, Role, TensorId};

/// The one or two matrices that produce the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Encoding; two joined by `+` for a head with a residual matrix.
    pub encoding: String,
    /// Bits per weight, over both matrices.
    pub bits_per_weight: f64,
}

impl Head {
    /// The head of a file: its own matrix, or the embedding where the two are tied. `None` where
    /// the file has neither.
    pub fn of(index: &Index) -> Option<Self> {
        let entry = |role| index.entry(TensorId::model(role));
        let first = entry(Role::Head).or_else(|| entry(Role::TokenEmbedding))?;
        let parts: Vec<_> = [Some(first), entry(Role::HeadResidual)].into_iter().flatten().collect();
        let encodings: Option<Vec<_>> = parts.iter().map(|part| part.encoding).collect();
        let encodings = encodings?;
        Some(Self {
            encoding: encodings.iter().map(|encoding| encoding.name()).collect::<Vec<_>>().join("+"),
            bits_per_weight: encodings.iter().map(|encoding| encoding.bits_per_weight()).sum(),
        })
    }
}
