//! A pass's view of one sequence, besides its tokens.

use crate::attention::AttentionBuffers;
use crate::cache::LayerCache;
use crate::error::RuntimeError;
use crate::rope::Rotation;
use pith_format::ModelConfig;
use pith_meter::Traffic;
use std::ops::Range;

/// Working memory of attention over one sequence.
pub(crate) struct Place {
    pub attention: AttentionBuffers,
    pub rotations: Vec<Rotation>,
}

/// A call's tokens of one sequence, with the place of its keys and values.
pub(crate) struct Sequence<'a> {
    /// Position of the first token.
    pub first: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// Caches of the layers from `first_layer` on.
    caches: &'a mut [LayerCache],
    first_layer: usize,
    pub place: &'a mut Place,
    /// Keys and values read and written.
    pub traffic: Traffic,
}

impl Place {
    /// Buffers for calls of up to `batch` tokens in a context of `context_len`.
    pub fn new(
        config: &ModelConfig,
        context_len: usize,
        batch: usize,
        threads: usize,
    ) -> Result<Self, RuntimeError> {
        let rotations = config.rope.iter().map(|table| Rotation::new(table, context_len, batch));
        Ok(Self {
            attention: AttentionBuffers::new(config, context_len, batch, threads)?,
            rotations: rotations.collect::<Result<_, _>>()?,
        })
    }

    /// Bytes of [`Place::new`]; `None` on overflow.
    pub fn bytes(config: &ModelConfig, context_len: usize, batch: usize, threads: usize) -> Option<usize> {
        let rotations = config.rope.iter().map(|table| Rotation::bytes(table, batch));
        let attention = AttentionBuffers::bytes(config, context_len, batch, threads);
        rotations.chain([attention]).try_fold(0usize, |sum, bytes| sum.checked_add(bytes?))
    }

    /// A view of `tokens` tokens from position `first` on.
    pub fn sequence<'a>(
        &'a mut self,
        first: usize,
        tokens: usize,
        caches: &'a mut [LayerCache],
    ) -> Sequence<'a> {
        Sequence { first, tokens, caches, first_layer: 0, place: self, traffic: Traffic::default() }
    }

    /// [`Place::sequence`] for one layer alone.
    pub fn sequence_of_layer<'a>(
        &'a mut self,
        first: usize,
        tokens: usize,
        layer_index: usize,
        cache: &'a mut LayerCache,
    ) -> Sequence<'a> {
        let caches = std::slice::from_mut(cache);
        Sequence { first_layer: layer_index, ..self.sequence(first, tokens, caches) }
    }
}

impl Sequence<'_> {
    /// Positions of its tokens.
    pub fn positions(&self) -> Range<usize> {
        self.first..self.first + self.tokens
    }

    /// A layer's cache, and the working memory of attention.
    pub fn of_layer(&mut self, layer_index: usize) -> (&mut LayerCache, &mut Place) {
        (&mut self.caches[layer_index - self.first_layer], self.place)
    }
}
