//! The cores, the big ones among them, and the best number of threads for a model.

mod choose;
mod quota;

pub use choose::{Choice, Wanted};
pub use quota::cpu_quota_below;

use crate::cpu::processor_names;
use crate::error::MachineError;
use crate::sysfs::read;
use serde::Serialize;
use std::path::Path;
use std::str::FromStr;

/// Highest CPU number: kernels are built for at most 8192.
const MAX_CPU: usize = 8191;

/// One logical core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// The kernel's number.
    pub index: usize,
    /// The vendor's name for its kind.
    pub name: Option<String>,
    /// Capacity relative to the biggest core, which has 1024, as the kernel counts it.
    pub capacity: Option<u64>,
    /// Highest frequency by design, in Hz.
    pub max_hz: Option<u64>,
    /// Highest frequency allowed at present, in Hz.
    pub allowed_hz: Option<u64>,
    /// Present frequency as the kernel reports it, in Hz.
    pub current_hz: Option<u64>,
    /// The first logical core on the same hardware; itself if it shares none.
    pub first_sibling: usize,
}

/// All online cores, and the limits of this process.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cores {
    /// The cores, by number.
    pub cpus: Vec<Cpu>,
    /// Numbers of cores that are offline.
    pub offline: Vec<usize>,
    /// CPUs that this process may use; `None` if the system does not tell.
    pub allowed: Option<Vec<usize>>,
    /// Cores' worth of time that the control groups allow; `None` without a limit.
    pub quota_cpus: Option<f64>,
    /// Files with impossible content.
    pub notes: Vec<String>,
}

/// Cores of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CoreClass {
    /// The vendor's name for them.
    pub name: Option<String>,
    /// Capacity of one, relative to the biggest core's 1024.
    pub capacity: Option<u64>,
    /// Highest frequency by design, in Hz.
    pub max_hz: Option<u64>,
    /// Their numbers.
    pub cpus: Vec<usize>,
    /// Whether they count as big.
    pub big: bool,
}

impl Cores {
    /// The machine with `/proc` and `/sys` below `root`.
    ///
    /// Fails if a file exists but cannot be read. A file with nonsense gives no figure but a note.
    pub fn read(root: &Path) -> Result<Self, MachineError> {
        let folder = root.join("sys/devices/system/cpu");
        let mut notes = Vec::new();
        let mut cpu_list = |path: std::path::PathBuf| -> Result<Option<Vec<usize>>, MachineError> {
            let Some(text) = read(&path)? else { return Ok(None) };
            match parse_cpu_list(text.trim()) {
                Ok(list) => Ok(Some(list)),
                Err(_) if text.trim().is_empty() => Ok(Some(Vec::new())),
                Err(reason) => {
                    notes.push(format!("{}: {reason}", path.display()));
                    Ok(None)
                }
            }
        };
        let names = processor_names(root)?;
        let online = cpu_list(folder.join("online"))?.filter(|list| !list.is_empty());
        let online = match online {
            Some(online) => online,
            None => match cpu_list(folder.join("present"))?.filter(|list| !list.is_empty()) {
                Some(present) => present,
                None => names.iter().map(|(index, _)| *index).collect(),
            },
        };
        let offline = cpu_list(folder.join("offline"))?.unwrap_or_default();
        let mut cores = Self { offline, notes, ..Self::default() };
        for &index in &online {
            let cpu = cores.read_cpu(root, index, &names)?;
            cores.cpus.push(cpu);
        }
        let status = root.join("proc/self/status");
        if let Some(text) = read(&status)?
            && let Some(list) = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        {
            match parse_cpu_list(list.trim()) {
                Ok(list) => cores.allowed = Some(list),
                Err(reason) => cores.notes.push(format!("{}: {reason}", status.display())),
            }
        }
        cores.quota_cpus = quota::quota(root, &mut cores.notes)?;
        Ok(cores)
    }

