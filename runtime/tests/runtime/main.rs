//! The runtime over small random models.

mod errors;
mod generation;
mod logits;
mod oracle;
mod snapshot;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
