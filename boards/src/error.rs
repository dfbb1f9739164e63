//! What can go wrong when one measures.

use pith_format::ReplaceError;
use std::path::PathBuf;

/// A measurement, or the file it comes from, that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A profile could not be written, or must not be.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// A line of a table holds something else than expected.
    #[error("{path}, line {line}: found \"{found}\", expected {expected}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// A file lacks something.
    #[error("{path}: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        what: String,
    },
    /// The measurements do not determine what was asked of them.
    #[error("{what} (found {found}, expected {expected})")]
    TooFew {
        /// What is wanted.
        what: &'static str,
        /// What there is.
        found: String,
        /// What it takes.
        expected: String,
    },
}
