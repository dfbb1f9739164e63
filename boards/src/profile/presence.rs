//! Sensors of power and energy: which exist, which can be read, and what fixes the others.

use super::schema::{Profile, SensorKind};
use crate::meters::pmic;
use crate::sysfs;
use pith_meter::Scope;
use serde::Serialize;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// A sensor that was searched for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SensorState {
    /// The way it is read.
    pub kind: SensorKind,
    /// The driver's name, for sensors under `/sys/class/hwmon`.
    pub chip: Option<String>,
    /// The scope of its figures; `None` if the profile does not give it.
    pub scope: Option<Scope>,
    /// Whether the profile expects it on this board.
    pub expected: bool,
    /// Its rails by their own labels, or by the profile's.
    pub rails: Vec<String>,
    /// Caveats from the profile.
    pub note: Option<String>,
    /// Whether it is there.
    #[serde(flatten)]
    pub presence: Presence,
}

/// Whether a sensor can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Presence {
    /// It can be read.
    Present {
        /// Path below the root.
        path: PathBuf,
    },
    /// It exists but refuses access.
    Denied {
        /// Path below the root.
        path: PathBuf,
        /// A command that fixes it, or advice.
        remedy: String,
    },
    /// It is missing, or not as expected.
    Absent {
        /// The cause.
        reason: String,
        /// A command that may fix it.
        remedy: Option<String>,
    },
}

/// A sensor that was found: its path and its rails.
struct Hit {
    path: PathBuf,
    chip: Option<String>,
    rails: Vec<String>,
}

impl SensorState {
    /// Looks below `root` for the profile's sensors, then for others that need no profile.
    pub fn survey(root: &Path, profile: &Profile) -> Vec<Self> {
        let mut states = Vec::new();
        let mut seen: Vec<PathBuf> = Vec::new();
        for sensor in &profile.sensors {
            let chip = sensor.chip.as_deref();
            let hits: Vec<Hit> = find(root, sensor.kind).into_iter().filter(|hit| hit.is(chip)).collect();
            let state = |presence, rails: Vec<String>| Self {
                kind: sensor.kind,
                chip: sensor.chip.clone(),
                scope: Some(sensor.scope),
                expected: true,
                rails: if rails.is_empty() { sensor.rails.clone() } else { rails },
                note: sensor.note.clone(),
                presence,
            };
            if hits.is_empty() {
                states.push(state(absent(root, sensor.kind, chip), Vec::new()));
            }
            for hit in hits {
                seen.push(hit.path.clone());
                // The platform's zone covers more than the package.
                let platform = sensor.kind == SensorKind::Rapl && hit.rails == ["psys"];
                let scope = if platform { Scope::Board } else { sensor.scope };
                let presence = probe(root, sensor.kind, &hit.path);
                states.push(Self { scope: Some(scope), ..state(presence, hit.rails) });
            }
        }
        for kind in [SensorKind::Rapl, SensorKind::Hwmon, SensorKind::Battery, SensorKind::PiPmic] {
            for hit in find(root, kind).into_iter().filter(|hit| !seen.contains(&hit.path)) {
                states.push(Self {
                    kind,
                    chip: hit.chip,
                    scope: None,
                    expected: false,
                    rails: hit.rails,
                    note: None,
                    presence: probe(root, kind, &hit.path),
                });
            }
        }
        states
    }
}

impl Hit {
    fn is(&self, chip: Option<&str>) -> bool {
        chip.is_none_or(|chip| self.chip.as_deref() == Some(chip))
    }
}

/// All sensors of a kind below a root, ordered by name.
fn find(root: &Path, kind: SensorKind) -> Vec<Hit> {
    match kind {
        SensorKind::Rapl => zones(root),
        SensorKind::Hwmon => chips(root),
        SensorKind::Battery => batteries(root),
        SensorKind::PiPmic => power_chip(root),
        // Android gives them to apps only through its own interface.
        SensorKind::Odpm => Vec::new(),
    }
}

/// Powercap zones of a package or of the platform. Zones within a package are part of it, and the
/// same package through another interface (`intel-rapl-mmio`) is left out.
fn zones(root: &Path) -> Vec<Hit> {
    let mut hits: Vec<Hit> = Vec::new();
    let mut folders = entries(root, "sys/class/powercap");
    folders.sort_by_key(|folder| file_name(folder).contains("mmio"));
    for folder in folders {
        let base = file_name(&folder);
        if !base.starts_with("intel-rapl") || base.matches(':').count() != 1 {
            continue;
        }
        let name = text(&root.join(&folder).join("name")).unwrap_or(base);
        let path = folder.join("energy_uj");
        if root.join(&path).exists() && !hits.iter().any(|hit| hit.rails[0] == name) {
            hits.push(Hit { path, chip: None, rails: vec![name] });
        }
    }
    hits
}

