//! Errors of ledgers and reports.

use std::path::PathBuf;

/// Why a ledger could not be read, or a report not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file is not a ledger.
    #[error("{} is no ledger: {reason}; pith run --ledger FILE writes one", path.display())]
    NotALedger {
        /// The file.
        path: PathBuf,
        /// What the file holds instead.
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
    /// The line is not a ledger line.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A figure is impossible.
    #[error("{}, line {line}, {field}: found {found}, expected {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Name of the field or column.
        field: String,
        /// Value found.
        found: String,
        /// Value expected.
        expected: String,
    },
    /// The ledger has no tokens.
    #[error("{}: nothing was recorded after the first line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// No ledger was given.
    #[error("no ledger was given")]
    NoLedgers,
    /// The page's template failed.
    #[error("page: {0}")]
    Page(#[from] minijinja::Error),
}
