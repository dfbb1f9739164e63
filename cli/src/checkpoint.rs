//! Checkpoints among the paths of a command line.

use std::path::Path;

/// Whether a path is that of a checkpoint, and not of a .pith file.
pub fn is_checkpoint(path: &Path) -> bool {
    path.is_dir() || path.extension().is_some_and(|extension| extension == "gguf")
}
