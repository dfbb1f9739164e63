//! This machine and its sensors, for the commands that need them.

use anyhow::Context;
use pith_boards::Unusable;
use pith_boards::energy_fit::OWN_PROFILE;
use pith_boards::profile::{Detection, Evidence, Library};
use std::path::PathBuf;

/// The profile that matches the evidence, or the requested one.
pub fn detect(evidence: &Evidence, wanted: Option<&str>) -> anyhow::Result<Detection> {
    let library = match Library::user_folder() {
        Some(folder) => Library::with_folder(&folder)?,
        None => Library::shipped(),
    };
    Ok(match wanted {
        Some(wanted) => library.forced(wanted).context("--profile")?,
        None => library.detect(evidence),
    })
}

/// The file of this machine's own profile, in the user's folder of profiles. `None` where the
/// environment defines no such folder.
pub fn own_profile() -> Option<PathBuf> {
    Library::user_folder().map(|folder| folder.join(format!("{OWN_PROFILE}.toml")))
}

/// Reports on standard error the sensors and counters that exist but cannot be used.
pub fn report_unusable<'a>(all: impl IntoIterator<Item = &'a Unusable>) {
    for one in all {
        eprintln!("unusable: {}: {}", one.name, one.reason);
    }
}
