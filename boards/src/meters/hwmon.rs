//! Power monitors with a kernel driver: INA219, INA226, INA231, INA3221 and any other chip under
//! `/sys/class/hwmon` with a channel of power, energy, or both voltage and current.
//!
//! Folders there are numbered in the order of driver start, so a sensor is identified by its name
//! and its channel's label.

use super::integrate::MAX_WATTS;
use super::{Discovered, Found, Sampler, Source};
use crate::sysfs;
use pith_meter::{Joules, Kind, Meter, MeterError, Scope};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Sampling period of a sensor that does not state its own.
const PERIOD: Duration = Duration::from_millis(50);
/// Shortest sampling period, for sensors that measure faster.
const LEAST_PERIOD: Duration = Duration::from_millis(20);
/// Assumed update period of drivers' energy counters, which are read on demand.
const ENERGY_PERIOD: Duration = Duration::from_millis(100);
/// Labels of channels that cover a whole board. All others are rails: only the maker knows the
/// wiring.
const BOARD_LABELS: [&str; 3] = ["VDD_IN", "POM_5V_IN", "Total System Power"];

pub(super) fn discover(root: &Path, all: &mut Discovered) {
    for folder in sysfs::folders(&root.join("sys/class/hwmon")) {
        let Ok(chip) = sysfs::text(&folder.join("name")) else { continue };
        // Batteries are metered by their own files, which also tell whether they charge.
        if sysfs::is_power_supply(root, &chip) {
            continue;
        }
        let folder = if has_channels(&folder) { folder } else { folder.join("device") };
        let period = sysfs::count(&folder.join("update_interval"))
            .map_or(PERIOD, |millis| Duration::from_millis(millis.clamp(1, 60_000)).max(LEAST_PERIOD));
        let mut seen: Vec<(u32, String)> = Vec::new();
        for channel in channels(&folder).into_iter().filter(|channel| channel.number <= last_input(&chip)) {
            let label = channel.label(&folder);
            // A chip with power beside voltage and current reports the same quantity twice.
            let identity = label.clone().unwrap_or_else(|| channel.number.to_string());
            let is_pair = channel.quantity == Quantity::VoltageAndCurrent;
            let is_known =
                |(number, known): &(u32, String)| *known == identity || is_pair && *number == channel.number;
            if seen.iter().any(is_known) || channel.is_off(&folder) {
                continue;
            }
            let name = match &label {
                Some(label) => format!("{chip} {label}"),
                None => format!("{chip} {}", channel.number),
            };
            seen.push((channel.number, identity));
            let scope = match &label {
                Some(label) if BOARD_LABELS.contains(&label.as_str()) => Scope::Board,
                _ => Scope::Rail,
            };
            match channel.open(&folder, name.clone(), scope, period) {
                Ok(found) => all.found.push(found),
                Err(reason) => all.unusable(name, reason),
            }
        }
    }
}

/// The last channel that is an input of the chip. The INA3221's driver appends the shunts of its
/// three inputs (`in4` to `in6`) and sums (`in7`, `curr4`), which are not pairs of voltage and
/// current.
fn last_input(chip: &str) -> u32 {
    if chip == "ina3221" { 3 } else { u32::MAX }
}

fn has_channels(folder: &Path) -> bool {
    !channels(folder).is_empty()
}

/// Source of a channel's power, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    /// `energyN_input`, in µJ.
    Energy,
    /// `powerN_input`, in µW.
    Power,
    /// `powerN_average`, in µW.
    AveragePower,
    /// `inN_input` in mV times `currN_input` in mA.
    VoltageAndCurrent,
}

struct Channel {
    quantity: Quantity,
    number: u32,
}

fn channels(folder: &Path) -> Vec<Channel> {
    let of = |quantity: Quantity, prefix: &str, suffix: &str| {
        let numbers = sysfs::channels(folder, prefix, suffix);
        numbers.into_iter().map(move |number| Channel { quantity, number }).collect::<Vec<_>>()
    };
    let pairs = of(Quantity::VoltageAndCurrent, "curr", "input").into_iter();
    let mut all = of(Quantity::Energy, "energy", "input");
    all.extend(of(Quantity::Power, "power", "input"));
    all.extend(of(Quantity::AveragePower, "power", "average"));
    all.extend(pairs.filter(|channel| folder.join(channel.voltage()).exists()));
    all
}

