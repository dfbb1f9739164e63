//! Working memory of a pass, independent of the sequences that its tokens belong to.

use crate::error::RuntimeError;
use crate::memory::{probe, product, zeros};
use pith_format::ModelConfig;
use pith_kernels::{ACTIVATION_GROUP, Activations, PACKED_TOKENS, PackedGroup, padded_len};

/// Working memory for a call of up to `batch` tokens.
pub(crate) struct Buffers {
    /// The residual stream, `tokens × hidden_len`.
    pub x: Vec<f32>,
    /// Intermediate values of one block at a time: queries, keys, values and their mix, or gate and
    /// up; then the block's output. A parallel layer keeps the first two sets side by side.
    pub shared: Vec<f32>,
    /// One token, or one head of it, during normalisation.
    pub row: Vec<f32>,
    /// Operand of the next matrices.
    pub operand: Activations,
    /// Operand of a layer's last matrix, where it is packed.
    pub inner: Activations,
}

impl Buffers {
    /// Buffers for calls of up to `batch` tokens.
    pub fn new(config: &ModelConfig, batch: usize) -> Result<Self, RuntimeError> {
        let what = "the activations";
        let Lengths { shared, row, widest, inner } = Lengths::of(config);
        let values = |len: usize| zeros(what, product(&[batch, len]).unwrap_or(usize::MAX));
        probe(what, Activations::bytes(batch, widest))?;
        Ok(Self {
            x: values(config.hidden_len)?,
            shared: values(shared)?,
            row: vec![0.0; row],
            operand: Activations::new(batch, widest),
            inner: Activations::packed(batch, inner),
        })
    }

    /// Upper bound of the bytes of [`Buffers::new`]; `None` on overflow.
    pub fn bytes(config: &ModelConfig, batch: usize) -> Option<usize> {
        let Lengths { shared, row, widest, inner } = Lengths::of(config);
        let values = product(&[batch, config.hidden_len.checked_add(shared)?])?.checked_add(row)?;
        let packs = product(&[batch.div_ceil(PACKED_TOKENS), padded_len(inner) / ACTIVATION_GROUP])?;
        values
            .checked_mul(size_of::<f32>())?
            .checked_add(Activations::bytes(batch, widest)?)?
            .checked_add(packs.checked_mul(size_of::<PackedGroup>())?)
    }

    /// Residual streams of a call's first tokens: `len` values, `tokens × hidden_len`.
    pub fn hidden(&mut self, len: usize) -> &mut [f32] {
        &mut self.x[..len]
    }

    /// Most values in the results of one product (all matrices that read one operand) for `batch`
    /// tokens.
    pub fn largest_product(config: &ModelConfig, batch: usize) -> Option<usize> {
        let rows = config.layers.iter().map(|layer| {
            let attention = layer.attention().map_or(0, |dims| dims.query_len() + 2 * dims.kv_len());
            attention.max(2 * layer.dense().map_or(0, |dims| dims.len)).max(config.hidden_len)
        });
        product(&[batch, rows.max().unwrap_or(0)])
    }
}

/// Values of each buffer: per token of `shared`, and the columns of both operands; `row` in all.
struct Lengths {
    shared: usize,
    row: usize,
    widest: usize,
    inner: usize,
}

impl Lengths {
    fn of(config: &ModelConfig) -> Self {
        let (widths, hidden_len) = (Widths::of(config), config.hidden_len);
        let shared = config.layers.iter().map(|layer| {
            let [attention, ffn] = areas(layer, hidden_len);
            if layer.parallel { attention + ffn } else { attention.max(ffn) }
        });
        Self {
            shared: shared.max().unwrap_or(0),
            row: hidden_len.max(widths.head),
            widest: widths.widest(hidden_len),
            inner: widths.inner,
        }
    }
}

/// Largest widths over a model's layers.
pub(crate) struct Widths {
    /// A head.
    pub head: usize,
    /// All query heads.
    pub queries: usize,
    /// Inner width of a feed-forward block.
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
            inner: inner.max().unwrap_or(0),
        }
    }

    /// The widest operand of any matrix.
    pub fn widest(&self, hidden_len: usize) -> usize {
        hidden_len.max(self.queries).max(self.inner)
    }
}

/// Values per token in the shared buffer: the attention's part and the feed-forward block's.
pub(crate) fn areas(layer: &pith_format::Layer, hidden_len: usize) -> [usize; 2] {
    let attention = layer.attention().map_or(0, |dims| 2 * (dims.query_len() + dims.kv_len()));
    let inner = layer.dense().map_or(0, |dims| dims.len);
    [attention.max(hidden_len), (2 * inner).max(hidden_len)]
}
