//! A calibration as a profile of this very machine.

use super::fit::{Fit, Term};
use crate::bandwidth::Ceiling;
use crate::error::MeasureError;
use crate::machine::{Machine, read};
use crate::model::{EnergyModel, Estimate, ModelKind};
use pith_runtime::Scope;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Name of the profile, and of its file without the ending.
pub const OWN_PROFILE: &str = "this-machine";

/// What was found out about this machine, as a board's profile has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OwnProfile {
    name: String,
    title: String,
    notes: Vec<String>,
    detect: Vec<Rule>,
    bandwidth: Vec<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    energy_model: Option<EnergyModel>,
}

/// How this machine is known again.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dmi_product: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_name: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    always: bool,
    source: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Rate {
    threads: usize,
    gb_per_s: [f64; 2],
    test: String,
    source: String,
}

impl OwnProfile {
    /// A profile of the machine below `root`, which `machine` was read from.
    pub fn new(
        root: &Path,
        machine: &Machine,
        bandwidth: &[Ceiling],
        energy: Option<EnergyModel>,
        notes: Vec<String>,
    ) -> Self {
        let text = |path: &str| {
            let text = read(&root.join(path)).ok().flatten()?;
            let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_string();
            (!text.is_empty()).then_some(text)
        };
        let model = text("proc/device-tree/model").or_else(|| text("sys/firmware/devicetree/base/model"));
        let dmi_product = text("sys/class/dmi/id/product_name");
        // ARM kernels give no name to look for; the device tree's model says enough there.
        let name = machine.processors.first().map(|processor| processor.name.clone());
        let cpu_name = if model.is_none() { name.filter(|name| name != "unknown") } else { None };
        let always = model.is_none() && dmi_product.is_none() && cpu_name.is_none();
        let source = "pith board calibrate, on this machine".to_string();
        let rate = |rate: &Ceiling| {
            let gb_per_s = (rate.bytes_per_s / 1e7).round() / 100.0;
            Rate {
                threads: rate.threads,
                gb_per_s: [gb_per_s; 2],
                test: "reading a buffer far larger than the caches".into(),
                source: source.clone(),
            }
        };
        Self {
            name: OWN_PROFILE.into(),
            title: machine
                .board
                .clone()
                .or_else(|| cpu_name.clone())
                .unwrap_or_else(|| "this machine".into()),
            notes,
            // A rate of nothing is no rate.
            bandwidth: bandwidth.iter().map(rate).filter(|rate| rate.gb_per_s[0] > 0.0).collect(),
            detect: vec![Rule { model, dmi_product, cpu_name, always, source }],
            energy_model: energy,
        }
    }

    /// As TOML.
    pub fn to_toml(&self) -> String {
        let text = toml::to_string(self).expect("a profile has texts, numbers, tables and lists only");
        format!(
            "# Written by `pith board calibrate`, which replaces it. Delete it to go back to the shipped profile.\n\n{text}"
        )
    }
}

impl Fit {
    /// The fit as a model of energy; figures of it cover what the instrument covered. `origin`: where the observations are
    /// from, as in `by the meter "pmic"`.
    ///
    /// A term that was not shown counts for nothing: what it costs is in the others, for loads like the observed ones.
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
    /// What it is the cost of.
    pub fn name(self) -> &'static str {
        match self {
            Self::Byte => "bytes",
            Self::Operation => "operations",
            Self::Time => "time",
        }
    }
}

/// Writes `text` to `path`, whose folder is made where it is missing. A reader sees the old file or the new one, whole.
pub fn write_whole(path: &Path, text: &str) -> Result<(), MeasureError> {
    let failed = |source| MeasureError::File { path: path.to_path_buf(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = Path::new(&beside);
    let written = File::create(beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let done = written.and_then(|()| fs::rename(beside, path));
    done.map_err(|error| {
        // What is left of an attempt that failed is of no use; that it cannot be removed either, adds nothing.
        let _ = fs::remove_file(beside);
        failed(error)
    })
}

/// The energy model of a profile in TOML, other parts of it left alone; `None` where it has none.
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
    use crate::calibrate::{Observation, fit};

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
        write_whole(&path, &profile.to_toml()).unwrap();
        write_whole(&path, &profile.to_toml()).unwrap();
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
        write_whole(&path, &text).unwrap();
        assert_eq!(read_model(&path).unwrap(), None);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let root = tempfile::tempdir().unwrap();
        assert!(read_model(&root.path().join("none.toml")).unwrap_err().to_string().contains("none.toml"));
        let path = root.path().join("bad.toml");
        write_whole(&path, "[energy_model]\nkind = \"guessed\"\n").unwrap();
        let error = read_model(&path).unwrap_err().to_string();
        assert!(error.contains("bad.toml") && error.contains("guessed"), "{error}");
        assert!(write_whole(&path.join("below"), "x").is_err());
    }
}
