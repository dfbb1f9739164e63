//! Errors of a conversion.

use std::path::PathBuf;

use pith_format::{Encoding, FormatError, ReplaceError, TensorId};

use crate::checkpoint::CheckpointError;
use crate::passes::PassError;
use crate::statistics::StatisticsError;

/// Why a checkpoint was not converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum ConvertError {
    /// The checkpoint cannot be read, or its model is unknown.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The file cannot be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A weight beyond the range of the encoding.
    #[error(
        "tensor {tensor:?}, to make {id}: row {row}, column {column} is {value}, beyond the ±{limit} of {encoding}; \
        convert with --encoding f32"
    )]
    Overflow {
        tensor: String,
        id: TensorId,
        row: usize,
        column: usize,
        value: f32,
        limit: f32,
        encoding: Encoding,
    },
    /// Weights so small that all would be stored as zeros.
    #[error(
        "tensor {tensor:?}, to make {id}: the largest weight, in row {row}, column {column}, is {value:e}, too small \
        for the f16 numbers of {encoding}; convert with --encoding f32"
    )]
    Underflow { tensor: String, id: TensorId, row: usize, column: usize, value: f32, encoding: Encoding },
    /// The statistics cannot be made or read, or are of another model.
    #[error(transparent)]
    Statistics(#[from] StatisticsError),
    /// A pass cannot follow the recipe.
    #[error(transparent)]
    Pass(PassError),
    /// Rounding would exceed the memory limit.
    #[error(
        "rounding takes {need_bytes} bytes at once, {limit_bytes} are to be had: allow so many, or do without gptq and \
        transforms"
    )]
    Memory { need_bytes: u64, limit_bytes: u64 },
    /// A pattern of the recipe that matches no matrix.
    #[error(
        "the recipe's pattern {pattern:?} matches no matrix; `pith inspect` shows their names, such as {example}"
    )]
    Unmatched { pattern: String, example: TensorId },
    /// A recipe that would round codes of the source again.
    #[error(
        "the source is already quantized ({types}), and {recipe} would round it again, {tensor:?} first: pith convert \
        without --encoding, --recipe and quantizers carries its codes as they are; --requantize rounds them again"
    )]
    Quantized { types: String, tensor: String, recipe: String },
    /// A recipe that is asked to round codes again but would only lengthen them.
    #[error(
        "the source is already quantized ({types}), and {recipe} has no fewer bits for any of its matrices: {tensor:?} \
        has {bits:.4} bits a weight, and more would be bytes without knowledge; without --encoding, \
        --recipe, quantizers and --requantize its codes are carried as they are"
    )]
    NothingToRequantize { types: String, tensor: String, bits: f64, recipe: String },
    /// The user asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// The output exists, is an input, or is no file.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The output of an export exists.
    #[error("{} exists and is no empty folder; give a new one", path.display())]
    OutputFolder { path: PathBuf },
    /// A file of an export cannot be written.
    #[error("cannot {action} {}: {source}", path.display())]
    Write { path: PathBuf, action: &'static str, source: std::io::Error },
    /// An original that is not a Hugging Face folder.
    #[error("{} is no folder with config.json: give the Hugging Face checkpoint", path.display())]
    NotAFolder { path: PathBuf },
    /// An original that is a different model.
    #[error("{}: {key} is {found}, in the file {expected}: it was not made from this checkpoint", path.display())]
    LikeDiffers { path: PathBuf, key: String, expected: String, found: String },
    /// A tensor that only the file or only the checkpoint has.
    #[error("{id} {}", match tensor {
        Some(tensor) => format!("is missing or has another shape, which tensor {tensor:?} should hold"),
        None => "has no tensor in a checkpoint of this family".into(),
    })]
    ExportTensor { id: TensorId, tensor: Option<String> },
    /// A weight beyond the range of the export's type.
    #[error("tensor {tensor:?}, of {id}: {value} is beyond {dtype}; export with --dtype f32")]
    ExportRange { tensor: String, id: TensorId, value: f32, dtype: &'static str },
}

impl From<PassError> for ConvertError {
    fn from(error: PassError) -> Self {
        match error {
            PassError::Interrupted => Self::Interrupted,
            error => Self::Pass(error),
        }
    }
}
