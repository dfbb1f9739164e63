//! Errors of replacing a file.

use std::io;
use std::path::PathBuf;

/// A file that was not replaced; the old one is untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplaceError {
    /// The target is not a regular file.
    #[error("{} is {found}, expected a file or nothing; choose another output", path.display())]
    NotAFile {
        /// The output.
        path: PathBuf,
        /// Kind of the existing target.
        found: &'static str,
    },
    /// The target is one of the inputs of the new file.
    #[error("{} is the input {}; choose another output", path.display(), input.display())]
    Input {
        /// The output.
        path: PathBuf,
        /// The input, as it was named.
        input: PathBuf,
    },
    /// The target exists, and replacing it was not allowed.
    #[error("{} exists; --force overwrites it", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The output, or the file that was moved to it.
        path: PathBuf,
        /// Operation that failed.
        action: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
}
