//! Bytes that a decoded token reads of a tensor. The sums over a directory and a search's budget use
//! this definition. The runtime counts what its kernels are given; tests hold both equal. A
//! placement's plan goes by the ranges of the file that it maps.

use crate::config::ModelConfig;
use crate::role::{Role, TensorId};
use std::ops::AddAssign;

/// Bytes that one decoded token reads of a tensor, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Streamed bytes: every token reads them completely, for products.
    pub streamed: u64,
    /// Looked-up bytes: the blocks of 16 rows that hold the token's rows.
    pub looked_up: u64,
}

impl Reads {
    /// Sum of both.
    pub fn bytes(self) -> u64 {
        self.streamed + self.looked_up
    }
}

impl AddAssign for Reads {
    fn add_assign(&mut self, other: Self) {
        self.streamed += other.streamed;
        self.looked_up += other.looked_up;
    }
}

impl TensorId {
    /// Bytes that a decoded token reads of this tensor. `bytes`: size of the tensor; `block_bytes`:
    /// size of a block of 16 rows (the mean where they differ).
    ///
    /// All bytes, with these exceptions. Tokenizer: nothing. Embeddings: one block, plus all bytes
    /// where the embedding is also the head. Experts' tensors: the share of experts that a token
    /// goes through.
    pub fn reads(self, model: &ModelConfig, bytes: u64, block_bytes: u64) -> Reads {
        let tied = model.tied_head;
        match self.role {
            Role::Tokenizer => Reads::default(),
            Role::PositionEmbedding => Reads { streamed: 0, looked_up: block_bytes },
            Role::TokenEmbedding => Reads { streamed: if tied { bytes } else { 0 }, looked_up: block_bytes },
            Role::HeadResidual => Reads { streamed: bytes, looked_up: if tied { block_bytes } else { 0 } },
            _ => Reads { streamed: self.share(model, bytes), looked_up: 0 },
        }
    }

    /// The mean part of `bytes` that belongs to the experts a token goes through.
    fn share(self, model: &ModelConfig, bytes: u64) -> u64 {
        let layer = self.expert.and(self.layer).and_then(|index| model.layers.get(index));
        let Some(experts) = layer.and_then(|layer| layer.experts()) else { return bytes };
        let share = u128::from(bytes) * experts.per_token as u128;
        share.div_ceil(experts.count as u128) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::tiny;
    use crate::layer::tests::every_kind;

    #[test]
    fn a_token_reads_what_it_uses() {
        let model = ModelConfig { layers: every_kind(), ..tiny() };
        let untied = ModelConfig { tied_head: false, ..model.clone() };
        let reads = |id: TensorId, model: &ModelConfig| {
            let Reads { streamed, looked_up } = id.reads(model, 1000, 10);
            (streamed, looked_up)
        };
        assert_eq!(reads(TensorId::model(Role::Tokenizer), &model), (0, 0));
        assert_eq!(reads(TensorId::model(Role::TokenEmbedding), &model), (1000, 10));
        assert_eq!(reads(TensorId::model(Role::TokenEmbedding), &untied), (0, 10));
        assert_eq!(reads(TensorId::model(Role::HeadResidual), &model), (1000, 10));
        assert_eq!(reads(TensorId::model(Role::HeadResidual), &untied), (1000, 0));
        assert_eq!(reads(TensorId::model(Role::PositionEmbedding), &model), (0, 10));
        assert_eq!(reads(TensorId::layer(Role::Up, 0), &model), (1000, 0));
        // Two of four experts.
        assert_eq!(reads(TensorId::expert(Role::Up, 2, 1), &model), (500, 0));
    }
}
