//! Numbers and names in small system files.

use crate::error::MachineError;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

/// Text of a small system file; `None` if it does not exist or may not be read.
pub(crate) fn read(path: &Path) -> Result<Option<String>, MachineError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory => Ok(None),
            _ => Err(MachineError::Read { path: path.to_path_buf(), source: error }),
        },
    }
}

/// Text of a file, trimmed.
pub(crate) fn text(path: &Path) -> Result<String, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_string()),
        Err(error) => Err(refusal(path, &error)),
    }
}

/// The reason why a file was not read, with a command that grants access.
pub(crate) fn refusal(path: &Path, error: &Error) -> String {
    let path = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("{path} may not be read; allow it until the next start with: sudo chmod a+r {path}")
        }
        _ => format!("{path}: {error}"),
    }
}

/// The integer in a file.
pub(crate) fn number(path: &Path) -> Result<i64, String> {
    let text = text(path)?;
    text.parse().map_err(|_| format!("{}: found \"{text}\", expected a whole number", path.display()))
}

/// The non-negative integer in a file.
pub(crate) fn count(path: &Path) -> Result<u64, String> {
    let text = text(path)?;
    text.parse().map_err(|_| format!("{}: found \"{text}\", expected a number from 0 on", path.display()))
}

/// Subfolders, ordered by name; none if the folder does not exist.
pub(crate) fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// Whether a hwmon chip is a second view of a battery or charger under `/sys/class/power_supply`.
/// Chip names may not contain hyphens; the kernel writes `_` instead.
pub(crate) fn is_power_supply(root: &Path, chip: &str) -> bool {
    let supplies = folders(&root.join("sys/class/power_supply"));
    supplies.iter().filter_map(|path| path.file_name()?.to_str()).any(|name| name.replace('-', "_") == chip)
}

/// Numbers `n` of the files `PREFIXn_SUFFIX` in a folder, ascending.
pub(crate) fn channels(folder: &Path, prefix: &str, suffix: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let number = |name: &str| -> Option<u32> {
        name.strip_prefix(prefix)?.strip_suffix(suffix)?.strip_suffix('_')?.parse().ok()
    };
    let mut found: Vec<u32> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    found.sort_unstable();
    found
}
