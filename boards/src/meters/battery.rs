//! The battery of a laptop or a phone: the power of the whole device while nothing charges it.

use super::{Discovered, Found, Sampler};
use crate::sysfs;
use pith_meter::{Kind, Scope};
use std::path::Path;
use std::time::Duration;

/// Battery gauges measure about once a second; many repeat a value for longer.
const PERIOD: Duration = Duration::from_secs(1);

pub(super) fn discover(root: &Path, all: &mut Discovered) {
    for folder in sysfs::folders(&root.join("sys/class/power_supply")) {
        if sysfs::text(&folder.join("type")).ok().as_deref() != Some("Battery") {
            continue;
        }
        // Batteries of mice and keyboards do not power this machine.
        if sysfs::text(&folder.join("scope")).ok().as_deref() == Some("Device") {
            continue;
        }
        let name =
            folder.file_name().map_or("battery".into(), |name| format!("battery {}", name.to_string_lossy()));
        if let Err(reason) = watts(&folder) {
            all.unusable(name, reason);
            continue;
        }
        let source = Box::new(move || watts(&folder));
        let meter = Sampler::spawn(name, Scope::Board, Kind::Measured, PERIOD, source);
        let note = "the whole device, its screen and radio with it; many gauges renew their value more seldom than once a second";
        all.found.push(Found { meter: Box::new(meter), period: PERIOD, note: Some(note.into()) });
    }
}

/// Power drawn from the battery now, in watts.
///
/// Drivers disagree about the sign of the current. `status` must be `Discharging`, and the sign is
/// then ignored.
fn watts(folder: &Path) -> Result<f64, String> {
    let status = sysfs::text(&folder.join("status"))?;
    if status != "Discharging" {
        return Err(format!("the battery says \"{status}\"; pull the plug to measure by it"));
    }
    let micro = |name: &str| sysfs::number(&folder.join(name)).map(|value| (value as f64 * 1e-6).abs());
    let watts = if folder.join("power_now").exists() {
        micro("power_now")?
    } else {
        micro("current_now")? * micro("voltage_now")?
    };
    // A running device draws more than a tenth of a watt; some phones report mA instead of µA.
    match watts {
        0.1..=1000.0 => Ok(watts),
        _ => Err(format!("{} says {watts} W while it discharges, expected 0.1 to 1000 W", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn battery(files: &[(&str, &str)]) -> Result<f64, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        watts(folder.path())
    }

    #[test]
    fn power_or_current_and_voltage_of_either_sign() {
        assert_eq!(battery(&[("status", "Discharging\n"), ("power_now", "7500000\n")]), Ok(7.5));
        let phone =
            |current| [("status", "Discharging"), ("current_now", current), ("voltage_now", "4000000")];
        assert!((battery(&phone("-500000")).unwrap() - 2.0).abs() < 1e-12);
        assert!((battery(&phone("500000")).unwrap() - 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_battery_that_charges_says_nothing_of_what_is_drawn() {
        for status in ["Charging", "Full", "Not charging", "Unknown"] {
            let message = battery(&[("status", status), ("power_now", "7500000")]).unwrap_err();
            assert!(message.contains(status) && message.contains("pull the plug"), "{message}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        let said = |power| battery(&[("status", "Discharging"), ("power_now", power)]).unwrap_err();
        assert!(said("lots").contains("lots"));
        assert!(said("0").contains("0 W"));
        // 5 A in mA.
        let milli = [("status", "Discharging"), ("current_now", "5000"), ("voltage_now", "4000000")];
        assert!(battery(&milli).unwrap_err().contains("0.02 W"));
        assert!(said("9223372036854775807").contains("expected"));
        assert!(
            battery(&[("status", "Discharging"), ("current_now", "1000")])
                .unwrap_err()
                .contains("voltage_now")
        );
    }
}
