//! An energy calibration saved as a profile of this machine.

use super::fit::{Fit, Term};
use crate::bandwidth::Ceiling;
use crate::energy_model::{EnergyModel, Estimate, ModelKind};
use crate::error::MeasureError;
use crate::machine::Machine;
use crate::profile::{Bandwidth, Evidence, Found, Library, Profile, Rule};
use pith_format::{ReplaceOptions, folder_of, replace};
use pith_meter::Scope;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Name of the profile, and of its file without the extension.
pub const OWN_PROFILE: &str = "this-machine";

/// Source of the profile's figures.
const SOURCE: &str = "pith board calibrate, on this machine";

/// The measured profile of this machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct OwnProfile(Profile);

impl OwnProfile {
    /// A profile of the machine below `root`, from which `machine` was read.
    ///
    /// It starts from the best matching other profile. Cores, caches, sensors, counters and
    /// temperatures stay, each with its source. Name, notes and energy model are this machine's
    /// own, and so is the bandwidth if it was measured. A machine that cannot be read starts from
    /// the generic profile.
    pub fn new(
        root: &Path,
        machine: &Machine,
        bandwidth: &[Ceiling],
        energy: Option<EnergyModel>,
        notes: Vec<String>,
    ) -> Self {
        let evidence = Evidence::read(root).unwrap_or_default();
        let before = library(root).detect(&evidence).profile;
        let rule = rule(&evidence);
        let rate = |rate: &Ceiling| {
            let gb_per_s = (rate.bytes_per_s / 1e7).round() / 100.0;
            Bandwidth {
                threads: u32::try_from(rate.threads).ok(),
                cores: None,
                gb_per_s: [gb_per_s; 2],
                test: "reading a buffer far larger than the caches".into(),
                source: SOURCE.into(),
            }
        };
        let rates = bandwidth.iter().filter(|rate| rate.threads > 0).map(rate);
        // A rate of 0 was not measured.
        let rates: Vec<Bandwidth> = rates.filter(|rate| rate.gb_per_s[0] > 0.0).collect();
        let title = machine.board.clone().or_else(|| rule.cpu_name.clone());
        Self(Profile {
            name: OWN_PROFILE.into(),
            title: title.unwrap_or_else(|| "this machine".into()),
            notes,
            detect: vec![rule],
            bandwidth: if rates.is_empty() { before.bandwidth } else { rates },
            energy_model: energy,
            ..before
        })
    }

    /// The profile as TOML.
    pub fn to_toml(&self) -> String {
        let text = toml::to_string(&self.0).expect("a profile has texts, numbers, tables and lists only");
        format!(
            "# Written by `pith board calibrate`, which replaces it. Delete it to go back to the shipped profile.\n\n{text}"
        )
    }
}

/// All profiles except an earlier one of this machine. The user's profiles apply only to the
/// running system, not to a recorded tree. If one of them is damaged, only the shipped ones are
/// used.
fn library(root: &Path) -> Library {
    let folder = Library::user_folder().filter(|_| root == Path::new("/"));
    let all = folder.and_then(|folder| Library::with_folder(&folder).ok());
    all.unwrap_or_else(Library::shipped).without(OWN_PROFILE)
}

/// All conditions that identify the board, so that no other rule is more specific.
fn rule(evidence: &Evidence) -> Rule {
    let text = |found: &Option<Found<String>>| found.as_ref().map(|found| found.value.clone());
    let first = |found: &Option<Found<Vec<String>>>| found.as_ref()?.value.first().cloned();
    let (compatible, model) = (first(&evidence.compatible), text(&evidence.model));
    // Kernels name processors differently; a device tree suffices without them.
    let has_tree = compatible.is_some() || model.is_some();
    let found = Rule {
        compatible,
        model,
        dmi_product: text(&evidence.dmi_product),
        dmi_vendor: text(&evidence.dmi_vendor),
        cpu_name: first(&evidence.cpu_names).filter(|_| !has_tree),
        cpu_vendor: text(&evidence.cpu_vendor),
        portable: evidence.portable(),
        android: evidence.android.as_ref().map(|_| true),
        always: false,
        source: SOURCE.into(),
    };
    let nothing = Rule { source: SOURCE.into(), ..Rule::default() };
    Rule { always: found == nothing, ..found }
}

