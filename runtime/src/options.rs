//! What a session is asked to be.

use crate::cache::KvType;
use crate::engine::{EngineOptions, kernels};
use crate::error::{RuntimeError, at_least_one};
use crate::model::Model;
use pith_format::TILE_ROWS;

/// Context of a session that asks for none, in tokens, where the model was made for as much.
pub const DEFAULT_CONTEXT_LEN: usize = 4096;

/// Prompt tokens that go through the layers together, unless asked otherwise; twice as many with kernels that
/// [pack](pith_kernels::Kernels::packs) activations, which take less memory where matrices are read by them.
pub const DEFAULT_BATCH: usize = 128;

/// So many of the most likely tokens get exact logits in [two stages](crate::SessionOptions::two_stage_logits).
pub const EXACT_TOKENS: usize = 40;

/// What a session is to be like.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Tokens that the session has room for; [`DEFAULT_CONTEXT_LEN`] or the model's, whichever is less.
    ///
    /// Models with a second set of rotary frequencies for long contexts switch to it by this number, for the whole
    /// session.
    pub context_len: Option<usize>,
    /// Allows a context longer than the model was made for. Models with a table of positions have none to give.
    pub beyond_model: bool,
    /// How keys and values are cached.
    pub kv_type: KvType,
    /// For an engine of the session's own: see [`EngineOptions::threads`]. Not for [`Session::with_engine`](crate::Session::with_engine), like the next
    /// three.
    pub threads: Option<usize>,
    /// See [`EngineOptions::pin_threads`].
    pub pin_threads: bool,
    /// See [`EngineOptions::cpus`].
    pub cpus: Option<Vec<usize>>,
    /// See [`EngineOptions::kernels`].
    pub kernels: Option<String>,
    /// Prompt tokens that go through the layers together; [`DEFAULT_BATCH`].
    pub batch: Option<usize>,
    /// Memory that the process may take, in bytes. Weights that do not fit in it with everything else are read from
    /// the file for every token, by a thread that reads ahead; see [`Placement`](crate::Placement). No limit: the system decides what
    /// stays in memory. For one session of a model at a time: others would take its pages away.
    pub memory: Option<u64>,
    /// Locks the weights that are to stay in memory there; an error where the system does not permit it.
    pub lock: bool,
    /// Where the head is stored in two parts, logits come of the first alone, but for those tokens that may be among the
    /// [`EXACT_TOKENS`](crate::EXACT_TOKENS) most likely, within four standard errors of the first part: theirs are exact.
    /// Almost half of the head's bytes are not read then. For samplers that look at so many tokens at most, never
    /// for evaluation; calls that give the logits of several tokens give exact ones. Without effect where the head is stored as one.
    pub two_stage_logits: bool,
}

/// Options with a value for each.
pub(crate) struct Resolved {
    pub context_len: usize,
    pub batch: usize,
    pub threads: usize,
}

impl SessionOptions {
    /// Fills in what was left open.
    pub(crate) fn resolve(&self, model: &Model) -> Result<Resolved, RuntimeError> {
        let threads = self.engine().thread_count()?;
        let packs = kernels(self.kernels.as_deref())?.packs();
        self.fill(model, threads, packs)
    }

    /// What an engine for one session needs.
    pub(crate) fn engine(&self) -> EngineOptions {
        EngineOptions {
            threads: self.threads,
            pin_threads: self.pin_threads,
            cpus: self.cpus.clone(),
            kernels: self.kernels.clone(),
        }
    }

    /// Nothing of an engine may be asked for where there is one.
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

    /// Fills in what was left open beside the engine.
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

/// Whether a model's head has two parts, and so many rows that few of the second need to be read.
pub(crate) fn has_stages(model: &Model) -> bool {
    model.head_residual.as_ref().is_some_and(|rest| rest.rows.div_ceil(TILE_ROWS) > 4 * EXACT_TOKENS)
}
