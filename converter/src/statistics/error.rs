//! Errors of collecting and reading activation statistics.

use std::io;
use std::path::PathBuf;

use pith_format::{ReplaceError, TensorId};
use pith_runtime::RuntimeError;
use pith_tokenizer::TokenizerError;

use crate::checkpoint::CheckpointError;

/// Why statistics cannot be collected, or not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum StatisticsError {
    /// Two models that are not a dense one and its compression.
    #[error(
        "{name} was made from another checkpoint or pruned: its source is {found}, the dense model's {expected}"
    )]
    NoPair {
        /// The compressed model.
        name: String,
        /// The dense model's source.
        expected: String,
        /// The compressed model's source.
        found: String,
    },
    /// The model cannot be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A file cannot be read, or is no sound safetensors file.
    #[error(transparent)]
    Source(#[from] CheckpointError),
    /// The text cannot be turned into tokens.
    #[error("{}: {source}", path.display())]
    Tokenizer { path: PathBuf, source: TokenizerError },
    /// A line of a text in JSON lines.
    #[error("{}, line {line}: {reason}; every line is an object with the field \"text\"", path.display())]
    TextLine { path: PathBuf, line: usize, reason: String },
    /// Too few tokens for one sequence.
    #[error("{place} gives {found} tokens, a calibration needs {least} at least; give more text")]
    TooShort { place: String, found: usize, least: usize },
    /// An option with a value out of range.
    #[error("{option} is {found}, expected {expected}")]
    Option { option: &'static str, found: usize, expected: String },
    /// Weights that are already quantized.
    #[error(
        "{tensor} is in {encoding}: statistics of a model that is quantized already would carry its errors into the next \
        one; calibrate the f16 or f32 file, or allow any encoding (--any-encoding)"
    )]
    Quantized { tensor: TensorId, encoding: &'static str },
    /// The memory limit is too low even with the hidden states on disk.
    #[error("calibration needs {need_bytes} bytes of memory, {limit_bytes} are allowed: {advice}")]
    Memory { need_bytes: u64, limit_bytes: u64, advice: String },
    /// An activation that is not finite.
    #[error(
        "{place}: an activation of column {column} is not finite, in sequence {sequence} of the text; the model's weights \
        may be damaged, or its activations beyond the range of floats"
    )]
    NotFinite { place: String, column: usize, sequence: usize },
    /// The system refuses an operation on a file.
    #[error("{}: {action}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    /// The output exists, is an input, or is no file.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The user asked to stop.
    #[error("stopped; nothing was written")]
    Interrupted,
    /// The system refuses the threads.
    #[error("cannot start {threads} threads: {reason}; ask for fewer")]
    Threads { threads: usize, reason: String },
    /// A safetensors file that holds no activation statistics, or of another version of the layout.
    #[error("{}: {field} is {found:?}, expected {expected}; calibrate anew", path.display())]
    Field { path: PathBuf, field: &'static str, found: String, expected: String },
    /// A tensor that is missing, unexpected, or of inconsistent shape.
    #[error("{}: tensor {tensor} {problem}; calibrate anew", path.display())]
    Tensor { path: PathBuf, tensor: String, problem: String },
    /// A tensor's bytes do not match its checksum.
    #[error(
        "{}: checksum of {tensor} is {found:016x}, expected {expected:016x}; the file is damaged, calibrate anew",
        path.display()
    )]
    Damaged { path: PathBuf, tensor: String, expected: u64, found: u64 },
    /// Statistics of another model.
    #[error(
        "{} was made of the checkpoint {found} ({name}), this one is {expected}; {}", path.display(), advice(found, expected)
    )]
    OtherModel { path: PathBuf, name: String, found: String, expected: String },
    /// Statistics that the file does not hold.
    #[error("{} holds no statistics of {place}", path.display())]
    NoSite { path: PathBuf, place: String },
}

/// Advice for statistics of `found` where those of `expected` are needed.
fn advice(found: &str, expected: &str) -> String {
    match expected.strip_prefix(found).and_then(|rest| rest.strip_prefix(':')) {
        Some(transform) => {
            format!(
                "write a file with --encoding f16 --transform {transform}, calibrate that, or calibrate as you convert"
            )
        }
        None => "calibrate this one".into(),
    }
}