/// Chips that report power, energy, or both voltage and current.
fn chips(root: &Path) -> Vec<Hit> {
    let hit = |folder: PathBuf| {
        let full = root.join(&folder);
        let files: Vec<String> = fs::read_dir(&full).ok()?.flatten().map(|entry| name_of(&entry)).collect();
        let numbered = |prefix: &str| {
            let mut found: Vec<&String> = files
                .iter()
                .filter(|file| {
                    let number = file.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("_input"));
                    number.is_some_and(|number| {
                        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
                    })
                })
                .collect();
            found.sort();
            found.into_iter().cloned().collect::<Vec<_>>()
        };
        let (power, energy, current) = (numbered("power"), numbered("energy"), numbered("curr"));
        let volts = numbered("in");
        let pairs = if volts.is_empty() { &[][..] } else { &current[..] };
        let readings = [&power[..], &energy, pairs].into_iter().find(|readings| !readings.is_empty())?;
        let label = |reading: &String| {
            let stem = reading.strip_suffix("_input").unwrap_or(reading);
            // Chips with voltage and current label the pair at the voltage.
            let volts = stem.replace("curr", "in");
            text(&full.join(format!("{stem}_label"))).or_else(|| text(&full.join(format!("{volts}_label"))))
        };
        Some(Hit {
            path: folder.join(&readings[0]),
            chip: text(&full.join("name")),
            rails: readings.iter().filter_map(label).collect(),
        })
    };
    // A battery appears here again, under its own name.
    let supply = |hit: &Hit| hit.chip.as_ref().is_some_and(|chip| sysfs::is_power_supply(root, chip));
    entries(root, "sys/class/hwmon").into_iter().filter_map(hit).filter(|hit| !supply(hit)).collect()
}

fn batteries(root: &Path) -> Vec<Hit> {
    let is_battery = |folder: &PathBuf| text(&root.join(folder).join("type")).as_deref() == Some("Battery");
    let folders = entries(root, "sys/class/power_supply").into_iter().filter(is_battery);
    // Batteries of peripherals such as mice do not power the computer.
    let own = folders.filter(|folder| text(&root.join(folder).join("scope")).as_deref() != Some("Device"));
    let hit = |folder: PathBuf| {
        let has = |name: &str| root.join(&folder).join(name).exists();
        let reading = if has("power_now") {
            "power_now"
        } else if has("current_now") && has("voltage_now") {
            "current_now"
        } else {
            return None;
        };
        let rails = vec![file_name(&folder)];
        Some(Hit { path: folder.join(reading), chip: None, rails })
    };
    own.filter_map(hit).collect()
}

fn power_chip(root: &Path) -> Vec<Hit> {
    let path = PathBuf::from("dev/vcio");
    let there = pmic::is_there(root) && root.join(&path).exists();
    if there { vec![Hit { path, chip: None, rails: Vec::new() }] } else { Vec::new() }
}

/// Whether a found sensor can be read and reports the right quantity.
fn probe(root: &Path, kind: SensorKind, path: &Path) -> Presence {
    let full = root.join(path);
    if kind == SensorKind::PiPmic {
        return match fs::File::open(&full) {
            Err(error) => refusal(kind, path, error.kind(), &error.to_string()),
            Ok(_) if !program(root, "vcgencmd") => Presence::Absent {
                reason: "there is no vcgencmd".into(),
                remedy: Some("sudo apt install raspi-utils".into()),
            },
            Ok(_) => Presence::Present { path: path.into() },
        };
    }
    let mut value = String::new();
    match fs::File::open(&full).and_then(|file| file.take(64).read_to_string(&mut value)) {
        Err(error) => refusal(kind, path, error.kind(), &error.to_string()),
        Ok(_) if value.trim().parse::<i64>().is_err() => Presence::Absent {
            reason: format!("{} holds \"{}\", expected a number", path.display(), value.trim()),
            remedy: None,
        },
        Ok(_) if kind == SensorKind::Battery => discharging(root, path),
        Ok(_) => Presence::Present { path: path.into() },
    }
}

/// A battery's figure equals the computer's consumption only while nothing else feeds it.
fn discharging(root: &Path, path: &Path) -> Presence {
    let status = text(&root.join(path.with_file_name("status")));
    match status.as_deref() {
        Some("Discharging") => Presence::Present { path: path.into() },
        other => Presence::Absent {
            reason: format!(
                "the battery says \"{}\", and only one that is discharging says what is used",
                other.unwrap_or("nothing")
            ),
            remedy: Some("pull the charger's plug".into()),
        },
    }
}

