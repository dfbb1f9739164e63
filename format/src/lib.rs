//! The `.pith` file: the contract between the converter, which writes it, and the runtime, which
//! maps it.
//!
//! `docs/format.md` is the specification. This crate holds it in code: the [`Encoding`]s and their
//! tiles, the [`ModelConfig`], the [`Index`] that a reader builds from a file's bytes, and the
//! [`Writer`]. It never maps a file and never computes with a model. [`Replacement`] is how every
//! crate replaces a file atomically.
#![forbid(unsafe_code)]

mod config;
mod directory;
pub mod encoding;
mod error;
mod header;
mod index;
mod layer;
mod limits;
mod matrix;
mod progress;
mod provenance;
mod reads;
mod replace;
mod role;
mod rope;
mod sampling;
mod shape;
mod version;
mod writer;

pub use config::{Metadata, ModelConfig, NormKind};
pub use directory::Entry;
pub use encoding::{Encoding, Operation, TILE_ROWS, UnknownEncoding, encode_block};
pub use error::FormatError;
pub use header::{DATA_ALIGN_BYTES, HEADER_BYTES, PAGE_BYTES};
pub use index::{Index, Verified};
pub use layer::{
    ActivationFunction, Attention, Dense, Experts, FeedForward, GatedLinearRecurrence, Layer, Mixer,
    ScoreFunction, ShortConvolution,
};
pub use matrix::{Matrix, MatrixBytes};
pub use progress::{Progress, Unit};
pub use provenance::{PassRecord, Provenance, SourceRecord};
pub use reads::Reads;
pub use replace::{
    ReplaceError, ReplaceOptions, Replacement, folder_of, move_to, refuse_inputs, replace, sync_folder,
    temporary_name,
};
pub use role::{Kind, Role, Scope, TensorId};
pub use rope::RopeTable;
pub use sampling::Sampling;
pub use version::{MAGIC, VERSION};
pub use writer::{TensorPlan, Writer, planned_bytes};

/// The checksum of the format: xxh3, 64 bits, seed 0.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}
