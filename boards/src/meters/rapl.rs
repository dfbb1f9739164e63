//! RAPL: the processor's own energy counters, through the system's powercap files.
//!
//! Domains are nested: `psys`, if present, contains the package, which contains the cores. Each
//! useful domain is a meter of its own, and none are added. Cores and graphics are parts of the
//! package and left out.

use super::{Discovered, Found};
use crate::sysfs;
use pith_meter::{Joules, Kind, Meter, MeterError, Scope};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The counters advance once a millisecond.
pub(super) const PERIOD: Duration = Duration::from_millis(1);
/// Above any processor's power: a counter that could have wrapped unseen at this rate gives no
/// figure.
const MAX_WATTS: f64 = 500.0;

/// Returns whether a package could be read.
pub(super) fn discover(root: &Path, all: &mut Discovered) -> bool {
    let mut domains: Vec<Domain> = Vec::new();
    let mut zones = sysfs::folders(&root.join("sys/class/powercap"));
    // Registers of the processor come before those on its memory bus, which repeat them.
    zones.sort_by_key(|zone| zone.to_string_lossy().contains("-mmio"));
    for zone in zones {
        if !zone.join("energy_uj").exists() {
            continue;
        }
        let Ok(name) = sysfs::text(&zone.join("name")) else { continue };
        if scope(&name).is_none() {
            continue;
        }
        let domain = Domain { parent: parent(&zone), name, counter: Counter::open(&zone) };
        match domains.iter_mut().find(|known| known.name == domain.name && known.parent == domain.parent) {
            Some(known) if known.counter.is_err() && domain.counter.is_ok() => *known = domain,
            Some(_) => {}
            None => domains.push(domain),
        }
    }
    let mut package = false;
    let names: Vec<String> = domains.iter().map(|domain| domain.name.clone()).collect();
    for Domain { parent, name, counter } in domains {
        let scope = scope(&name).expect("only domains with a scope are kept");
        let is_alone = names.iter().filter(|other| **other == name).count() == 1;
        let name = match parent {
            Some(parent) if !is_alone => format!("rapl {name} of {parent}"),
            _ => format!("rapl {name}"),
        };
        match counter {
            Ok(counter) => {
                package |= scope == Scope::Package;
                let note = match scope {
                    Scope::Package => "the processor's package; memory, disk and screen are not in it",
                    Scope::Board => {
                        "what the firmware calls the platform; what that covers, differs by maker"
                    }
                    _ => "memory as the processor estimates or measures it",
                };
                let meter = Box::new(Rapl { name, scope, counter, read_at: Instant::now() });
                all.found.push(Found { meter, period: PERIOD, note: Some(note.into()) });
            }
            Err(reason) => all.unusable(name, reason),
        }
    }
    package
}

/// A useful powercap zone.
struct Domain {
    /// Name of the parent zone: every socket has a domain `dram`.
    parent: Option<String>,
    name: String,
    counter: Result<Counter, String>,
}

/// Name of the parent of `zone`, whose folder name is a prefix: `intel-rapl:1` for
/// `intel-rapl:1:0`.
fn parent(zone: &Path) -> Option<String> {
    let (folder, _) = zone.file_name()?.to_str()?.rsplit_once(':')?;
    let is_zone = folder.contains(':');
    is_zone.then(|| sysfs::text(&zone.with_file_name(folder).join("name")).unwrap_or_else(|_| folder.into()))
}

fn scope(domain: &str) -> Option<Scope> {
    match domain {
        "psys" => Some(Scope::Board),
        "dram" => Some(Scope::Rail),
        _ if domain.starts_with("package") => Some(Scope::Package),
        _ => None,
    }
}

struct Rapl {
    name: String,
    scope: Scope,
    counter: Counter,
    read_at: Instant,
}

/// A counter that wraps.
struct Counter {
    path: PathBuf,
    unwrapped: Unwrapped,
}

/// The running sum of a wrapping counter of microjoules.
#[derive(Debug)]
struct Unwrapped {
    range_uj: Option<u64>,
    last_uj: u64,
    joules: f64,
}

