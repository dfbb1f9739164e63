//! RAPL through the kernel's perf events, for users who may not read the powercap files.

use super::{Discovered, Found, rapl};
use crate::counters::{Event, PerfCount};
use crate::sysfs;
use pith_meter::{Joules, Kind, Meter, MeterError, Scope};
use std::path::Path;

const EVENTS: [(&str, Scope); 3] =
    [("energy-pkg", Scope::Package), ("energy-psys", Scope::Board), ("energy-ram", Scope::Rail)];

/// `has_package`: powercap already gives the package, and perf would repeat it.
pub(super) fn discover(root: &Path, has_package: bool, all: &mut Discovered) {
    if has_package {
        return;
    }
    let unit = root.join("sys/bus/event_source/devices/power");
    for (event, scope) in EVENTS {
        if !unit.join("events").join(event).exists() {
            continue;
        }
        let name = format!("rapl {event} (perf)");
        match open(&unit, event) {
            Ok((count, joules_per_count)) => {
                let meter = Box::new(Energy { name, scope, count, joules_per_count });
                all.found.push(Found { meter, period: rapl::PERIOD, note: None });
            }
            Err(reason) => all.unusable(name, reason),
        }
    }
}

fn open(unit: &Path, event: &str) -> Result<(PerfCount, f64), String> {
    let said = sysfs::text(&unit.join(format!("events/{event}.unit")))?;
    if said != "Joules" {
        return Err(format!("{event} counts \"{said}\", expected Joules"));
    }
    let scale = sysfs::text(&unit.join(format!("events/{event}.scale")))?;
    let joules_per_count = scale.parse::<f64>().ok().filter(|scale| scale.is_finite() && *scale > 0.0);
    let joules_per_count = joules_per_count
        .ok_or_else(|| format!("{event} has the scale \"{scale}\", expected a number above 0"))?;
    Ok((PerfCount::open(&[Event::named(unit, event)?])?, joules_per_count))
}

struct Energy {
    name: String,
    scope: Scope,
    count: PerfCount,
    joules_per_count: f64,
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
        let count = self.count.read().map_err(|reason| MeterError { meter: self.name.clone(), reason })?;
        Ok(Joules(count as f64 * self.joules_per_count))
    }
}
