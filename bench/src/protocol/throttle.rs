//! Detection of throttling during a measurement.

use pith_boards::Watch;
use std::path::Path;

/// Watches for throttling by heat or a weak supply: a [`Watch`] that is polled.
pub struct ThrottleWatch(Watch);

impl ThrottleWatch {
    /// Watches the machine whose `/sys` lies below `root`.
    pub fn new(root: &Path) -> Self {
        Self(Watch::begin(root))
    }

    /// Whether the machine is throttled now, or was since the last call; `None` where its files do
    /// not tell. A flag that the firmware keeps set counts once.
    pub fn throttled(&mut self) -> Option<bool> {
        self.0.finish().throttled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn flags_of_now_and_new_ones_since_the_start_count() {
        let root = tempfile::tempdir().unwrap();
        let path = "sys/devices/platform/soc/soc:firmware/get_throttled";
        let set = |flags: &str| write(root.path(), path, flags);
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
        assert_eq!(watch.throttled(), Some(false), "which is news once");
    }

    #[test]
    fn a_device_that_cools_the_processor_counts() {
        let root = tempfile::tempdir().unwrap();
        let device = "sys/class/thermal/cooling_device0";
        write(root.path(), &format!("{device}/type"), "cpufreq-cpu0\n");
        write(root.path(), &format!("{device}/cur_state"), "0\n");
        let mut watch = ThrottleWatch::new(root.path());
        assert_eq!(watch.throttled(), Some(false));
        write(root.path(), &format!("{device}/cur_state"), "2\n");
        assert_eq!((watch.throttled(), watch.throttled()), (Some(true), Some(true)));
    }

    #[test]
    fn counts_that_rise_count_behind_a_cooling_device_for_every_core() {
        let root = tempfile::tempdir().unwrap();
        let count = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count";
        write(root.path(), count, "7");
        for index in 0..32 {
            let device = format!("sys/class/thermal/cooling_device{index}");
            write(root.path(), &format!("{device}/type"), "Processor\n");
            write(root.path(), &format!("{device}/cur_state"), "0\n");
        }
        let mut watch = ThrottleWatch::new(root.path());
        assert_eq!(watch.throttled(), Some(false));
        write(root.path(), count, "8");
        assert_eq!((watch.throttled(), watch.throttled()), (Some(true), Some(false)));
        assert_eq!(ThrottleWatch::new(Path::new("/nowhere")).throttled(), None);
    }
}
