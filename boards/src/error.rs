//! Errors of facts about the machine, and of measurements.

use pith_format::ReplaceError;
use std::path::PathBuf;

/// An invalid system file, profile or request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// A file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file has unexpected content.
    #[error("{path}: found \"{found}\", expected {expected}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The content found.
        found: String,
        /// The content expected.
        expected: &'static str,
    },
    /// A profile is invalid.
    #[error("{path}:{line}: {field}: {reason}")]
    Profile {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The key or the table on that line.
        field: String,
        /// The fault.
        reason: String,
    },
    /// There is no profile of that name.
    #[error("no profile \"{name}\", and no such file; there are {known}")]
    NoProfile {
        /// The name requested.
        name: String,
        /// Names of all profiles.
        known: String,
    },
    /// The requested CPUs cannot be used.
    #[error("CPUs {list}: {reason}")]
    Cpus {
        /// The requested CPUs.
        list: String,
        /// The cause.
        reason: String,
    },
}

/// An unusable measurement, or an unusable file of measurements.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A profile could not be written, or would replace another file.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// A field of a table has an unexpected value.
    #[error("{path}, line {line}: found \"{found}\", expected {expected}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// The value found.
        found: String,
        /// The values allowed.
        expected: String,
    },
    /// A file is incomplete or wrong.
    #[error("{path}: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The missing or wrong part.
        what: String,
    },
    /// The measurements do not determine the result.
    #[error("{what} (found {found}, expected {expected})")]
    TooFew {
        /// The requirement.
        what: &'static str,
        /// The value found.
        found: String,
        /// The value required.
        expected: String,
    },
}
