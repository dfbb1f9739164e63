//! Core time allowed by the control groups.

use crate::error::MachineError;
use crate::sysfs::read;
use std::path::Path;

/// Cores' worth of time that the tightest control group leaves this process, on the machine with
/// `/proc` and `/sys` below `root`. `None` without a limit, or if it cannot be parsed.
pub fn cpu_quota_below(root: &Path) -> Result<Option<f64>, MachineError> {
    quota(root, &mut Vec::new())
}

pub(super) fn quota(root: &Path, notes: &mut Vec<String>) -> Result<Option<f64>, MachineError> {
    let Some(groups) = read(&root.join("proc/self/cgroup"))? else { return Ok(None) };
    let mut least: Option<f64> = None;
    for line in groups.lines() {
        // `0::/a/b` is version 2, `4:cpu,cpuacct:/a/b` version 1.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let version_1 = !controllers.is_empty();
        if version_1 && !controllers.split(',').any(|name| name == "cpu") {
            continue;
        }
        let mounts = ["cpu", controllers];
        let mounts = if version_1 { &mounts[..] } else { &[""][..] };
        // In a container the group's own path may be missing; then the mount's root is the
        // container's group.
        for mount in mounts {
            for group in Path::new(group.trim_start_matches('/')).ancestors() {
                let folder = root.join("sys/fs/cgroup").join(mount).join(group);
                let left =
                    if version_1 { version_1_of(&folder, notes)? } else { version_2_of(&folder, notes)? };
                least = least.into_iter().chain(left).min_by(f64::total_cmp);
            }
        }
    }
    Ok(least)
}

/// `cpu.max`: quota or `max`, and period, in microseconds.
fn version_2_of(folder: &Path, notes: &mut Vec<String>) -> Result<Option<f64>, MachineError> {
    let path = folder.join("cpu.max");
    let Some(text) = read(&path)? else { return Ok(None) };
    let mut words = text.split_whitespace();
    let (quota, period) = (words.next().unwrap_or_default(), words.next().unwrap_or("100000"));
    if quota == "max" {
        return Ok(None);
    }
    Ok(share(quota, period).or_else(|| {
        notes.push(format!("{}: found \"{}\", expected quota and period", path.display(), text.trim()));
        None
    }))
}

/// `cpu.cfs_quota_us`, −1 for none, over `cpu.cfs_period_us`.
fn version_1_of(folder: &Path, notes: &mut Vec<String>) -> Result<Option<f64>, MachineError> {
    let path = folder.join("cpu.cfs_quota_us");
    let Some(quota) = read(&path)? else { return Ok(None) };
    let period = read(&folder.join("cpu.cfs_period_us"))?.unwrap_or_else(|| "100000".into());
    if quota.trim() == "-1" {
        return Ok(None);
    }
    Ok(share(quota.trim(), period.trim()).or_else(|| {
        let (quota, period) = (quota.trim(), period.trim());
        notes.push(format!("{}: found \"{quota}\" of a period \"{period}\"", path.display()));
        None
    }))
}

fn share(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota_of(files: &[(&str, &str)]) -> (Option<f64>, Vec<String>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut notes = Vec::new();
        (quota(root.path(), &mut notes).unwrap(), notes)
    }

    #[test]
    fn the_tightest_group_of_version_2_counts() {
        let groups = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/cpu.max", "250000 100000\n"),
        ];
        assert_eq!(quota_of(&groups), (Some(2.5), vec![]));
        let container = [("proc/self/cgroup", "0::/docker/1\n"), ("sys/fs/cgroup/cpu.max", "50000 100000\n")];
        assert_eq!(quota_of(&container).0, Some(0.5));
    }

    #[test]
    fn version_1_is_read_under_both_names() {
        for mount in ["cpu", "cpu,cpuacct"] {
            let quota_file = format!("sys/fs/cgroup/{mount}/x/cpu.cfs_quota_us");
            let period_file = format!("sys/fs/cgroup/{mount}/x/cpu.cfs_period_us");
            let root_file = format!("sys/fs/cgroup/{mount}/cpu.cfs_quota_us");
            let groups = [
                ("proc/self/cgroup", "4:cpu,cpuacct:/x\n3:cpuset:/\n"),
                (&quota_file[..], "300000\n"),
                (&period_file[..], "100000\n"),
                (&root_file[..], "-1\n"),
            ];
            assert_eq!(quota_of(&groups), (Some(3.0), vec![]), "{mount}");
        }
    }

    #[test]
    fn nonsense_is_no_limit_and_a_note() {
        for nonsense in ["", "much\n", "-5 100000\n", "100000 0\n", "0 100000\n", "99999999999999999999 1\n"]
        {
            let (quota, notes) =
                quota_of(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", nonsense)]);
            assert_eq!(quota, None, "{nonsense:?}");
            assert!(notes[0].contains("cpu.max"), "{notes:?}");
        }
        assert_eq!(quota_of(&[]), (None, vec![]));
    }
}
