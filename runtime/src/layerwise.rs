//! The forward pass one layer at a time: many sequences go through a layer before the next one is touched, so that
//! memory holds one layer's weights and cache whatever the model, and somebody hears what each matrix reads.

use crate::buffers::{Buffers, Widths};
use crate::cache::LayerCache;
use crate::contain::pass;
use crate::engine::Engine;
use crate::error::RuntimeError;
use crate::exec::Exec;
use crate::forward::Call;
use crate::head::Head;
use crate::listener::Listener;
use crate::model::Model;
use crate::options::{Resolved, SessionOptions};
use crate::sequence::Place;
use pith_kernels::Activations;
use std::sync::Arc;

/// Runs sequences through one layer after the other. The hidden states (residual streams) are the caller's, so that they can be kept anywhere.
///
/// They get the bits that a [`Session`](crate::Session) with the same options gives them. Each call takes one whole
/// sequence from position 0; its tokens go in chunks of the options' batch.
pub struct LayerRun {
    model: Arc<Model>,
    exec: Exec,
    /// Of the layer that was run last.
    cache: Option<(usize, LayerCache)>,
    buffers: Buffers,
    place: Place,
    head: Head,
    options: SessionOptions,
    context_len: usize,
    batch: usize,
    /// Whether a layer's weights are given back to the system when another is run.
    releases: bool,
}

