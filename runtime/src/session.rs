//! A running sequence: the cache, the position, the logits.

use crate::buffers::Buffers;
use crate::cache::{KvType, LayerCache};
use crate::engine::Engine;
use crate::error::RuntimeError;
use crate::exec::Exec;
use crate::forward::Call;
use crate::head::Head;
use crate::memory::{product, zeros};
use crate::model::Model;
use crate::options::{Resolved, SessionOptions};
use crate::placement::{Pins, Placement};
use crate::sequence::Place;
use crate::timeline::{Pass, Recording};
use pith_meter::Traffic;
use std::sync::Arc;

/// One sequence of tokens over a model. Allocates everything at creation, except some lists that
/// the first long prompt creates.
pub struct Session {
    pub(crate) model: Arc<Model>,
    pub(crate) exec: Exec,
    /// Placement of the weights, if there is a memory limit.
    placement: Option<Placement>,
    pins: Option<Pins>,
    pub(crate) caches: Vec<LayerCache>,
    pub(crate) buffers: Buffers,
    pub(crate) place: Place,
    pub(crate) head: Head,
    pub(crate) logits: Vec<f32>,
    /// Number of tokens that the logits follow. They are current while the sequence has that
    /// length; 0 means none.
    pub(crate) logits_position: usize,
    /// Logits of several tokens, allocated at first use.
    pub(crate) all_logits: Vec<f32>,
    /// Tokens of the last [`Session::step_all`] as long as `all_logits` holds their logits.
    kept_logits: usize,
    /// Tokens in the cache, in order; capacity for the whole context.
    pub(crate) tokens: Vec<u32>,
    pub(crate) context_len: usize,
    batch: usize,
    pub(crate) kv_type: KvType,
    pub(crate) last_traffic: Traffic,
}

impl Session {
    /// Opens a session with its own engine; allocates cache and activations. The calling thread is
    /// unchanged, see [`Engine`].
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Self, RuntimeError> {
        // Checked before threads are started in vain.
        options.resolve(&model)?;
        let engine = Engine::new(options.engine())?;
        Self::open(&engine, model, options)
    }

    /// Opens a session on a shared engine; allocates cache and activations.
    ///
    /// Fails where the options set something that belongs to the engine: threads, CPUs, kernels.
    pub fn with_engine(
        engine: &Arc<Engine>,
        model: Arc<Model>,
        options: SessionOptions,
    ) -> Result<Self, RuntimeError> {
        options.without_engine()?;
        Self::open(engine, model, options)
    }

    fn open(engine: &Arc<Engine>, model: Arc<Model>, options: SessionOptions) -> Result<Self, RuntimeError> {
        let config = model.config();
        let threads = engine.threads();
        let Resolved { context_len, batch, .. } =
            options.fill(&model, threads, engine.kernel_table().packs())?;
        let caches = config
            .layers
            .iter()
            .map(|layer| LayerCache::new(layer, context_len, options.kv_type))
            .collect::<Result<_, _>>()?;
        let buffers = Buffers::new(config, batch)?;
        let place = Place::new(config, context_len, batch, threads)?;
        let logits = zeros("the logits", config.vocab_len)?;
        let mut head = Head::new(&model, options.two_stage_logits)?;
        let mut tokens = zeros("the tokens", context_len)?;
        tokens.clear();
        let (mut placement, mut pins, mut stream) = (None, None, None);
        if options.memory.is_some() || options.lock {
            let mut plan = Placement::with(&model, &options, Resolved { context_len, batch, threads })?;
            let (reader, kept) = plan.enact(&model, options.lock)?;
            head.release = plan.residual_outside;
            (placement, pins, stream) = (Some(plan), Some(kept), reader);
        }
        if stream.is_none() {
            model.ask_for_large_pages(!head.release);
        }
        let mut exec = Exec::new(Arc::clone(engine), batch);
        exec.stream = stream;
        Ok(Self {
            exec,
            placement,
            pins,
            caches,
            buffers,
            place,
            head,
            logits,
            logits_position: 0,
            all_logits: Vec::new(),
            kept_logits: 0,
            tokens,
            context_len,
            batch,
            kv_type: options.kv_type,
            last_traffic: Traffic::default(),
            model,
        })
    }

    /// Begins to note when each thread works, from the next pass on. Costs little and changes no
    /// result.
    pub fn record(&mut self) {
        self.exec.recording = Some(Box::new(Recording::new(self.model.bytes(), self.threads())));
    }

    /// Ends what [`Session::record`] began, and forgets what was noted.
    pub fn stop_recording(&mut self) {
        self.exec.recording = None;
    }

    /// The passes noted since [`Session::record`] or the last call; empty if nothing is noted.
    pub fn recorded(&mut self) -> Vec<Pass> {
        self.exec.recording.as_mut().map(|recording| recording.take()).unwrap_or_default()
    }

