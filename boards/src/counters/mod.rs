//! Counters of memory traffic, and the gate that each must pass.
//!
//! A correct counter of traffic to and from memory beats the runtime's count of touched bytes. Many
//! are wrong: they leave out prefetches, count hits of the last cache, or see one of two channels.
//! So each must first count a buffer of known size.

mod event;
mod gate;
#[cfg(target_os = "linux")]
mod perf;

pub use event::Event;
pub use gate::{Gate, gate};
#[cfg(target_os = "linux")]
pub use perf::PerfCount;

use crate::sysfs;
use crate::unusable::Unusable;
use std::path::{Path, PathBuf};

/// Bytes per miss of the last cache or per bus access.
const LINE_BYTES: f64 = 64.0;

/// A counter of bytes to and from memory.
pub trait TrafficCounter: Send {
    /// Name of its unit and events.
    fn name(&self) -> &str;

    /// Whether it counts all programs and not only this one.
    fn system_wide(&self) -> bool;

    /// Bytes since it was opened, or the reason for no figure.
    fn bytes(&mut self) -> Result<u64, String>;
}

/// A set of events that together count memory traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Name of the set.
    pub name: String,
    /// The events, or the reason they cannot be described.
    pub events: Result<Vec<Event>, String>,
    /// Bytes per count.
    pub bytes_per_count: f64,
}

impl Candidate {
    /// Whether it counts all programs.
    pub fn system_wide(&self) -> bool {
        self.events.as_ref().is_ok_and(|events| events.iter().all(|event| !event.cpus.is_empty()))
    }
}

/// Sets of events that the machine with `/sys` below `root` describes, most trustworthy first.
pub fn candidates(root: &Path) -> Vec<Candidate> {
    let units = sysfs::folders(&root.join("sys/bus/event_source/devices"));
    let named = |begin: &str| -> Vec<PathBuf> {
        let begins =
            |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin));
        units.iter().filter(begins).cloned().collect()
    };
    let mut all = Vec::new();
    // Intel's memory controllers: servers count columns, clients requests, newer clients run
    // freely.
    let imc = named("uncore_imc");
    for events in
        [["cas_count_read", "cas_count_write"], ["data_reads", "data_writes"], ["data_read", "data_write"]]
    {
        let of_unit = |unit: &PathBuf| {
            let there = events.iter().all(|event| unit.join("events").join(event).exists());
            there.then(|| events.map(|event| Event::named(unit, event)))
        };
        let found: Vec<Result<Event, String>> = imc.iter().filter_map(of_unit).flatten().collect();
        push(&mut all, format!("uncore_imc {} + {}", events[0], events[1]), found, None);
    }
    // Mainline names this unit after the memory; its driver is rockchip-dfi.
    for unit in named("rockchip_ddr") {
        push(&mut all, "rockchip-dfi bytes".into(), vec![Event::named(&unit, "bytes")], None);
    }
    // AMD names no events; the numbers come from the kernel's event tables: columns read and
    // written, and on older processors requests with data on the two channels.
    let umc = named("amd_umc")
        .into_iter()
        .map(|unit| Event::of_terms(&unit, "umc_cas_cmd.all", &[("event", 0x0a)]));
    push(&mut all, "amd_umc umc_cas_cmd.all".into(), umc.collect(), Some(LINE_BYTES));
    for unit in named("amd_df") {
        let channels = [0x07, 0x47].map(|event| {
            Event::of_terms(&unit, "dram_channel_data_controller", &[("event", event), ("umask", 0x38)])
        });
        push(&mut all, "amd_df dram_channel_data_controller_0 + 1".into(), channels.into(), Some(LINE_BYTES));
    }
    // The cores themselves.
    let cores: Vec<PathBuf> = named("armv8").into_iter().chain(named("cpu")).chain(named("armv9")).collect();
    for event in ["ll_cache_miss_rd", "l3d_cache_refill", "bus_access", "cache-misses"] {
        let there: Vec<_> = cores
            .iter()
            .filter(|unit| unit.join("events").join(event).exists())
            .map(|unit| Event::named(unit, event))
            .collect();
        push(&mut all, format!("{event} × {LINE_BYTES} B"), there, Some(LINE_BYTES));
    }
    all
}

fn push(all: &mut Vec<Candidate>, name: String, found: Vec<Result<Event, String>>, bytes: Option<f64>) {
    if found.is_empty() {
        return;
    }
    let events: Result<Vec<Event>, String> = found.into_iter().collect();
    let said = events.as_ref().ok().and_then(|events| {
        let each = events.iter().map(|event| event.bytes_per_count).collect::<Option<Vec<f64>>>()?;
        each.iter().all(|bytes| *bytes == each[0]).then_some(each[0])
    });
    match bytes.or(said) {
        Some(bytes_per_count) => all.push(Candidate { name, events, bytes_per_count }),
        None => {
            let reason =
                events.err().unwrap_or_else(|| "it does not say how many bytes a count stands for".into());
            all.push(Candidate { name, events: Err(reason), bytes_per_count: LINE_BYTES });
        }
    }
}

/// Opens every candidate of this machine. A counter that cannot be opened is listed with the
/// reason, and so is a machine without any.
pub fn open(root: &Path) -> (Vec<Box<dyn TrafficCounter>>, Vec<Unusable>) {
    let (mut usable, mut unusable) = (Vec::new(), Vec::new());
    for candidate in candidates(root) {
        match open_one(&candidate) {
            Ok(counter) => usable.push(counter),
            Err(reason) => unusable.push(Unusable { name: candidate.name, reason }),
        }
    }
    if usable.is_empty() && unusable.is_empty() {
        let reason = "no unit of this machine counts memory traffic (looked for uncore_imc, rockchip_ddr, amd_umc, \
                      amd_df and the cores' misses)";
        unusable.push(Unusable { name: "memory counters".into(), reason: reason.into() });
    }
    (usable, unusable)
}

#[cfg(target_os = "linux")]
fn open_one(candidate: &Candidate) -> Result<Box<dyn TrafficCounter>, String> {
    let events = candidate.events.as_ref().map_err(Clone::clone)?;
    let count = PerfCount::open(events)?;
    let (name, bytes_per_count) = (candidate.name.clone(), candidate.bytes_per_count);
    Ok(Box::new(PerfTraffic { name, system_wide: candidate.system_wide(), bytes_per_count, count }))
}

#[cfg(not(target_os = "linux"))]
fn open_one(_candidate: &Candidate) -> Result<Box<dyn TrafficCounter>, String> {
    Err("counted on Linux only".into())
}

#[cfg(target_os = "linux")]
struct PerfTraffic {
    name: String,
    system_wide: bool,
    bytes_per_count: f64,
    count: PerfCount,
}

#[cfg(target_os = "linux")]
impl TrafficCounter for PerfTraffic {
    fn name(&self) -> &str {
        &self.name
    }

    fn system_wide(&self) -> bool {
        self.system_wide
    }

    fn bytes(&mut self) -> Result<u64, String> {
        Ok((self.count.read()? as f64 * self.bytes_per_count) as u64)
    }
}