impl LayerRun {
    /// For sequences of up to the options' context. Their limit of memory, locks and two-stage logits have no effect.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Self, RuntimeError> {
        let Resolved { context_len, batch, threads } = options.resolve(&model)?;
        let buffers = Buffers::new(model.config(), batch)?;
        let place = Place::new(model.config(), context_len, batch, threads)?;
        let mut head = Head::new(&model, false)?;
        head.reserve(&model, batch)?;
        let exec = Exec::new(Engine::new(options.engine())?, batch);
        Ok(Self {
            model,
            exec,
            cache: None,
            buffers,
            place,
            head,
            options,
            context_len,
            batch,
            releases: true,
        })
    }

    /// This run, leaving to the system which weights stay in memory: for a model that is run again and again.
    pub fn keep_weights(self) -> Self {
        Self { releases: false, ..self }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.exec.threads()
    }

    /// Longest sequence, in tokens.
    pub fn context_len(&self) -> usize {
        self.context_len
    }

    /// Bytes that a run takes at most: the largest layer's weights and cache, and an upper bound of what is computed in.
    /// Hidden states and what listeners keep come on top.
    pub fn bytes(&self) -> u64 {
        let config = self.model.config();
        let layers = config.layers.iter().enumerate().map(|(index, layer)| {
            let ranges = self.model.layer_ranges(index);
            let weights: u64 = ranges.iter().map(|range| range.len() as u64).sum();
            weights + self.options.kv_type.position_bytes(layer) * self.context_len as u64
        });
        let widest = Widths::of(config).widest(config.hidden_len);
        let operands = Activations::bytes(self.batch, widest).map_or(u64::MAX, |bytes| bytes as u64);
        let results = 6 * (self.batch * widest * size_of::<f32>()) as u64;
        layers.max().unwrap_or(0).saturating_add(operands).saturating_add(results)
    }

    /// The embeddings of one sequence: `hidden` becomes `tokens × hidden_len`.
    ///
    /// Fails on an empty sequence, a token that the model lacks, and more tokens than the context.
    pub fn embed(&mut self, tokens: &[u32], hidden: &mut [f32]) -> Result<(), RuntimeError> {
        let config = self.model.config();
        let (vocab_len, hidden_len) = (config.vocab_len, config.hidden_len);
        if let Some(index) = tokens.iter().position(|&token| token as usize >= vocab_len) {
            return Err(RuntimeError::Token { index, token: tokens[index], vocab_len });
        }
        assert_eq!(hidden.len(), tokens.len() * hidden_len, "hidden states of every token");
        self.check(hidden.len())?;
        self.model.check_length()?;
        let chunks = tokens.chunks(self.batch).zip(hidden.chunks_mut(self.batch * hidden_len));
        self.pass(|run| {
            for (index, (tokens, hidden)) in chunks.enumerate() {
                let first = index * run.batch;
                let sequence = &mut [run.place.sequence(first, tokens.len(), &mut [])];
                Call::new(&run.model, &mut run.exec, sequence).embed(tokens, &mut run.buffers);
                hidden.copy_from_slice(run.buffers.hidden(hidden.len()));
            }
            Ok(())
        })
    }

    /// Runs one sequence's hidden states, `tokens × hidden_len`, through a layer.
    ///
    /// Where another layer was run before, its weights are given back to the system, which reads them again from the file
    /// if they are wanted, unless they are [kept](Self::keep_weights). Panics if there is no such layer.
    pub fn layer(
        &mut self,
        layer_index: usize,
        hidden: &mut [f32],
        listener: &mut dyn Listener,
    ) -> Result<(), RuntimeError> {
        self.run(layer_index, hidden, Some(listener))
    }

    /// [`LayerRun::layer`] that nobody hears, which is faster: activations need not be whole.
    pub fn layer_unheard(&mut self, layer_index: usize, hidden: &mut [f32]) -> Result<(), RuntimeError> {
        self.run(layer_index, hidden, None)
    }

    fn run(
        &mut self,
        layer_index: usize,
        hidden: &mut [f32],
        mut listener: Option<&mut dyn Listener>,
    ) -> Result<(), RuntimeError> {
        self.check(hidden.len())?;
        self.model.check_length()?;
        let mut cache = self.enter(layer_index)?;
        let hidden_len = self.model.config().hidden_len;
        let ran = self.pass(|run| {
            for (index, hidden) in hidden.chunks_mut(run.batch * hidden_len).enumerate() {
                run.buffers.hidden(hidden.len()).copy_from_slice(hidden);
                let (first, tokens) = (index * run.batch, hidden.len() / hidden_len);
                let sequence = &mut [run.place.sequence_of_layer(first, tokens, layer_index, &mut cache)];
                let call = Call::new(&run.model, &mut run.exec, sequence);
                let mut call = match &mut listener {
                    Some(listener) => call.heard_by(&mut **listener),
                    None => call,
                };
                call.run_layer(layer_index, &mut run.buffers);
                hidden.copy_from_slice(run.buffers.hidden(hidden.len()));
            }
            Ok(())
        });
        self.cache = Some((layer_index, cache));
        ran
    }

    /// Tells `listener` what the head reads of a sequence that went through all layers. The head's matrix is not read.
    pub fn head_input(&mut self, hidden: &[f32], listener: &mut dyn Listener) -> Result<(), RuntimeError> {
        self.check(hidden.len())?;
        let hidden_len = self.model.config().hidden_len;
        self.pass(|run| {
            for (index, hidden) in hidden.chunks(run.batch * hidden_len).enumerate() {
                run.buffers.hidden(hidden.len()).copy_from_slice(hidden);
                let (first, tokens) = (index * run.batch, hidden.len() / hidden_len);
                let sequence = &mut [run.place.sequence(first, tokens, &mut [])];
                Call::new(&run.model, &mut run.exec, sequence)
                    .heard_by(&mut *listener)
                    .enter_head(&mut run.buffers);
            }
            Ok(())
        })
    }

    /// Logits of every token of a sequence that went through all layers, `tokens × vocab_len`.
    pub fn logits(&mut self, hidden: &[f32], logits: &mut [f32]) -> Result<(), RuntimeError> {
        self.check(hidden.len())?;
        let config = self.model.config();
        let (hidden_len, vocab_len) = (config.hidden_len, config.vocab_len);
        assert_eq!(logits.len() / vocab_len, hidden.len() / hidden_len, "logits of every token");
        self.model.check_length()?;
        let chunks = hidden.chunks(self.batch * hidden_len).zip(logits.chunks_mut(self.batch * vocab_len));
        self.pass(|run| {
            for (index, (hidden, logits)) in chunks.enumerate() {
                run.buffers.hidden(hidden.len()).copy_from_slice(hidden);
                let (first, tokens) = (index * run.batch, hidden.len() / hidden_len);
                let sequence = &mut [run.place.sequence(first, tokens, &mut [])];
                let mut call = Call::new(&run.model, &mut run.exec, sequence);
                call.project(&mut run.buffers, 0..tokens, &mut run.head, false, logits);
            }
            Ok(())
        })
    }

    fn pass(
        &mut self,
        compute: impl FnOnce(&mut Self) -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        pass(self, |run| &mut run.exec, compute)
    }

    /// The cache for a layer, whose weights are announced.
    fn enter(&mut self, layer_index: usize) -> Result<LayerCache, RuntimeError> {
        let layer = &self.model.config().layers[layer_index];
        match self.cache.take() {
            Some((index, cache)) if index == layer_index => return Ok(cache),
            Some((left, _)) if self.releases => {
                self.model
                    .layer_ranges(left)
                    .into_iter()
                    .for_each(|range| self.model.storage().release(range));
            }
            _ => {}
        }
        self.model.will_need(layer_index);
        LayerCache::new(layer, self.context_len, self.options.kv_type)
    }

    /// Whether so many values are the hidden states of a sequence.
    fn check(&self, values: usize) -> Result<(), RuntimeError> {
        let hidden_len = self.model.config().hidden_len;
        assert_eq!(values % hidden_len, 0, "hidden states of whole tokens");
        match values / hidden_len {
            0 => Err(RuntimeError::EmptyPrompt),
            new if new > self.context_len => {
                Err(RuntimeError::ContextFull { position: 0, new, context_len: self.context_len })
            }
            _ => Ok(()),
        }
    }
}
