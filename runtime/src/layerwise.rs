//! The forward pass one layer at a time. Many sequences go through a layer before the next one is
//! touched. Memory then holds the weights and cache of one layer only, for any model, and a
//! listener can receive every matrix's input.

use crate::buffers::Buffers;
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
use std::sync::Arc;

/// Runs sequences through one layer after the other. The caller owns the hidden states (residual
/// streams), and may keep them anywhere.
///
/// Results equal, to the bit, those of a [`Session`](crate::Session) with the same options. Each
/// call takes one whole sequence from position 0; its tokens go in chunks of the options' batch.
pub struct LayerRun {
    model: Arc<Model>,
    exec: Exec,
    /// Index and cache of the last layer run.
    cache: Option<(usize, LayerCache)>,
    buffers: Buffers,
    place: Place,
    head: Head,
    options: SessionOptions,
    context_len: usize,
    batch: usize,
    /// Whether a layer's weights are released to the system when another layer runs.
    releases: bool,
}

impl LayerRun {
    /// A run for sequences up to the options' context. Memory limit, locks and two-stage logits
    /// have no effect.
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

    /// Leaves it to the system which weights stay in memory: for a model that is run repeatedly.
    pub fn keep_weights(self) -> Self {
        Self { releases: false, ..self }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Number of threads, including the calling one.
    pub fn threads(&self) -> usize {
        self.exec.threads()
    }

    /// Longest sequence, in tokens.
    pub fn context_len(&self) -> usize {
        self.context_len
    }

    /// Most bytes of a run: the largest layer's weights and cache, plus an upper bound of the
    /// buffers. Hidden states and the listener's data are not included.
    pub fn bytes(&self) -> u64 {
        let config = self.model.config();
        let layers = config.layers.iter().enumerate().map(|(index, layer)| {
            let ranges = self.model.layer_ranges(index);
            let weights: u64 = ranges.iter().map(|range| range.len() as u64).sum();
            weights + self.options.kv_type.position_bytes(layer) * self.context_len as u64
        });
        let buffers = Buffers::bytes(config, self.batch);
        let place = Place::bytes(config, self.context_len, self.batch, self.threads());
        let bytes = buffers.zip(place).and_then(|(buffers, place)| buffers.checked_add(place));
        layers.max().unwrap_or(0).saturating_add(bytes.map_or(u64::MAX, |bytes| bytes as u64))
    }

    /// Embeds one sequence: `hidden` becomes `tokens × hidden_len`.
    ///
    /// Fails on an empty sequence, a token outside the vocabulary, and more tokens than the
    /// context.
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
    /// When the layer changes, the previous one's weights are released to the system, unless they
    /// are [kept](Self::keep_weights); they are read from the file again when needed. Panics if
    /// there is no such layer.
    pub fn layer(
        &mut self,
        layer_index: usize,
        hidden: &mut [f32],
        listener: &mut dyn Listener,
    ) -> Result<(), RuntimeError> {
        self.run(layer_index, hidden, Some(listener))
    }

    /// [`LayerRun::layer`] without a listener. Faster, since activations need not be whole.
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

    /// Reports the head's input for a sequence that went through all layers. The head's matrix is
    /// not read.
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

    /// The cache for a layer; also prefetches its weights.
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

    /// Checks that this number of values is the hidden states of a sequence.
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
