//! Whether the machine was slowed down meanwhile.

use crate::meters::sysfs;
use std::path::{Path, PathBuf};

/// Where a Raspberry Pi's firmware says what slows it: bits 0 to 3 now, 16 to 19 since the start.
const FIRMWARE: [&str; 2] = [
    "sys/devices/platform/soc/soc:firmware/get_throttled",
    "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled",
];
const NOW: u64 = 0xf;
const SINCE_START: u64 = 0xf_0000;

/// Watches for a machine that slows itself because of heat or a weak supply.
pub struct ThrottleWatch {
    firmware: Option<PathBuf>,
    counts: Vec<PathBuf>,
    last_flags: Option<u64>,
    last_count: Option<u64>,
}

impl ThrottleWatch {
    /// Watches the machine whose `/sys` lies below `root`.
    pub fn new(root: &Path) -> Self {
        let mut counts = Vec::new();
        for cpu in sysfs::folders(&root.join("sys/devices/system/cpu")) {
            for name in ["core_throttle_count", "package_throttle_count"] {
                let path = cpu.join("thermal_throttle").join(name);
                if path.exists() {
                    counts.push(path);
                }
            }
        }
        let firmware = FIRMWARE.iter().map(|path| root.join(path)).find(|path| path.exists());
        let mut watch = Self { firmware, counts, last_flags: None, last_count: None };
        watch.throttled();
        watch
    }

    /// Whether the machine is slowed down now or was since the last call; `None` where nothing tells.
    pub fn throttled(&mut self) -> Option<bool> {
        let flags = self.firmware.as_ref().and_then(|path| flags(path));
        let by_flags = flags.map(|flags| {
            let newly = self.last_flags.map_or(0, |last| flags & !last & SINCE_START);
            flags & NOW != 0 || newly != 0
        });
        let count: Option<u64> = (!self.counts.is_empty())
            .then(|| self.counts.iter().map(|path| sysfs::count(path).ok()).sum::<Option<u64>>())
            .flatten();
        let by_count = count.map(|count| self.last_count.is_some_and(|last| count > last));
        (self.last_flags, self.last_count) = (flags.or(self.last_flags), count.or(self.last_count));
        match (by_flags, by_count) {
            (None, None) => None,
            (flags, count) => Some(flags.unwrap_or(false) || count.unwrap_or(false)),
        }
    }
}

fn flags(path: &Path) -> Option<u64> {
    let text = sysfs::text(path).ok()?;
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn flags_of_now_and_new_ones_since_the_start_count() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(FIRMWARE[0]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let set = |flags: &str| fs::write(&path, flags).unwrap();
        set("50000\n");
        let mut watch = ThrottleWatch::new(root.path());
        assert_eq!(watch.throttled(), Some(false), "what was before does not count");
        set("d0008");
        assert_eq!(watch.throttled(), Some(true));
        set("d0000");
        assert_eq!(watch.throttled(), Some(false));
        set("nonsense");
        assert_eq!(watch.throttled(), None);
        set("f0000");
        assert_eq!(watch.throttled(), Some(true), "slowed and recovered in between");
    }

    #[test]
    fn counts_that_rise_count() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "7").unwrap();
        let mut watch = ThrottleWatch::new(root.path());
        assert_eq!(watch.throttled(), Some(false));
        fs::write(&path, "8").unwrap();
        assert_eq!((watch.throttled(), watch.throttled()), (Some(true), Some(false)));
        assert_eq!(ThrottleWatch::new(Path::new("/nowhere")).throttled(), None);
    }
}
