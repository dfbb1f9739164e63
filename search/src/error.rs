//! Errors of a search.

use pith_converter::ConvertError;
use pith_converter::statistics::StatisticsError;
use pith_eval::EvalError;
use pith_format::{FormatError, ReplaceError};
use pith_runtime::RuntimeError;
use std::io;
use std::path::PathBuf;

/// A search without a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum SearchError {
    /// The checkpoint cannot be read, calibrated or converted.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The model cannot be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Two models cannot be compared.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The layout of a file is impossible.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An input or output operation failed.
    #[error("{}: {action}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    /// An option has an invalid value.
    #[error("{option} is {found:?}, expected {expected}")]
    Option { option: &'static str, found: String, expected: String },
    /// The model has no matrix to choose an encoding for.
    #[error("{model} has no matrices to choose encodings for")]
    NoTensors { model: String },
    /// The budget is below the cheapest assignment.
    #[error(
        "the budget of {budget} cannot be met: the least possible is {least}, with every matrix in {with}; \
        a larger budget would do, or --encodings with fewer bits"
    )]
    TooSmall { budget: String, least: String, with: String },
    /// The output exists, is an input, or is not a file.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The source is not a checkpoint.
    #[error("{} is a .pith file; a search starts from the checkpoint, a Hugging Face folder or a .gguf file", path.display())]
    NoCheckpoint { path: PathBuf },
    /// The text has too few windows.
    #[error(
        "the text gives {found} windows of {context_len} tokens, a search needs {least}; give more text or a shorter --context"
    )]
    ShortText { found: usize, context_len: usize, least: usize },
    /// A line of the journal is invalid.
    #[error("{}: line {line}: {reason}", path.display())]
    Journal { path: PathBuf, line: usize, reason: String },
    /// The journal belongs to another search.
    #[error("{} is of another search: {field} is {found}, here {expected}; give another --work folder, or remove it", path.display())]
    OtherJournal { path: PathBuf, field: &'static str, found: String, expected: String },
    /// Another search uses the folder.
    #[error("another search works in {}", path.display())]
    Busy { path: PathBuf },
    /// The user asked to stop.
    #[error("stopped; what was measured is kept in {}, and the same command goes on from there", work.display())]
    Interrupted { work: PathBuf },
}

impl SearchError {
    /// Whether the user asked to stop.
    pub fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Interrupted { .. } | Self::Convert(ConvertError::Statistics(StatisticsError::Interrupted))
        )
    }

    pub(crate) fn io(path: &std::path::Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }
}
