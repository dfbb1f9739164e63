//! What a pass computes in, whoever its tokens belong to.

use crate::error::RuntimeError;
use crate::memory::{probe, product, zeros};
use pith_format::ModelConfig;
use pith_kernels::Activations;

/// Everything a call computes with, for as many tokens as a call may have.
pub(crate) struct Buffers {
    /// The residual stream, `tokens × hidden_len`.
    pub x: Vec<f32>,
    /// What a block computes in turn: queries, keys, values and their mix, or gate and up; then what it adds to the
    /// residual stream. A parallel layer has the first two beside each other.
    pub shared: Vec<f32>,
    /// One token, or one head of it, while it is normalised.
    pub row: Vec<f32>,
    /// What the next matrices read.
    pub operand: Activations,
    /// What the last matrix of a layer reads, where it is packed.
    pub inner: Activations,
}

impl Buffers {
    /// Room for calls of up to `batch` tokens.
    pub fn new(config: &ModelConfig, batch: usize) -> Result<Self, RuntimeError> {
        let what = "the activations";
        let widths = Widths::of(config);
        let values = |len: usize| zeros(what, product(&[batch, len]).unwrap_or(usize::MAX));
        let hidden_len = config.hidden_len;
        let shared_len = config.layers.iter().map(|layer| {
            let [attention, ffn] = areas(layer, hidden_len);
            if layer.parallel { attention + ffn } else { attention.max(ffn) }
        });
        let widest = widths.widest(hidden_len);
        probe(what, Activations::bytes(batch, widest))?;
        Ok(Self {
            x: values(hidden_len)?,
            shared: values(shared_len.max().unwrap_or(0))?,
            row: vec![0.0; hidden_len.max(widths.head)],
            operand: Activations::new(batch, widest),
            inner: Activations::packed(batch, widths.inner),
        })
    }

    /// The residual streams of a call's first tokens, `tokens × hidden_len`.
    pub fn hidden(&mut self, len: usize) -> &mut [f32] {
        &mut self.x[..len]
    }

    /// Most values that the results of one product of all matrices with the same operand take, for `batch` tokens.
    pub fn largest_product(config: &ModelConfig, batch: usize) -> Option<usize> {
        let rows = config.layers.iter().map(|layer| {
            let attention = layer.attention().map_or(0, |dims| dims.query_len() + 2 * dims.kv_len());
            attention.max(2 * layer.dense().map_or(0, |dims| dims.len)).max(config.hidden_len)
        });
        product(&[batch, rows.max().unwrap_or(0)])
    }
}

/// The largest of each width over a model's layers.
pub(crate) struct Widths {
    /// A head.
    pub head: usize,
    /// All query heads.
    pub queries: usize,
    /// All key heads.
    pub keys: usize,
    /// Inside of a feed-forward block.
    pub inner: usize,
}

impl Widths {
    pub fn of(config: &ModelConfig) -> Self {
        let attention = |len: fn(&pith_format::Attention) -> usize| {
            config.layers.iter().filter_map(|layer| layer.attention().map(len)).max().unwrap_or(0)
        };
        let inner = config.layers.iter().filter_map(|layer| layer.dense().map(|dims| dims.len));
        Self {
            head: attention(|dims| dims.head_dim),
            queries: attention(pith_format::Attention::query_len),
            keys: attention(pith_format::Attention::kv_len),
            inner: inner.max().unwrap_or(0),
        }
    }

    /// The widest that any matrix reads.
    pub fn widest(&self, hidden_len: usize) -> usize {
        hidden_len.max(self.queries).max(self.inner)
    }
}

/// Values a token of the attention's part of the shared buffer, and of the feed-forward block's.
pub(crate) fn areas(layer: &pith_format::Layer, hidden_len: usize) -> [usize; 2] {
    let attention = layer.attention().map_or(0, |dims| 2 * (dims.query_len() + dims.kv_len()));
    let inner = layer.dense().map_or(0, |dims| dims.len);
    [attention.max(hidden_len), (2 * inner).max(hidden_len)]
}
