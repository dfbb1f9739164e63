//! Options of a session.

use crate::cache::KvType;
use crate::engine::{EngineOptions, kernels};
use crate::error::{RuntimeError, at_least_one};
use crate::model::Model;
use pith_format::TILE_ROWS;

/// Default context in tokens, if the model supports as many.
pub const DEFAULT_CONTEXT_LEN: usize = 4096;

/// Default number of prompt tokens that go through the layers together. Twice as many with kernels
/// that [pack](pith_kernels::Kernels::packs) activations: activations take less memory
/// where all their readers take them packed.
pub const DEFAULT_BATCH: usize = 128;

/// Number of most likely tokens that get exact logits in [two
/// stages](crate::SessionOptions::two_stage_logits).
pub const EXACT_TOKENS: usize = 40;

/// Options of a session.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Context length in tokens. Default: [`DEFAULT_CONTEXT_LEN`] or the model's, whichever is
    /// less.
    ///
    /// Models with a second set of rotary frequencies for long contexts choose the set by this
    /// number, for the whole session.
    pub context_len: Option<usize>,
    /// Allows a context longer than the model was made for. Not possible for models with a table of
    /// positions.
    pub beyond_model: bool,
    /// Storage type of cached keys and values.
    pub kv_type: KvType,
    /// Threads of the session's own engine: see [`EngineOptions::threads`]. Not for
    /// [`Session::with_engine`](crate::Session::with_engine), like the next three.
    pub threads: Option<usize>,
    /// See [`EngineOptions::pin_threads`].
    pub pin_threads: bool,
    /// See [`EngineOptions::cpus`].
    pub cpus: Option<Vec<usize>>,
    /// See [`EngineOptions::kernels`].
    pub kernels: Option<String>,
    /// Prompt tokens that go through the layers together. Default: [`DEFAULT_BATCH`].
    pub batch: Option<usize>,
    /// Memory limit of the process, in bytes. Weights that do not fit beside everything else are
    /// streamed from the file for every token, by a thread that reads ahead; see
    /// [`Placement`](crate::Placement). Default: no limit, the system decides what stays in memory.
    /// Use it for one session of a model at a time: others would evict its pages.
    pub memory: Option<u64>,
    /// Locks the kept weights in memory; an error where the system does not permit it.
    pub lock: bool,
    /// Two-stage logits, an approximation for heads stored with a residual matrix. The first stage
    /// multiplies the first matrix only. The second adds the residual for tokens that may be among
    /// the [`EXACT_TOKENS`](crate::EXACT_TOKENS) most likely, within four standard errors of the
    /// first stage; their logits are exact. This skips almost half of the head's bytes. For
    /// samplers that use no more than that many tokens; never for evaluation. Calls that return the
    /// logits of several tokens always return exact ones. No effect on a head stored as one matrix.
    pub two_stage_logits: bool,
}

/// Options with all defaults filled in.
pub(crate) struct Resolved {
    pub context_len: usize,
    pub batch: usize,
    pub threads: usize,
}

impl SessionOptions {
    /// Fills in the defaults.
    pub(crate) fn resolve(&self, model: &Model) -> Result<Resolved, RuntimeError> {
        let threads = self.engine().thread_count()?;
        let packs = kernels(self.kernels.as_deref())?.packs();
        self.fill(model, threads, packs)
    }

    /// Options of the engine of a single session.
    pub fn engine(&self) -> EngineOptions {
        EngineOptions {
            threads: self.threads,
            pin_threads: self.pin_threads,
            cpus: self.cpus.clone(),
            kernels: self.kernels.clone(),
        }
    }

    /// Fails if an engine option is set although the engine is given.
    pub(crate) fn without_engine(&self) -> Result<(), RuntimeError> {
        let found = |option, found: Option<String>| match found {
            None => Ok(()),
            Some(found) => {
                let expected = "left open: the engine has it already".into();
                Err(RuntimeError::Option { option, found, expected })
            }
        };
        found("threads", self.threads.map(|count| count.to_string()))?;
        found("pin_threads", self.pin_threads.then(|| "true".into()))?;
        found("cpus", self.cpus.as_ref().map(|cpus| format!("{cpus:?}")))?;
        found("kernels", self.kernels.as_ref().map(|name| format!("\"{name}\"")))
    }

    /// Fills in the defaults, given the engine's threads and kernels.
    pub(crate) fn fill(&self, model: &Model, threads: usize, packs: bool) -> Result<Resolved, RuntimeError> {
        let context_len = context_len(model, self)?;
        let default = if packs { 2 * DEFAULT_BATCH } else { DEFAULT_BATCH };
        let batch = at_least_one("batch", self.batch.unwrap_or(default), usize::MAX)?.min(context_len);
        Ok(Resolved { context_len, batch, threads })
    }
}

fn context_len(model: &Model, options: &SessionOptions) -> Result<usize, RuntimeError> {
    let model_context_len = model.config().context_len;
    let default = model_context_len.min(DEFAULT_CONTEXT_LEN);
    let context_len = at_least_one("context", options.context_len.unwrap_or(default), usize::MAX)?;
    let may_exceed = options.beyond_model && model.positions.is_none();
    if context_len > model_context_len && !may_exceed {
        return Err(RuntimeError::ContextTooLong { context_len, model_context_len });
    }
    Ok(context_len)
}

/// Whether the head has a residual matrix, and enough rows that two stages read only a small part
/// of it.
pub(crate) fn has_stages(model: &Model) -> bool {
    model.head_residual.as_ref().is_some_and(|residual| residual.rows.div_ceil(TILE_ROWS) > 4 * EXACT_TOKENS)
}