impl Counter {
    fn open(zone: &Path) -> Result<Self, String> {
        let path = zone.join("energy_uj");
        let last_uj = sysfs::count(&path).map_err(for_all_zones)?;
        let range_uj = sysfs::count(&zone.join("max_energy_range_uj")).ok().filter(|&range| range > 0);
        Ok(Self { path, unwrapped: Unwrapped { range_uj, last_uj, joules: 0.0 } })
    }
}

/// One command that opens the counters of all zones, not one command per zone.
fn for_all_zones(reason: String) -> String {
    match reason.split_once("sudo chmod a+r ") {
        Some((begin, _)) => format!("{begin}sudo chmod a+r /sys/class/powercap/*/energy_uj"),
        None => reason,
    }
}

impl Unwrapped {
    /// Advances to `now_uj`, read `seconds` after the last reading.
    fn advance(&mut self, now_uj: u64, seconds: f64) -> Result<f64, String> {
        let (last, range) = (std::mem::replace(&mut self.last_uj, now_uj), self.range_uj);
        if let Some(range) = range
            && seconds * MAX_WATTS * 1e6 > range as f64
        {
            return Err(format!(
                "not read for {seconds:.0} s, in which the counter may have come round unseen"
            ));
        }
        let added_uj = match (now_uj.checked_sub(last), range) {
            (Some(added), _) => added,
            (None, Some(range)) if last <= range => range - last + now_uj,
            (None, _) => {
                return Err(format!("the counter fell from {last} µJ to {now_uj} µJ and has no range"));
            }
        };
        // For times below a second allow one second: the counter moves in steps.
        let added = added_uj as f64 * 1e-6;
        if added > MAX_WATTS * seconds.max(1.0) {
            return Err(format!("the counter rose by {added:.1} J in {seconds:.3} s"));
        }
        self.joules += added;
        Ok(self.joules)
    }
}

impl Meter for Rapl {
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
        let joules = sysfs::count(&self.counter.path).and_then(|now_uj| {
            let seconds = self.read_at.elapsed().as_secs_f64();
            self.read_at = Instant::now();
            self.counter.unwrapped.advance(now_uj, seconds)
        });
        joules.map(Joules).map_err(|reason| MeterError { meter: self.name.clone(), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn a_closed_counter_names_the_command_that_opens_all() {
        let path = Path::new("/sys/class/powercap/intel-rapl:0/energy_uj");
        let closed = for_all_zones(sysfs::refusal(path, &Error::from(ErrorKind::PermissionDenied)));
        assert!(closed.starts_with("/sys/class/powercap/intel-rapl:0/energy_uj may not be read"), "{closed}");
        assert!(closed.ends_with("with: sudo chmod a+r /sys/class/powercap/*/energy_uj"), "{closed}");
        let gone = sysfs::refusal(path, &Error::from(ErrorKind::NotFound));
        assert_eq!(for_all_zones(gone.clone()), gone);
    }

    #[test]
    fn a_counter_that_comes_round_gives_the_energy_of_the_load() {
        // 15 W for 20,000 s with one reading a second, over a range of 65.5 kJ: four wraps.
        let range = 65_532_610_987u64;
        let mut counter = Unwrapped { range_uj: Some(range), last_uj: range - 7, joules: 0.0 };
        let (mut raw, mut joules) = (range - 7, 0.0);
        for _ in 0..20_000 {
            raw = (raw + 15_000_000) % range;
            joules = counter.advance(raw, 1.0).unwrap();
        }
        assert!((joules - 300_000.0).abs() < 1.0, "{joules}");
    }

    #[test]
    fn what_cannot_be_known_is_not_made_up() {
        let mut counter = Unwrapped { range_uj: Some(65_000_000_000), last_uj: 5, joules: 0.0 };
        assert!(counter.advance(10, 600.0).unwrap_err().contains("600 s"));
        assert_eq!(counter.advance(1_000_010, 1.0), Ok(1.0), "and then goes on");
        assert!(counter.advance(900_000_000, 0.5).unwrap_err().contains("rose"));
        let mut counter = Unwrapped { range_uj: None, last_uj: 50, joules: 0.0 };
        assert!(counter.advance(49, 1.0).unwrap_err().contains("fell from 50"));
    }
}
