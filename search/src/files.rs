//! Files of the work folder.

use crate::error::SearchError;
use std::fs;
use std::path::Path;

/// The search's file until it is renamed to the output.
pub(crate) const FOUND: &str = "found.pith";

/// The file of the best uniform recipe, for comparison.
pub(crate) const UNIFORM: &str = "uniform.pith";

/// Beginnings of the names of all files written here; `first.pith` is the first rounding, `dense.`
/// the dense file.
const WRITTEN: [&str; 4] = [FOUND, UNIFORM, "first.pith", "dense."];

/// Removes partial files that killed searches left. The caller must hold the journal's lock. Then
/// the only other possible writer is a search that is still preparing and will be refused.
pub(crate) fn remove_partials(folder: &Path) -> Result<(), SearchError> {
    for entry in fs::read_dir(folder).map_err(SearchError::io(folder, "read"))? {
        let path = entry.map_err(SearchError::io(folder, "read"))?.path();
        if path.file_name().is_some_and(|name| is_partial(&name.to_string_lossy())) {
            fs::remove_file(&path).map_err(SearchError::io(&path, "remove"))?;
        }
    }
    Ok(())
}

/// Whether [`pith_format::Writer`] gives this name to an unfinished file.
fn is_partial(name: &str) -> bool {
    let of = name.strip_prefix('.').and_then(|name| name.strip_suffix(".partial"));
    of.is_some_and(|of| WRITTEN.iter().any(|start| of.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writers_leave_here_is_known_and_nothing_else() {
        for name in [".found.pith.12.partial", ".first.pith.3.partial", ".dense.hadamard.pith.3.partial"] {
            assert!(is_partial(name), "{name}");
        }
        for name in
            ["found.pith", ".found.pith", "found.pith.1.partial", ".model.pith.1.partial", "x.partial"]
        {
            assert!(!is_partial(name), "{name}");
        }
    }
}
