//! Evaluation of a compressed model: its divergence from the original, and its answers to tasks.
//!
//! ```no_run
//! use pith_eval::{Windows, WindowOptions, kl::Reference};
//! use pith_runtime::{Model, Session, SessionOptions};
//! use std::{path::Path, sync::Arc};
//!
//! let open = |path: &str| {
//!     let model = Arc::new(Model::open(Path::new(path))?);
//!     Session::new(model, SessionOptions { context_len: Some(512), ..SessionOptions::default() })
//! };
//! let mut dense = open("dense.pith")?;
//! let text = std::fs::read_to_string("text.txt")?;
//! let windows = Windows::of_text(dense.model(), &text, &WindowOptions::default())?;
//! let reference = Reference::compute(&mut dense, windows, None, &())?;
//! drop(dense);
//! for candidate in ["q8.pith", "q4.pith"] {
//!     println!("{candidate}: {}", reference.compare(&mut open(candidate)?, &())?.kl.mean);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `docs/evaluating.md` explains each figure.
#![forbid(unsafe_code)]

mod about;
mod error;
pub mod kl;
mod logits;
mod perplexity;
mod scored;
mod softmax;
pub mod tasks;
mod windows;

pub use about::{About, Size};
pub use error::EvalError;
pub use logits::{Logits, first_token};
pub use perplexity::Perplexity;
pub use scored::Scored;
pub use windows::{DEFAULT_CONTEXT_LEN, WindowOptions, Windows, text_hash};
