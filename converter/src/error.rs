//! Everything that can stop a conversion.

use std::path::PathBuf;

use pith_format::{Encoding, FormatError, TensorId};
use pith_tokenizer::TokenizerError;

use crate::calibration::CalibrationError;
use crate::quantize::gptq::FeedbackError;
use crate::source::SourceError;

/// Why a checkpoint was not converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum ConvertError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file cannot be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The checkpoint's tokenizer cannot be read.
    #[error("tokenizer of {}: {source}", path.display())]
    Tokenizer { path: PathBuf, source: TokenizerError },
    /// Nothing to make a tokenizer from.
    #[error("{} has no tokenizer: give a folder with tokenizer.json, tokenizer.model or vocab.json and merges.txt, one \
        of the first two, or a GGUF file", path.display())]
    NoTokenizer { path: PathBuf },
    /// A family without a table.
    #[error("{}: the family is {found}; known are {known}", path.display())]
    UnknownFamily { path: PathBuf, found: String, known: String },
    /// A value of the configuration that no model of the family has, or that the runtime has no mechanism for.
    #[error("{place}: {key} is {found}, expected {expected}")]
    Config { place: String, key: String, found: String, expected: String },
    /// A tensor that the configuration asks for.
    #[error("{} has no tensor {tensor:?}, which would be {id}", path.display())]
    MissingTensor { path: PathBuf, tensor: String, id: TensorId },
    /// A tensor of another shape than the configuration asks for.
    #[error(
        "{}: tensor {tensor:?} has shape {found:?}, the configuration asks for {expected:?} to make {id}",
        path.display()
    )]
    SourceShape { path: PathBuf, tensor: String, id: TensorId, expected: Vec<usize>, found: Vec<usize> },
    /// A tensor that the family's table knows nothing of: leaving it out would give another model.
    #[error("{}: tensor {tensor:?} has no part in a model of the family {family}", path.display())]
    UnknownTensor { path: PathBuf, tensor: String, family: &'static str },
    /// A weight that no file may hold.
    #[error(
        "tensor {tensor:?}, to make {id}: row {row}, column {column} is {value}, expected a finite number"
    )]
    NotFinite { tensor: String, id: TensorId, row: usize, column: usize, value: f32 },
    /// A weight beyond the range of the encoding.
    #[error(
        "tensor {tensor:?}, to make {id}: row {row}, column {column} is {value}, beyond the ±65504 of {encoding}; \
        convert with --encoding f32"
    )]
    Overflow { tensor: String, id: TensorId, row: usize, column: usize, value: f32, encoding: Encoding },
    /// The calibration cannot be read or is of another model.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A calibration of other widths than the checkpoint's.
    #[error("{id} has {expected} columns, the calibration's {found}")]
    CalibrationCols { id: TensorId, expected: usize, found: usize },
    /// GPTQ, or AWQ's scales, without what they rest on.
    #[error(
        "{id} cannot be rounded so: gptq and awq need a calibration with Hessians: make one with `pith calibrate --hessians`"
    )]
    NoHessians { id: TensorId },
    /// A Hessian that rounding cannot rest on.
    #[error("{id}: {source}")]
    Hessian { id: TensorId, source: FeedbackError },
    /// Rounding would take more memory than it may.
    #[error(
        "rounding takes {need_bytes} bytes at once, {limit_bytes} are to be had: allow so many, or do without gptq and \
        transforms"
    )]
    Memory { need_bytes: u64, limit_bytes: u64 },
    /// A model whose basis cannot be changed so.
    #[error("transform {name}: {reason}")]
    Transform { name: &'static str, reason: String },
    /// A pattern of the recipe that speaks of nothing.
    #[error(
        "the recipe's pattern {pattern:?} matches no matrix; `pith inspect` shows their names, such as {example}"
    )]
    Unmatched { pattern: String, example: TensorId },
    /// Someone asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// The output is there already.
    #[error("{} exists; --force overwrites it", path.display())]
    OutputExists { path: PathBuf },
    /// The output would take the place of what is read.
    #[error("{} is the checkpoint itself; give another output", path.display())]
    OutputIsSource { path: PathBuf },
    /// The output of an export is there already.
    #[error("{} exists and is no empty folder; give a new one", path.display())]
    OutputFolder { path: PathBuf },
    /// A file of an export cannot be written.
    #[error("cannot {action} {}: {source}", path.display())]
    Write { path: PathBuf, action: &'static str, source: std::io::Error },
    /// An original that is no Hugging Face folder.
    #[error("{} is no folder with config.json: give the Hugging Face checkpoint", path.display())]
    NotAFolder { path: PathBuf },
    /// An original that is another model.
    #[error("{}: {key} is {found}, in the file {expected}: it was not made from this checkpoint", path.display())]
    LikeDiffers { path: PathBuf, key: String, expected: String, found: String },
    /// A model whose configuration cannot be put together.
    #[error(
        "the original of this model of the family {family:?} cannot be told from the file: {reason}; give its \
        folder with --like"
    )]
    NoOriginal { family: String, reason: String },
    /// A tensor that the file and the checkpoint it is written as do not share.
    #[error("{id} {}", match tensor {
        Some(tensor) => format!("is missing or has another shape, which tensor {tensor:?} should hold"),
        None => "has no tensor in a checkpoint of this family".into(),
    })]
    ExportTensor { id: TensorId, tensor: Option<String> },
    /// A weight that the type of an export does not hold.
    #[error("tensor {tensor:?}, of {id}: {value} is beyond {dtype}; export with --dtype f32")]
    ExportRange { tensor: String, id: TensorId, value: f32, dtype: &'static str },
}