fn refusal(kind: SensorKind, path: &Path, error: ErrorKind, message: &str) -> Presence {
    if error != ErrorKind::PermissionDenied {
        return Presence::Absent { reason: format!("{}: {message}", path.display()), remedy: None };
    }
    let remedy = match kind {
        // Root only by default, because energy reveals other programs' computations
        // (CVE-2020-8694).
        SensorKind::Rapl => {
            "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj  (until the next start)".into()
        }
        SensorKind::PiPmic => "sudo usermod -aG video $USER, then log in again".into(),
        _ => format!("sudo chmod a+r /{}", path.display()),
    };
    Presence::Denied { path: path.into(), remedy }
}

fn absent(root: &Path, kind: SensorKind, chip: Option<&str>) -> Presence {
    let (reason, remedy) = match (kind, chip) {
        (SensorKind::Rapl, _) if !root.join("sys/class/powercap").exists() => (
            "there is no /sys/class/powercap: another processor, a virtual machine, or no driver".into(),
            None,
        ),
        (SensorKind::Rapl, _) => (
            "there is no zone intel-rapl under /sys/class/powercap".into(),
            Some("sudo modprobe intel_rapl_msr".into()),
        ),
        (SensorKind::Hwmon, Some(chip)) => {
            (format!("no chip {chip} under /sys/class/hwmon"), Some(format!("sudo modprobe {chip}")))
        }
        (SensorKind::Hwmon, None) => ("no chip with power under /sys/class/hwmon".into(), None),
        (SensorKind::Battery, _) => ("no battery under /sys/class/power_supply".into(), None),
        (SensorKind::PiPmic, _) => ("there is no /dev/vcio: not a Raspberry Pi's own kernel".into(), None),
        (SensorKind::Odpm, _) => {
            ("Android gives these rails to apps (PowerMonitor, API 35), not to a command".into(), None)
        }
    };
    Presence::Absent { reason, remedy }
}

fn program(root: &Path, name: &str) -> bool {
    ["usr/bin", "usr/local/bin", "bin", "opt/vc/bin"]
        .iter()
        .any(|folder| root.join(folder).join(name).exists())
}

/// Entries of a folder as paths below the root, ordered by name.
fn entries(root: &Path, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| Path::new(folder).join(entry.file_name())).collect();
    paths.sort();
    paths
}

fn name_of(entry: &fs::DirEntry) -> String {
    entry.file_name().to_string_lossy().into_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Content of a short text file; `None` if unreadable or empty.
fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!text.is_empty()).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_command_that_mends_it() {
        let path = Path::new("sys/class/powercap/intel-rapl:0/energy_uj");
        let denied = refusal(SensorKind::Rapl, path, ErrorKind::PermissionDenied, "permission denied");
        let Presence::Denied { remedy, .. } = denied else { panic!("{denied:?}") };
        assert!(remedy.contains("chmod a+r"), "{remedy}");
        let path = Path::new("sys/class/hwmon/hwmon3/power1_input");
        let denied = refusal(SensorKind::Hwmon, path, ErrorKind::PermissionDenied, "permission denied");
        let Presence::Denied { remedy, .. } = denied else { panic!("{denied:?}") };
        assert!(remedy.contains("/sys/class/hwmon/hwmon3/power1_input"), "{remedy}");
        let gone = refusal(SensorKind::Hwmon, path, ErrorKind::Other, "no such device");
        assert!(matches!(gone, Presence::Absent { reason, .. } if reason.contains("no such device")));
    }

    #[test]
    fn a_driver_is_named_where_the_profile_names_one() {
        let remedy = |chip| match absent(Path::new("/nowhere"), SensorKind::Hwmon, chip) {
            Presence::Absent { remedy, .. } => remedy,
            other => panic!("{other:?}"),
        };
        assert_eq!(remedy(Some("ina226")).as_deref(), Some("sudo modprobe ina226"));
        assert_eq!(remedy(None), None);
    }

    #[test]
    fn the_power_chip_is_seen_on_every_board_that_is_metered_by_it() {
        for (model, there) in [
            ("Raspberry Pi 5 Model B Rev 1.0\0", true),
            ("Raspberry Pi Compute Module 5 Rev 1.0\0", true),
            ("Raspberry Pi 500 Rev 1.0\0", true),
            ("Raspberry Pi 4 Model B Rev 1.4\0", false),
        ] {
            let root = tempfile::tempdir().unwrap();
            for (path, text) in [("proc/device-tree/model", model), ("dev/vcio", "")] {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            assert_eq!(!find(root.path(), SensorKind::PiPmic).is_empty(), there, "{model}");
            let metered = crate::meters::discover(root.path()).unusable;
            assert_eq!(metered.iter().any(|one| one.name == "pmic"), there, "{model}: {metered:?}");
        }
    }
}