    fn read_cpu(
        &mut self,
        root: &Path,
        index: usize,
        names: &[(usize, String)],
    ) -> Result<Cpu, MachineError> {
        let folder = root.join(format!("sys/devices/system/cpu/cpu{index}"));
        let mut number =
            |name: &str, least: u64, most: u64, factor: u64| -> Result<Option<u64>, MachineError> {
                let path = folder.join(name);
                let Some(text) = read(&path)? else { return Ok(None) };
                match u64::from_str(text.trim()) {
                    Ok(number) if (least..=most).contains(&number) => Ok(Some(number * factor)),
                    _ => {
                        let (path, found) = (path.display(), text.trim());
                        self.notes.push(format!("{path}: found \"{found}\", expected {least} to {most}"));
                        Ok(None)
                    }
                }
            };
        let mut kilohertz = |name: &str| number(&format!("cpufreq/{name}"), 1_000, 20_000_000, 1_000);
        let max_hz = kilohertz("cpuinfo_max_freq")?;
        let allowed_hz = kilohertz("scaling_max_freq")?;
        let current_hz = kilohertz("scaling_cur_freq")?;
        let capacity = number("cpu_capacity", 1, 1024, 1)?;
        let siblings = match read(&folder.join("topology/core_cpus_list"))? {
            Some(text) => Some(text),
            None => read(&folder.join("topology/thread_siblings_list"))?,
        };
        let siblings = siblings.and_then(|text| parse_cpu_list(text.trim()).ok());
        // A list of siblings must contain the core itself.
        let siblings = siblings.filter(|list| list.contains(&index)).unwrap_or_else(|| vec![index]);
        Ok(Cpu {
            index,
            name: names.iter().find(|(other, _)| *other == index).map(|(_, name)| name.clone()),
            capacity,
            max_hz,
            allowed_hz,
            current_hz,
            first_sibling: siblings[0],
        })
    }

    /// Kinds of core, by name, capacity and frequency, ordered by their first numbers.
    pub fn classes(&self) -> Vec<CoreClass> {
        let big = self.big(&self.cpus.iter().collect::<Vec<_>>());
        let mut classes: Vec<CoreClass> = Vec::new();
        for cpu in &self.cpus {
            let same = |class: &&mut CoreClass| {
                (&class.name, class.capacity, class.max_hz) == (&cpu.name, cpu.capacity, cpu.max_hz)
            };
            match classes.iter_mut().find(same) {
                Some(class) => class.cpus.push(cpu.index),
                None => classes.push(CoreClass {
                    name: cpu.name.clone(),
                    capacity: cpu.capacity,
                    max_hz: cpu.max_hz,
                    cpus: vec![cpu.index],
                    big: big.contains(&cpu.index),
                }),
            }
        }
        classes
    }
}

/// Numbers of CPUs from a list such as `0-3,6`, sorted and unique. The error explains the fault.
pub fn parse_cpu_list(text: &str) -> Result<Vec<usize>, String> {
    let wrong = |part: &str| format!("\"{part}\" in \"{text}\" is not a CPU or a range such as 0-3");
    let mut list = Vec::new();
    for part in text.split(',') {
        let number = |text: &str| usize::from_str(text.trim()).map_err(|_| wrong(part));
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("the range \"{part}\" in \"{text}\" is turned round"));
        }
        if last > MAX_CPU {
            return Err(format!("\"{part}\" in \"{text}\" is beyond {MAX_CPU}"));
        }
        list.extend(first..=last);
    }
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

/// Numbers of CPUs, which must be sorted, as a list such as `0-3,6`.
pub fn cpu_list(cpus: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match parts.last_mut() {
            Some(part) if part.1 + 1 == cpu => part.1 = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let part = |&(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read_and_written() {
        assert_eq!(parse_cpu_list("0-3,6").unwrap(), [0, 1, 2, 3, 6]);
        assert_eq!(parse_cpu_list("6, 2-3,2").unwrap(), [2, 3, 6]);
        assert_eq!(cpu_list(&[0, 1, 2, 3, 6, 8, 9]), "0-3,6,8-9");
        assert_eq!(cpu_list(&[]), "");
        for wrong in ["", "x", "1-", "-1", "1,,2", "0-18446744073709551615", "99999999999999999999", "0-9999"]
        {
            let message = parse_cpu_list(wrong).unwrap_err();
            assert!(message.contains(wrong), "{message}");
        }
        assert!(parse_cpu_list("3-1").unwrap_err().contains("turned round"));
    }
}
