//! The runtime over small random models.

mod batch;
mod context;
mod errors;
mod generation;
mod head;
mod layerwise;
mod logits;
mod oracle;
mod snapshot;
mod speculation;
mod storage;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
