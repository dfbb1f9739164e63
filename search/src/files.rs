//! Files of the work folder.

use crate::error::SearchError;
use std::fs;
use std::path::Path;

/// The search's file, until it gets the output's name.
pub(crate) const FOUND: &str = "found.pith";

/// The best uniform recipe's, which is compared with it.
pub(crate) const UNIFORM: &str = "uniform.pith";

/// How names begin of what is written here: these, the file of a first rounding, the dense file.
const WRITTEN: [&str; 4] = [FOUND, UNIFORM, "first.pith", "dense."];

/// Takes away what searches that were killed had written of files. To be called by who holds the journal's lock: then no
/// other search is writing here, but one that prepares itself and would be refused next.
pub(crate) fn remove_partials(folder: &Path) -> Result<(), SearchError> {
    for entry in fs::read_dir(folder).map_err(SearchError::io(folder, "read"))? {
        let path = entry.map_err(SearchError::io(folder, "read"))?.path();
        if path.file_name().is_some_and(|name| is_partial(&name.to_string_lossy())) {
            fs::remove_file(&path).map_err(SearchError::io(&path, "remove"))?;
        }
    }
    Ok(())
}

/// As [`pith_format::Writer`] names what is not whole.
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
