//! Everything that can stop a search.

use pith_converter::ConvertError;
use pith_converter::statistics::StatisticsError;
use pith_eval::EvalError;
use pith_format::{FormatError, ReplaceError};
use pith_runtime::RuntimeError;
use std::io;
use std::path::PathBuf;

/// Why there is no file.
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
    /// A file cannot be laid out.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The system does not give or take a file.
    #[error("{}: {action}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    /// An option's value cannot be.
    #[error("{option} is {found:?}, expected {expected}")]
    Option { option: &'static str, found: String, expected: String },
    /// Nothing to choose for.
    #[error("{model} has no matrices to choose encodings for")]
    NoTensors { model: String },
    /// A budget below what is possible.
    #[error(
        "the budget of {budget} cannot be met: the least possible is {least}, with every matrix in {with}; \
        a larger budget would do, or --encodings with fewer bits"
    )]
    TooSmall { budget: String, least: String, with: String },
    /// A file exists, is an input, or is no file.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The model is no checkpoint.
    #[error("{} is a .pith file; a search starts from the checkpoint, a Hugging Face folder or a .gguf file", path.display())]
    NoCheckpoint { path: PathBuf },
    /// Too little text to measure on.
    #[error(
        "the text gives {found} windows of {context_len} tokens, a search needs {least}; give more text or a shorter --context"
    )]
    ShortText { found: usize, context_len: usize, least: usize },
    /// A journal that was not written by a search.
    #[error("{}: line {line}: {reason}", path.display())]
    Journal { path: PathBuf, line: usize, reason: String },
    /// A journal of something else.
    #[error("{} is of another search: {field} is {found}, here {expected}; give another --work folder, or remove it", path.display())]
    OtherJournal { path: PathBuf, field: &'static str, found: String, expected: String },
    /// Two searches in one folder.
    #[error("another search works in {}", path.display())]
    Busy { path: PathBuf },
    /// Somebody asked to stop.
    #[error("stopped; what was measured is kept in {}, and the same command goes on from there", work.display())]
    Interrupted { work: PathBuf },
}

impl SearchError {
    /// Whether somebody asked to stop.
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
