//! Memory still available to a process.

use crate::error::MachineError;
use crate::sysfs::read;
use std::path::{Path, PathBuf};

/// Memory this process may still take: the system's available memory, or the remainder of the
/// tightest control group's limit, whichever is less. `None` if the system does not report it.
pub fn available_memory() -> Result<Option<u64>, MachineError> {
    available_memory_below(Path::new("/"))
}

/// [`available_memory`] of the machine whose `/proc` and `/sys` lie below `root`.
pub fn available_memory_below(root: &Path) -> Result<Option<u64>, MachineError> {
    let system = meminfo(root, "MemAvailable:")?;
    let group = group_memory(root)?;
    Ok(system.into_iter().chain(group).min())
}

/// A line of `/proc/meminfo`, in bytes.
pub(crate) fn meminfo(root: &Path, name: &str) -> Result<Option<u64>, MachineError> {
    kilobytes(root.join("proc/meminfo"), name)
}

/// The first line of a file that begins with `name` and gives kB, in bytes.
pub(crate) fn kilobytes(path: PathBuf, name: &str) -> Result<Option<u64>, MachineError> {
    let Some(text) = read(&path)? else { return Ok(None) };
    let Some(line) = text.lines().find_map(|line| line.strip_prefix(name)) else { return Ok(None) };
    let kibibytes = line.trim().strip_suffix("kB").and_then(|count| count.trim().parse::<u64>().ok());
    match kibibytes.and_then(|count| count.checked_mul(1024)) {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(MachineError::Value { path, found: line.trim().to_string(), expected: "a number of kB" }),
    }
}

/// Memory left by the tightest control group of this process.
fn group_memory(root: &Path) -> Result<Option<u64>, MachineError> {
    let Some(groups) = read(&root.join("proc/self/cgroup"))? else { return Ok(None) };
    let mut least = None;
    for line in groups.lines() {
        // `0::/a/b` is version 2, `4:memory:/a/b` version 1.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let version = match controllers {
            "" => &VERSION_2,
            _ if controllers.split(',').any(|name| name == "memory") => &VERSION_1,
            _ => continue,
        };
        // In a container the group's own path may be missing; then the mount's root is the
        // container's group.
        for group in Path::new(group.trim_start_matches('/')).ancestors() {
            let left = version.left(&root.join(version.mount).join(group))?;
            least = least.into_iter().chain(left).min();
        }
    }
    Ok(least)
}

/// File names of one version of control groups.
struct Version {
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// Lines of `memory.stat` with file pages, which the system gives back under pressure.
    caches: [&'static str; 2],
}

const VERSION_1: Version = Version {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    caches: ["total_active_file ", "total_inactive_file "],
};

const VERSION_2: Version = Version {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    usage: "memory.current",
    caches: ["active_file ", "inactive_file "],
};

impl Version {
    /// Memory a group leaves; `None` without the group or a limit.
    fn left(&self, group: &Path) -> Result<Option<u64>, MachineError> {
        let Some(limit) = number(group.join(self.limit), Some("max"))? else { return Ok(None) };
        let used = number(group.join(self.usage), None)?.unwrap_or(0);
        let stat = read(&group.join("memory.stat"))?.unwrap_or_default();
        let cached: u64 = self
            .caches
            .iter()
            .filter_map(|name| stat.lines().find_map(|line| line.strip_prefix(name))?.parse::<u64>().ok())
            .sum();
        Ok(Some(limit.saturating_sub(used.saturating_sub(cached))))
    }
}

/// The number in a file; `None` if there is no file or it says `none`.
fn number(path: PathBuf, none: Option<&str>) -> Result<Option<u64>, MachineError> {
    let Some(text) = read(&path)? else { return Ok(None) };
    let text = text.trim();
    if none == Some(text) {
        return Ok(None);
    }
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(MachineError::Value { path, found: text.into(), expected: "a number of bytes" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn available(files: &[(&str, &str)]) -> Result<Option<u64>, String> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available_memory_below(root.path()).map_err(|error| error.to_string())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal: 8000 kB\nMemAvailable:   4000 kB\n");

    #[test]
    fn without_groups_the_system_says() {
        assert_eq!(available(&[MEMINFO]).unwrap(), Some(4000 * 1024));
        assert_eq!(available(&[]).unwrap(), None);
        assert_eq!(available(&[("proc/meminfo", "MemTotal: 8000 kB\n")]).unwrap(), None);
    }

    #[test]
    fn the_tightest_group_of_version_2_counts() {
        let groups = [
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "1000000\n"),
            ("sys/fs/cgroup/a/memory.current", "600000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\nactive_file 100000\ninactive_file 50000\n"),
        ];
        assert_eq!(available(&groups).unwrap(), Some(1_000_000 - 600_000 + 150_000));
    }

    #[test]
    fn version_1_and_its_hybrid_are_read() {
        let groups = [
            MEMINFO,
            ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/x\n0::/\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2000000\n"),
            ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "500000\n"),
            ("sys/fs/cgroup/memory/x/memory.stat", "total_active_file 20000\ntotal_inactive_file 1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(available(&groups).unwrap(), Some(2_000_000 - 500_000 + 20_001));
    }

    #[test]
    fn a_container_sees_its_limit_at_the_root_of_the_mount() {
        let groups = [
            MEMINFO,
            ("proc/self/cgroup", "0::/docker/0123\n"),
            ("sys/fs/cgroup/memory.max", "300000"),
            ("sys/fs/cgroup/memory.current", "900000"),
        ];
        assert_eq!(available(&groups).unwrap(), Some(0), "more than allowed is used");
    }

    #[test]
    fn nonsense_is_named_with_its_file() {
        let message =
            available(&[("proc/self/cgroup", "0::/"), ("sys/fs/cgroup/memory.max", "lots")]).unwrap_err();
        assert!(message.contains("memory.max") && message.contains("lots"), "{message}");
    }
}
