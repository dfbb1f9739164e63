//! The head that a decoded token reads: comparisons of runtimes say it, since it is a fifth of a
//! small model's bytes and more.

use pith_format::{Index, Role, TensorId};

/// The matrix, or the two of them, that logits are computed with.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Encoding; two joined by + for a head stored in two parts.
    pub encoding: String,
    /// Bits for each weight, of both parts together.
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
