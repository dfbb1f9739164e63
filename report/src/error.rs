//! What can be wrong with a ledger.

use std::path::PathBuf;

/// Why a ledger was not read, or a report not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something else than a ledger.
    #[error("{} is no ledger: {reason}; pith run --ledger FILE writes one", path.display())]
    NotALedger {
        /// The file.
        path: PathBuf,
        /// What is there.
        reason: String,
    },
    /// A ledger of another version.
    #[error("{} has version {found} of the schema, this program reads up to {newest}; use a newer pith", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest that is known.
        newest: u32,
    },
    /// A line that is not one of a ledger.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A figure that cannot be.
    #[error("{}, line {line}, {field}: found {found}, expected {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Name of the field or column.
        field: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// A ledger without a single token.
    #[error("{}: nothing was recorded after the first line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A report of nothing.
    #[error("no ledger was given")]
    NoLedgers,
    /// The page's template failed.
    #[error("page: {0}")]
    Page(#[from] minijinja::Error),
}