    /// Appends `tokens` and returns the logits after the last of them, one per token of the
    /// vocabulary.
    ///
    /// On an error nothing is appended.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32], RuntimeError> {
        self.check(tokens, self.position())?;
        let before = self.exec.traffic;
        let last_chunk = (tokens.len() - 1) / self.batch;
        self.contain(self.position(), |session| {
            for (index, chunk) in tokens.chunks(session.batch).enumerate() {
                let first = session.tokens.len();
                let sequence = &mut [session.place.sequence(first, chunk.len(), &mut session.caches)];
                let mut call = Call::new(&session.model, &mut session.exec, sequence);
                call.run(chunk, &mut session.buffers)?;
                if index == last_chunk {
                    let last = chunk.len() - 1..chunk.len();
                    call.project(&mut session.buffers, last, &mut session.head, true, &mut session.logits);
                }
                session.tokens.extend_from_slice(chunk);
            }
            Ok(())
        })?;
        self.logits_position = self.tokens.len();
        self.last_traffic = self.exec.traffic - before;
        Ok(&self.logits)
    }

    /// Appends one token and returns the logits after it. Allocates nothing.
    pub fn step(&mut self, token: u32) -> Result<&[f32], RuntimeError> {
        self.prefill(&[token])
    }

    /// Makes `tokens` the whole sequence, keeping the common prefix with the present one. Returns
    /// how many tokens were kept; [`Session::logits`] has the logits after the last token.
    ///
    /// The last token is computed again for its logits, unless they are at hand: a restored session
    /// has those of its file, to the bit.
    ///
    /// If `tokens` are invalid the session is unchanged; if computing fails it holds the common
    /// prefix.
    pub fn resume(&mut self, tokens: &[u32]) -> Result<usize, RuntimeError> {
        self.check(tokens, 0)?;
        let common = self.tokens.iter().zip(tokens).take_while(|(old, new)| old == new).count();
        if common == tokens.len() && common == self.tokens.len() && self.has_logits() {
            self.last_traffic = Traffic::default();
            return Ok(common);
        }
        let kept = common.min(tokens.len() - 1);
        self.truncate(kept);
        self.prefill(&tokens[kept..])?;
        Ok(kept)
    }

    /// Appends `tokens` and calls `each` with the position of every one of them and the logits
    /// after it.
    ///
    /// The first call allocates memory for some tokens' logits.
    pub fn logits_of(
        &mut self,
        tokens: &[u32],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.check(tokens, self.position())?;
        let before = self.exec.traffic;
        let vocab_len = self.model.config().vocab_len;
        // No more at once than other results of a call take.
        let largest = Buffers::largest_product(self.model.config(), self.batch).unwrap_or(0);
        let group = (largest / vocab_len).clamp(1, self.batch);
        self.reserve_logits(group)?;
        let position = self.position();
        for chunk in tokens.chunks(self.batch) {
            let first = self.position();
            self.contain(position, |session| {
                let sequence = &mut [session.place.sequence(first, chunk.len(), &mut session.caches)];
                Call::new(&session.model, &mut session.exec, sequence).run(chunk, &mut session.buffers)
            })?;
            for start in (0..chunk.len()).step_by(group) {
                let count = group.min(chunk.len() - start);
                self.contain(position, |session| {
                    let logits = &mut session.all_logits[..count * vocab_len];
                    Call::new(&session.model, &mut session.exec, &mut []).project(
                        &mut session.buffers,
                        start..start + count,
                        &mut session.head,
                        false,
                        logits,
                    );
                    Ok(())
                })?;
                let logits = &self.all_logits[..count * vocab_len];
                for (index, logits) in logits.chunks_exact(vocab_len).enumerate() {
                    each(first + start + index, logits);
                }
            }
            self.tokens.extend_from_slice(chunk);
        }
        self.last_traffic = self.exec.traffic - before;
        Ok(())
    }

    /// Appends `tokens` in one pass over the weights per [`Session::batch`] of them, and keeps the
    /// logits after each for [`Session::logits_at`].
    ///
    /// The logits equal those of single [`Session::step`] calls, to the bit for fewer tokens than
    /// [`pith_kernels::FEW_TOKENS`]. They are always exact, even where those of a step are
    /// [not](SessionOptions::two_stage_logits).
    ///
    /// Allocates when it gets more tokens than ever before.
    pub fn step_all(&mut self, tokens: &[u32]) -> Result<(), RuntimeError> {
        self.check(tokens, self.position())?;
        let before = self.exec.traffic;
        let vocab_len = self.model.config().vocab_len;
        self.reserve_logits(tokens.len())?;
        self.contain(self.position(), |session| {
            let mut rows = &mut session.all_logits[..tokens.len() * vocab_len];
            for chunk in tokens.chunks(session.batch) {
                let first = session.tokens.len();
                let sequence = &mut [session.place.sequence(first, chunk.len(), &mut session.caches)];
                let mut call = Call::new(&session.model, &mut session.exec, sequence);
                call.run(chunk, &mut session.buffers)?;
                let (logits, rest) = std::mem::take(&mut rows).split_at_mut(chunk.len() * vocab_len);
                call.project(&mut session.buffers, 0..chunk.len(), &mut session.head, false, logits);
                rows = rest;
                session.tokens.extend_from_slice(chunk);
            }
            Ok(())
        })?;
        self.kept_logits = tokens.len();
        self.last_traffic = self.exec.traffic - before;
        Ok(())
    }

    /// The logits after the token `index` of the last [`Session::step_all`]. Panics if it had fewer
    /// tokens, or if [`Session::logits_of`] or [`Engine::step`](crate::Engine::step) was called
    /// since.
    pub fn logits_at(&self, index: usize) -> &[f32] {
        assert!(index < self.kept_logits, "logits of token {index}, there are {}", self.kept_logits);
        let vocab_len = self.model.config().vocab_len;
        &self.all_logits[index * vocab_len..][..vocab_len]
    }

    /// The logits of the last [`Session::prefill`], [`Session::step`] or
    /// [`Engine::step`](crate::Engine::step); zeros before the first one. A reset leaves them.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Whether [`Session::logits`] are those after the last token in the cache.
    pub fn has_logits(&self) -> bool {
        !self.tokens.is_empty() && self.logits_position == self.tokens.len()
    }

    /// Tokens in the cache.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of tokens in the cache: the position of the next one.
    pub fn position(&self) -> usize {
        self.tokens.len()
    }

    /// Removes all tokens from `position` on; no effect if there are none.
    pub fn truncate(&mut self, position: usize) {
        self.tokens.truncate(position);
        if position < self.logits_position {
            self.logits_position = 0;
        }
    }

    /// Removes all tokens.
    pub fn reset(&mut self) {
        self.truncate(0);
    }

    /// Length of the context in tokens.
    pub fn context_len(&self) -> usize {
        self.context_len
    }

    /// Most tokens that go through the layers together.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Storage type of cached keys and values.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Bytes of the whole cache; untouched pages take no memory yet.
    pub fn kv_bytes(&self) -> u64 {
        self.caches.iter().map(LayerCache::bytes).sum()
    }

    /// Placement of the weights, where [`SessionOptions::memory`] sets a limit.
    pub fn placement(&self) -> Option<&Placement> {
        self.placement.as_ref()
    }

    /// Whether single tokens get two-stage logits: requested, and the head has a residual matrix
    /// and is large enough.
    pub fn has_two_stage_logits(&self) -> bool {
        self.head.is_staged()
    }

    /// Bytes of weights locked in memory.
    pub fn locked_bytes(&self) -> u64 {
        self.pins.as_ref().map_or(0, Pins::locked_bytes)
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The session's engine.
    pub fn engine(&self) -> &Arc<Engine> {
        self.exec.engine()
    }

    /// Name of the kernels.
    pub fn kernels(&self) -> &'static str {
        self.exec.kernels().name()
    }

    /// Number of threads, including the calling one.
    pub fn threads(&self) -> usize {
        self.exec.threads()
    }

    /// Traffic of the last successful call.
    pub fn last_traffic(&self) -> Traffic {
        self.last_traffic
    }

    /// Traffic since the session began.
    pub fn traffic(&self) -> Traffic {
        self.exec.traffic
    }

    /// Allocates the logits of this many tokens.
    pub(crate) fn reserve_logits(&mut self, tokens: usize) -> Result<(), RuntimeError> {
        let vocab_len = self.model.config().vocab_len;
        self.kept_logits = 0;
        self.head.reserve(&self.model, tokens)?;
        if self.all_logits.len() < tokens * vocab_len {
            let room = product(&[tokens, vocab_len]).unwrap_or(usize::MAX);
            self.all_logits = zeros("the logits of several tokens", room)?;
        }
        Ok(())
    }

    /// Checks that `tokens` can follow the first `position` tokens.
    pub(crate) fn check(&self, tokens: &[u32], position: usize) -> Result<(), RuntimeError> {
        let vocab_len = self.model.config().vocab_len;
        if tokens.is_empty() {
            return Err(RuntimeError::EmptyPrompt);
        }
        if let Some(index) = tokens.iter().position(|&token| token as usize >= vocab_len) {
            return Err(RuntimeError::Token { index, token: tokens[index], vocab_len });
        }
        if tokens.len() > self.context_len - position {
            let context_len = self.context_len;
            return Err(RuntimeError::ContextFull { position, new: tokens.len(), context_len });
        }
        Ok(())
    }
}
