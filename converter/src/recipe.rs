//! Which encoding each matrix gets.

use std::fmt;

use pith_format::{Encoding, Role};

use crate::arch::Binding;
use crate::source::SourceType;

/// The encodings of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Matrices of the layers.
    pub matrices: Encoding,
    /// Embeddings; `None` is [`Recipe::outer`].
    pub embedding: Option<Encoding>,
    /// The head, and the embedding that serves as one; `None` is `embedding`.
    pub head: Option<Encoding>,
    /// Matrices whose type in the source has an encoding of its own (F32, F16, Q4_0, Q8_0) keep it without loss; the
    /// encodings above are for the others.
    pub keep: bool,
}

impl Recipe {
    /// `matrices` for the layers, and what goes with it for embeddings and head.
    pub fn new(matrices: Encoding) -> Self {
        Self { matrices, embedding: None, head: None, keep: false }
    }

    /// The default for embeddings and head: as the layers, but at least 8 bits, since both act on the result at once.
    pub fn outer(&self) -> Encoding {
        if self.matrices.bits_per_weight() < 8.0 { Encoding::Q8 } else { self.matrices }
    }

    /// The encoding of a matrix that is `dtype` in the source.
    pub(crate) fn encoding(&self, role: Role, dtype: SourceType, tied_head: bool) -> Encoding {
        if let (true, Some(encoding)) = (self.keep, same(dtype)) {
            return encoding;
        }
        let embedding = self.embedding.unwrap_or(self.outer());
        match role {
            Role::TokenEmbedding if !tied_head => embedding,
            Role::TokenEmbedding | Role::Head => self.head.unwrap_or(embedding),
            Role::PositionEmbedding => embedding,
            _ => self.matrices,
        }
    }
}

impl Default for Recipe {
    fn default() -> Self {
        Self::new(Encoding::Q4)
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let embedding = self.embedding.unwrap_or(self.outer());
        let head = self.head.unwrap_or(embedding);
        let keep = if self.keep { "keep, else " } else { "" };
        write!(formatter, "{keep}{}, embedding {embedding}, head {head}", self.matrices)
    }
}

/// The encoding that holds a source type's values exactly, in its bits.
fn same(dtype: SourceType) -> Option<Encoding> {
    match dtype {
        SourceType::F32 => Some(Encoding::F32),
        SourceType::F16 => Some(Encoding::F16),
        SourceType::Q4_0 => Some(Encoding::Q4),
        SourceType::Q8_0 => Some(Encoding::Q8),
        _ => None,
    }
}

/// Whether the source's codes and scales become the file's, rather than be decoded and rounded again.
pub(crate) fn is_carried(binding: &Binding, encoding: Encoding) -> bool {
    encoding.grouped().is_some() && same(binding.dtype) == Some(encoding) && binding.offset == 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_matrices_have_at_least_eight_bits() {
        let outer = |matrices| Recipe::new(matrices).encoding(Role::Head, SourceType::Bf16, false);
        assert_eq!(outer(Encoding::Q4), Encoding::Q8);
        assert_eq!(outer(Encoding::Q4G64), Encoding::Q8);
        assert_eq!(outer(Encoding::Q8), Encoding::Q8);
        assert_eq!(outer(Encoding::F32), Encoding::F32);
    }

    #[test]
    fn a_tied_matrix_is_encoded_as_a_head() {
        let recipe = Recipe { head: Some(Encoding::F16), embedding: Some(Encoding::Q4), ..Recipe::default() };
        let encoding = |role, tied| recipe.encoding(role, SourceType::F32, tied);
        assert_eq!(encoding(Role::TokenEmbedding, true), Encoding::F16);
        assert_eq!(encoding(Role::TokenEmbedding, false), Encoding::Q4);
        assert_eq!(encoding(Role::PositionEmbedding, true), Encoding::Q4);
        assert_eq!(encoding(Role::Query, true), Encoding::Q4);
        assert_eq!(recipe.to_string(), "q4, embedding q4, head f16");
    }

    #[test]
    fn keeping_follows_the_source() {
        let recipe = Recipe { keep: true, ..Recipe::default() };
        let encoding = |dtype| recipe.encoding(Role::Head, dtype, false);
        assert_eq!(encoding(SourceType::Q4_0), Encoding::Q4);
        assert_eq!(encoding(SourceType::F16), Encoding::F16);
        assert_eq!(encoding(SourceType::Q6K), Encoding::Q8);
        assert_eq!(recipe.to_string(), "keep, else q4, embedding q8, head q8");
    }
}
