//! Why a file was not replaced.

use std::io;
use std::path::PathBuf;

/// A file that was not replaced; what was there is untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplaceError {
    /// A rename would put a file in the place of something else.
    #[error("{} is {found}, expected a file or nothing; choose another output", path.display())]
    NotAFile {
        /// The output.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// The new file would take the place of one that it is made from.
    #[error("{} is the input {}; choose another output", path.display(), input.display())]
    Input {
        /// The output.
        path: PathBuf,
        /// The input, as it was named.
        input: PathBuf,
    },
    /// There is a file, and nobody said that it may go.
    #[error("{} exists; --force overwrites it", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The output, or the file that is moved to it.
        path: PathBuf,
        /// What failed.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}