impl Fit {
    /// The fit as an energy model with the instrument's scope. `origin`: the source of the
    /// observations, such as `by the meter "pmic"`.
    ///
    /// A term that was not shown costs nothing; the other terms contain its energy, for loads like
    /// the observed ones.
    pub fn model(&self, scope: Scope, origin: &str) -> Result<EnergyModel, String> {
        let estimate = |term: Term| match self.coefficient(term) {
            Some(coefficient) => Estimate::new(coefficient.value, coefficient.interval95),
            None => Estimate::new(0.0, None),
        };
        let idle_watts = match self.given_idle_watts {
            Some(watts) => Estimate::new(watts, None)?,
            None => estimate(Term::Time)?,
        };
        let each_operation =
            self.coefficient(Term::Operation).map(|_| estimate(Term::Operation)).transpose()?;
        let mut source = format!(
            "fitted to {} observations {origin}; residuals {:.1} % (root of the mean square)",
            self.residuals.len(),
            self.rms_percent
        );
        if !self.not_shown.is_empty() {
            let names: Vec<&str> = self.not_shown.iter().map(|term| term.name()).collect();
            source += &format!("; they do not show a cost of {} apart from the rest", names.join(" and "));
        }
        Ok(EnergyModel {
            kind: ModelKind::Calibrated,
            source,
            scope,
            joules_per_byte: estimate(Term::Byte)?,
            joules_per_operation: each_operation,
            idle_watts,
        })
    }
}

impl Term {
    /// The unit that this term prices.
    pub fn name(self) -> &'static str {
        match self {
            Self::Byte => "bytes",
            Self::Operation => "operations",
            Self::Time => "time",
        }
    }
}

/// Replaces the profile at `path`; creates its folder if missing.
pub fn write_profile(path: &Path, text: &str) -> Result<(), MeasureError> {
    fs::create_dir_all(folder_of(path))
        .map_err(|source| MeasureError::File { path: path.to_path_buf(), source })?;
    Ok(replace(path, text.as_bytes(), ReplaceOptions::FORCE)?)
}

/// The energy model of a TOML profile, ignoring its other parts; `None` if it has none.
pub fn read_model(path: &Path) -> Result<Option<EnergyModel>, MeasureError> {
    #[derive(Deserialize)]
    struct Part {
        energy_model: Option<EnergyModel>,
    }
    let text =
        fs::read_to_string(path).map_err(|source| MeasureError::File { path: path.to_path_buf(), source })?;
    let part: Part = toml::from_str(&text).map_err(|error| MeasureError::Content {
        path: path.to_path_buf(),
        what: error.to_string().trim_end().to_string(),
    })?;
    Ok(part.energy_model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy_fit::{Observation, fit};

    fn seen(bytes: f64, seconds: f64, joules: f64) -> Observation {
        Observation { label: "x".into(), bytes, operations: None, seconds, joules }
    }

    #[test]
    fn a_profile_written_gives_its_model_back() {
        let observations =
            [seen(0.0, 1.0, 3.1), seen(5e9, 1.0, 5.4), seen(1e10, 1.0, 8.1), seen(2e9, 1.0, 3.9)];
        let model = fit(&observations, None).unwrap().model(Scope::Wall, "by a plug").unwrap();
        assert!(model.source.contains("4 observations by a plug"), "{}", model.source);
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("proc/device-tree");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("model"), "Some Board Rev 2\0").unwrap();
        let machine = Machine::read(root.path()).unwrap();
        let rates = [Ceiling { threads: 1, bytes_per_s: 4.321e9 }, Ceiling { threads: 2, bytes_per_s: 0.0 }];
        let profile =
            OwnProfile::new(root.path(), &machine, &rates, Some(model.clone()), vec!["a note".into()]);
        let path = root.path().join("config/pith/boards/this-machine.toml");
        write_profile(&path, &profile.to_toml()).unwrap();
        write_profile(&path, &profile.to_toml()).unwrap();
        assert_eq!(read_model(&path).unwrap(), Some(model));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("model = \"Some Board Rev 2\"") && text.contains("[4.32, 4.32]"), "{text}");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_machine_without_a_name_is_known_always_and_without_a_meter_has_no_model() {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::read(root.path()).unwrap();
        let text = OwnProfile::new(root.path(), &machine, &[], None, vec![]).to_toml();
        assert!(text.contains("always = true") && !text.contains("[energy_model]"), "{text}");
        let path = root.path().join("x.toml");
        write_profile(&path, &text).unwrap();
        assert_eq!(read_model(&path).unwrap(), None);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let root = tempfile::tempdir().unwrap();
        assert!(read_model(&root.path().join("none.toml")).unwrap_err().to_string().contains("none.toml"));
        let path = root.path().join("bad.toml");
        write_profile(&path, "[energy_model]\nkind = \"guessed\"\n").unwrap();
        let error = read_model(&path).unwrap_err().to_string();
        assert!(error.contains("bad.toml") && error.contains("guessed"), "{error}");
        assert!(write_profile(&path.join("below"), "x").is_err());
    }
}
