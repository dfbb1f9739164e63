//! Where each weight of a model lies.

use pith_format::{Encoding, Matrix, Role};
use std::ops::Range;
use std::sync::Arc;

/// Location of a matrix.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub encoding: Encoding,
    pub rows: usize,
    pub cols: usize,
    /// Byte range in the file.
    pub range: Range<usize>,
    /// Replacement bytes, read instead of the file's.
    pub own: Option<Arc<[u8]>>,
    /// Offsets of the blocks, then the end of the last one, where blocks differ in size.
    pub blocks: Option<Arc<[u64]>>,
}

/// A vector, copied out of the file. Only [`Exec`](crate::exec::Exec) reads it, so that every use
/// is counted.
#[derive(Debug)]
pub(crate) struct Vector(Vec<f32>);

/// A matrix and the bias of its product.
#[derive(Debug)]
pub(crate) struct Linear {
    pub weight: Stored,
    pub bias: Option<Vector>,
}

/// Weight and bias of a norm; the model's configuration gives the kind.
#[derive(Debug)]
pub(crate) struct Norm {
    pub weight: Vector,
    pub bias: Option<Vector>,
}

/// One layer's weights.
#[derive(Debug)]
pub(crate) struct Layer {
    /// `None` where the layer has no mixer.
    pub attention: Option<Attention>,
    /// `None` where the layer has no feed-forward block.
    pub feed_forward: Option<FeedForward>,
}

/// The weights of an attention block.
#[derive(Debug)]
pub(crate) struct Attention {
    pub norm: Norm,
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    /// Weights of the norms of query and key heads.
    pub head_norms: Option<[Vector; 2]>,
    pub output: Linear,
    pub post_norm: Option<Norm>,
}

/// The weights of a feed-forward block.
#[derive(Debug)]
pub(crate) struct FeedForward {
    /// `None` in parallel layers whose block shares attention's input.
    pub norm: Option<Norm>,
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub post_norm: Option<Norm>,
}

impl Layer {
    /// All matrices, in the order of use.
    pub fn matrices(&self) -> impl Iterator<Item = &Stored> {
        let attention = self
            .attention
            .iter()
            .flat_map(|attention| [&attention.query, &attention.key, &attention.value, &attention.output]);
        let feed_forward =
            self.feed_forward.iter().flat_map(|block| block.gate.iter().chain([&block.up, &block.down]));
        attention.chain(feed_forward).map(|linear| &linear.weight)
    }

    /// The matrix with this role.
    pub fn matrix(&mut self, role: Role) -> Option<&mut Stored> {
        let (attention, block) = (self.attention.as_mut(), self.feed_forward.as_mut());
        let linear = match role {
            Role::Query => &mut attention?.query,
            Role::Key => &mut attention?.key,
            Role::Value => &mut attention?.value,
            Role::AttentionOutput => &mut attention?.output,
            Role::Gate => block?.gate.as_mut()?,
            Role::Up => &mut block?.up,
            Role::Down => &mut block?.down,
            _ => return None,
        };
        Some(&mut linear.weight)
    }
}

impl Vector {
    pub fn new(values: Vec<f32>) -> Self {
        Self(values)
    }

    /// For [`Exec`](crate::exec::Exec) only, which counts the bytes.
    pub fn uncounted(&self) -> &[f32] {
        &self.0
    }
}

impl Stored {
    /// The matrix's replacement, or its bytes in the file it was resolved from.
    pub fn of<'a>(&'a self, file: &'a [u8]) -> Matrix<'a> {
        let bytes = self.own.as_deref().unwrap_or_else(|| &file[self.range.clone()]);
        let matrix = match &self.blocks {
            Some(blocks) => Matrix::indexed(self.encoding, self.rows, self.cols, bytes, blocks),
            None => Matrix::new(self.encoding, self.rows, self.cols, bytes),
        };
        matrix.expect("checked when the model was opened")
    }
}
