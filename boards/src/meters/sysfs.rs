//! Numbers and names in small files of the system.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

/// The text of a file without the white space around it.
pub(crate) fn text(path: &Path) -> Result<String, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_string()),
        Err(error) => Err(refusal(path, &error)),
    }
}

/// Why a file was not read, and the command that opens a closed one.
pub(crate) fn refusal(path: &Path, error: &Error) -> String {
    let path = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("{path} may not be read; allow it until the next start with: sudo chmod a+r {path}")
        }
        _ => format!("{path}: {error}"),
    }
}

/// The whole number in a file.
pub(crate) fn number(path: &Path) -> Result<i64, String> {
    let text = text(path)?;
    text.parse().map_err(|_| format!("{}: found \"{text}\", expected a whole number", path.display()))
}

/// The number in a file where a negative one makes no sense.
pub(crate) fn count(path: &Path) -> Result<u64, String> {
    let text = text(path)?;
    text.parse().map_err(|_| format!("{}: found \"{text}\", expected a number from 0 on", path.display()))
}

/// Folders in a folder, in the order of their names; none where it is not there.
pub(crate) fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// Whether a chip under `/sys/class/hwmon` is the second view of a battery or a charger under `/sys/class/power_supply`. The
/// kernel allows no hyphen in a chip's name and writes `_`.
pub(crate) fn is_power_supply(root: &Path, chip: &str) -> bool {
    let supplies = folders(&root.join("sys/class/power_supply"));
    supplies.iter().filter_map(|path| path.file_name()?.to_str()).any(|name| name.replace('-', "_") == chip)
}

/// Numbers `n` of the files `PREFIXn_SUFFIX` in a folder, rising.
pub(crate) fn channels(folder: &Path, prefix: &str, suffix: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let number = |name: &str| -> Option<u32> {
        name.strip_prefix(prefix)?.strip_suffix(suffix)?.strip_suffix('_')?.parse().ok()
    };
    let mut found: Vec<u32> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    found.sort_unstable();
    found
}
