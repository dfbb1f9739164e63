//! Perf events, as the kernel describes them under `/sys/bus/event_source/devices`.

use crate::sysfs;
use std::path::Path;

/// One event to count.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Name of the unit and of the event.
    pub name: String,
    /// The unit's number.
    pub unit: u32,
    /// `config`, `config1`, `config2`.
    pub config: [u64; 3],
    /// Processors to count on, for a unit of the whole machine; empty for a unit that counts per
    /// process.
    pub cpus: Vec<usize>,
    /// Bytes per count, if the kernel states them.
    pub bytes_per_count: Option<f64>,
}

impl Event {
    /// An event that the unit in the folder `unit` names.
    pub fn named(unit: &Path, event: &str) -> Result<Self, String> {
        let path = unit.join("events").join(event);
        let text = sysfs::text(&path)?;
        let mut terms = Vec::new();
        for term in text.split(',') {
            let (name, value) = term.trim().split_once('=').unwrap_or((term.trim(), "1"));
            let value = value.trim();
            let number = match value.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => value.parse().ok(),
            };
            let number =
                number.ok_or_else(|| format!("{}: found \"{term}\", expected a number", path.display()))?;
            terms.push((name, number));
        }
        Ok(Self { bytes_per_count: bytes_per_count(unit, event), ..Self::of_terms(unit, event, &terms)? })
    }

    /// An event given by its fields, for units without named events.
    pub fn of_terms(unit: &Path, name: &str, terms: &[(&str, u64)]) -> Result<Self, String> {
        let number = sysfs::count(&unit.join("type"))?;
        let number =
            u32::try_from(number).map_err(|_| format!("{} has the type {number}", unit.display()))?;
        let mut config = [0; 3];
        for &(field, value) in terms {
            place(unit, field, value, &mut config)?;
        }
        let folder = unit.file_name().map_or("?".into(), |name| name.to_string_lossy());
        let cpus = match sysfs::text(&unit.join("cpumask")) {
            Ok(list) => cpu_list(&list)
                .ok_or_else(|| format!("{}: found the processors \"{list}\"", unit.display()))?,
            Err(_) => Vec::new(),
        };
        Ok(Self { name: format!("{folder}/{name}"), unit: number, config, cpus, bytes_per_count: None })
    }
}

/// Puts `value` into the bits of a field of the unit's format, such as `config:0-7,32-35`, lowest
/// bits first.
fn place(unit: &Path, field: &str, value: u64, config: &mut [u64; 3]) -> Result<(), String> {
    let path = unit.join("format").join(field);
    let format = sysfs::text(&path)?;
    let wrong = || format!("{}: found \"{format}\", expected bits such as config:0-7", path.display());
    let (word, ranges) = format.split_once(':').ok_or_else(wrong)?;
    let word = match word {
        "config" => &mut config[0],
        "config1" => &mut config[1],
        "config2" => &mut config[2],
        _ => return Err(wrong()),
    };
    let mut left = value;
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) =
            (first.trim().parse().map_err(|_| wrong())?, last.trim().parse().map_err(|_| wrong())?);
        if first > last || last > 63 {
            return Err(wrong());
        }
        for bit in first..=last {
            *word |= (left & 1) << bit;
            left >>= 1;
        }
    }
    if left == 0 { Ok(()) } else { Err(format!("{value:#x} does not fit into {field} ({format})")) }
}

/// Bytes per count from `EVENT.scale` and `EVENT.unit`. The kernel writes MB where it means MiB.
fn bytes_per_count(unit: &Path, event: &str) -> Option<f64> {
    let scale: f64 = sysfs::text(&unit.join(format!("events/{event}.scale"))).ok()?.parse().ok()?;
    let bytes = match sysfs::text(&unit.join(format!("events/{event}.unit"))).ok()?.as_str() {
        "MiB" | "MB" => f64::from(1 << 20),
        "KiB" | "KB" => 1024.0,
        "Bytes" | "B" => 1.0,
        _ => return None,
    };
    Some(scale * bytes).filter(|bytes| bytes.is_finite() && *bytes > 0.0)
}

/// The processors of a list such as `0,4-6`.
fn cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 1 << 16 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn unit(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn a_memory_controller_says_what_it_counts() {
        let imc = unit(&[
            ("type", "13\n"),
            ("cpumask", "0,18\n"),
            ("format/event", "config:0-7\n"),
            ("format/umask", "config:8-15\n"),
            ("events/cas_count_read", "event=0x04,umask=0x03\n"),
            ("events/cas_count_read.scale", "6.103515625e-5\n"),
            ("events/cas_count_read.unit", "MiB\n"),
        ]);
        let event = Event::named(imc.path(), "cas_count_read").unwrap();
        assert_eq!((event.unit, event.config, event.cpus), (13, [0x304, 0, 0], vec![0, 18]));
        assert_eq!(event.bytes_per_count, Some(64.0));
    }

    #[test]
    fn fields_that_are_cut_in_parts_are_put_together() {
        let df = unit(&[
            ("type", "14"),
            ("format/event", "config:0-7,32-35,59-60"),
            ("format/rdwrmask", "config1:8-9"),
            ("format/wrong", "config9:1"),
        ]);
        let event = Event::of_terms(df.path(), "x", &[("event", 0x1147), ("rdwrmask", 2)]).unwrap();
        assert_eq!(event.config, [0x47 | 1 << 32 | 1 << 59, 2 << 8, 0]);
        assert!(event.cpus.is_empty() && event.bytes_per_count.is_none());
        assert!(Event::of_terms(df.path(), "x", &[("event", 1 << 20)]).unwrap_err().contains("does not fit"));
        assert!(Event::of_terms(df.path(), "x", &[("wrong", 1)]).unwrap_err().contains("config9:1"));
        assert!(Event::of_terms(df.path(), "x", &[("umask", 1)]).unwrap_err().contains("format/umask"));
    }
}
