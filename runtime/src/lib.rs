//! Runs a `.pith` file: map → model → session → forward → sampler → ledger.
//!
//! ```no_run
//! use pith_runtime::{Model, Session, SessionOptions};
//! use std::{path::Path, sync::Arc};
//!
//! let model = Arc::new(Model::open(Path::new("model.pith"))?);
//! let mut session = Session::new(Arc::clone(&model), SessionOptions::default())?;
//! let prompt = model.tokenizer()?.encode("Once upon a time", true).expect("plain text");
//! let logits = session.prefill(&prompt)?;
//! # let _ = logits;
//! # Ok::<(), pith_runtime::RuntimeError>(())
//! ```
//!
//! [`Model::open`] checks the file once; later code can rely on it. A [`Session`] allocates its
//! cache and activations once; a step allocates nothing. Every byte of weights and cache that is
//! read or written is counted as [`Traffic`].
#![deny(unsafe_code)]

/// Lets the shared test models use the public interface inside unit tests.
#[cfg(test)]
extern crate self as pith_runtime;

mod attention;
mod batch;
mod buffers;
mod cache;
mod chat;
mod contain;
mod context;
mod date;
mod distribution;
mod engine;
mod error;
mod exec;
mod forward;
mod generate_options;
mod generation;
mod head;
mod large_pages;
mod layerwise;
mod ledger;
mod listener;
mod memory;
mod model;
mod model_file;
mod options;
mod placement;
#[allow(unsafe_code)]
mod pool;
mod random;
mod reply;
mod resolve;
mod rope;
mod sampler;
mod sequence;
mod session;
mod snapshot;
mod speculate;
mod stop;
mod storage;
mod stream;
mod timeline;
mod weights;

pub use cache::KvType;
pub use chat::{ChatTemplate, Message};
pub use context::FullContext;
pub use distribution::Distribution;
pub use engine::{Engine, EngineOptions};
pub use error::RuntimeError;
pub use generate_options::{GenerateOptions, Outcome, Speculation, StopReason};
pub use generation::{Generation, Token};
pub use layerwise::LayerRun;
pub use ledger::{Ledger, Phase, TokenCost, Totals};
pub use listener::{Inputs, Listener, Site};
pub use model::Model;
pub use model_file::ModelFile;
pub use options::{DEFAULT_BATCH, DEFAULT_CONTEXT_LEN, EXACT_TOKENS, SessionOptions};
/// Inputs and outputs of a [`Ledger`].
pub use pith_meter::{Conditions, Joules, Kind, Meter, MeterError, Observer, Reading, Scope, Traffic};
pub use placement::{DiskRate, Part, Placement};
pub use pool::MAX_THREADS;
pub use sampler::{Sampler, SamplerOptions};
pub use session::Session;
pub use speculate::{DEFAULT_DRAFT_TOKENS, Draft, DraftModel, Drafter, Lookup, NoDrafter};
pub use storage::{ModelBytes, Pages, Reason};
pub use timeline::{Job, Pass};