impl Channel {
    /// The voltage file for this current. INA219 and its kin have the shunt as `in0` and the bus as
    /// `in1`, so number 1 is right.
    fn voltage(&self) -> String {
        format!("in{}_input", self.number)
    }

    fn label(&self, folder: &Path) -> Option<String> {
        let prefixes: &[&str] = match self.quantity {
            Quantity::Energy => &["energy"],
            Quantity::Power | Quantity::AveragePower => &["power"],
            Quantity::VoltageAndCurrent => &["in", "curr"],
        };
        let labels = prefixes.iter().map(|prefix| folder.join(format!("{prefix}{}_label", self.number)));
        labels.filter_map(|path| sysfs::text(&path).ok()).find(|label| !label.is_empty() && label != "NC")
    }

    fn is_off(&self, folder: &Path) -> bool {
        ["in", "power", "curr"].iter().any(|prefix| {
            sysfs::text(&folder.join(format!("{prefix}{}_enable", self.number))).is_ok_and(|text| text == "0")
        })
    }

    fn open(&self, folder: &Path, name: String, scope: Scope, period: Duration) -> Result<Found, String> {
        let number = self.number;
        let file = |name: String| folder.join(name);
        let mut source: Source = match self.quantity {
            Quantity::Energy => {
                let path = file(format!("energy{number}_input"));
                let last_uj = sysfs::count(&path)?;
                let meter =
                    Box::new(Energy { name, scope, path, last_uj, read_at: Instant::now(), joules: 0.0 });
                return Ok(Found { meter, period: ENERGY_PERIOD, note: None });
            }
            Quantity::Power => micro(file(format!("power{number}_input"))),
            Quantity::AveragePower => micro(file(format!("power{number}_average"))),
            Quantity::VoltageAndCurrent => {
                let (volts, amperes) = (file(self.voltage()), file(format!("curr{number}_input")));
                Box::new(move || {
                    let (volts, amperes) = (sysfs::number(&volts)?, sysfs::number(&amperes)?);
                    Ok(volts as f64 * 1e-3 * amperes as f64 * 1e-3)
                })
            }
        };
        let watts = source()?;
        let note = match self.quantity {
            Quantity::VoltageAndCurrent => "voltage and current are read one after the other",
            _ => "as good as the shunt resistor that the driver was told of",
        };
        if watts < 0.0 {
            return Err(format!(
                "it says {watts} W: its shunt is wired the other way round, or it feeds back"
            ));
        }
        let meter = Sampler::spawn(name, scope, Kind::Measured, period, source);
        Ok(Found { meter: Box::new(meter), period, note: Some(note.into()) })
    }
}

fn micro(path: PathBuf) -> Source {
    Box::new(move || Ok(sysfs::number(&path)? as f64 * 1e-6))
}

/// A driver's counter of microjoules, which does not wrap.
struct Energy {
    name: String,
    scope: Scope,
    path: PathBuf,
    last_uj: u64,
    read_at: Instant,
    joules: f64,
}

impl Meter for Energy {
    fn name(&self) -> &str {
        &self.name
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn kind(&self) -> Kind {
        Kind::Measured
    }

    fn energy(&mut self) -> Result<Joules, MeterError> {
        let joules = sysfs::count(&self.path).and_then(|now_uj| {
            let last_uj = std::mem::replace(&mut self.last_uj, now_uj);
            let added = now_uj.checked_sub(last_uj);
            let added = added.ok_or_else(|| format!("the counter fell from {last_uj} µJ to {now_uj} µJ"))?;
            let seconds = std::mem::replace(&mut self.read_at, Instant::now()).elapsed().as_secs_f64();
            // For times below a second allow one second: the counter moves in steps.
            let added = added as f64 * 1e-6;
            if added > MAX_WATTS * seconds.max(1.0) {
                return Err(format!("the counter rose by {added:.1} J in {seconds:.3} s"));
            }
            self.joules += added;
            Ok(self.joules)
        });
        joules.map(Joules).map_err(|reason| MeterError { meter: self.name.clone(), reason })
    }
}
