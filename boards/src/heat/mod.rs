//! Temperature, core frequency and throttling.
//!
//! [`Heat::read`] reads everything once. A [`Gauge`] keeps the few relevant files open while a
//! model runs. A [`Watch`] tells whether a stretch of work was throttled.

mod files;
mod gauge;

pub use gauge::{Gauge, Stretch, Watch};

use serde::Serialize;
use std::path::Path;

/// Temperatures, frequency and throttling at one moment. An unknown value is `None`, never a guess.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Heat {
    /// The hottest of the processor's sensors, or of all sensors if none is known to be the
    /// processor's.
    pub temperature_celsius: Option<f64>,
    /// Every temperature sensor with a name and a plausible figure.
    pub zones: Vec<Zone>,
    /// The highest frequency of a core now, as the kernel reports it.
    ///
    /// On a Raspberry Pi it is the kernel's request; the firmware may give less and then reports it
    /// in [`Heat::throttle`].
    pub frequency_hz: Option<u64>,
    /// Present and past throttling.
    pub throttle: Throttle,
    /// Files with impossible content.
    pub notes: Vec<String>,
}

/// A temperature sensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Zone {
    /// The kernel's name for it.
    pub name: String,
    /// The temperature, in °C.
    pub celsius: f64,
    /// Whether its name identifies it as the processor's.
    pub processor: bool,
}

/// Causes of throttling, present and past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Throttle {
    /// Whether the machine is throttled now; `None` if no source tells.
    pub now: Option<bool>,
    /// The causes now.
    pub reasons: Vec<String>,
    /// The causes since boot.
    pub since_boot: Vec<String>,
}

impl Heat {
    /// Reads the machine with `/sys` below `root`.
    pub fn read(root: &Path) -> Self {
        let mut heat = Self::default();
        for mut file in files::temperatures(root) {
            match file.celsius() {
                Ok(celsius) => {
                    let processor = file.processor;
                    heat.zones.push(Zone { name: file.name, celsius, processor });
                }
                Err(Some(note)) => heat.notes.push(note),
                Err(None) => {}
            }
        }
        heat.temperature_celsius = hottest(heat.zones.iter().map(|zone| (zone.celsius, zone.processor)));
        for mut file in files::frequencies(root) {
            match file.hz() {
                Ok(hz) => heat.frequency_hz = heat.frequency_hz.max(Some(hz)),
                Err(Some(note)) => heat.notes.push(note),
                Err(None) => {}
            }
        }
        let mut told = false;
        for mut limit in files::limits(root) {
            match limit.read() {
                Ok(state) => {
                    told |= limit.tells(&state);
                    heat.throttle.reasons.extend(state.now);
                    heat.throttle.since_boot.extend(state.since_boot);
                }
                Err(Some(note)) => heat.notes.push(note),
                Err(None) => {}
            }
        }
        heat.throttle.now = told.then_some(!heat.throttle.reasons.is_empty());
        heat
    }
}

/// The highest of the processor's temperatures, or of all if none is the processor's.
fn hottest(temperatures: impl Iterator<Item = (f64, bool)> + Clone) -> Option<f64> {
    let highest = |wanted: &dyn Fn(bool) -> bool| {
        let some = temperatures.clone().filter(|&(_, processor)| wanted(processor));
        some.map(|(celsius, _)| celsius).max_by(f64::total_cmp)
    };
    highest(&|processor| processor).or_else(|| highest(&|_| true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    pub(super) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            write(root.path(), path, text);
        }
        root
    }

    pub(super) fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn an_empty_tree_tells_nothing() {
        assert_eq!(Heat::read(tree(&[]).path()), Heat::default());
        assert_eq!(Heat::default().throttle.now, None);
    }

    #[test]
    fn the_processors_zone_counts_before_hotter_others() {
        let root = tree(&[
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "61234\n"),
            ("sys/class/thermal/thermal_zone1/type", "charger\n"),
            ("sys/class/thermal/thermal_zone1/temp", "70000\n"),
        ]);
        let heat = Heat::read(root.path());
        assert_eq!(heat.temperature_celsius, Some(61.234));
        assert_eq!(heat.zones.len(), 2);
    }

    #[test]
    fn a_temperature_that_cannot_be_is_missing_and_noted() {
        for nonsense in ["-274000\n", "hot\n", "999999999999999999999\n", "500000\n", ""] {
            let root = tree(&[
                ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
                ("sys/class/thermal/thermal_zone0/temp", nonsense),
            ]);
            let heat = Heat::read(root.path());
            assert_eq!((heat.temperature_celsius, heat.zones.len()), (None, 0), "{nonsense:?}");
            assert!(heat.notes[0].contains("thermal_zone0/temp"), "{:?}", heat.notes);
        }
    }

    #[test]
    fn bits_of_a_raspberry_pi_are_told_apart() {
        let path = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled";
        let root = tree(&[(path, "0\n")]);
        let throttle = Heat::read(root.path()).throttle;
        assert_eq!((throttle.now, throttle.since_boot.len()), (Some(false), 0));
        write(root.path(), path, "50000\n");
        let throttle = Heat::read(root.path()).throttle;
        assert_eq!((throttle.now, throttle.since_boot.len()), (Some(false), 2));
        write(root.path(), path, "0x80008\n");
        let throttle = Heat::read(root.path()).throttle;
        assert_eq!(throttle.now, Some(true));
        assert!(throttle.reasons[0].contains("soft temperature limit"), "{:?}", throttle.reasons);
        for nonsense in ["-1\n", "fine\n", "", "fffffffffffffffffffff\n"] {
            write(root.path(), path, nonsense);
            let heat = Heat::read(root.path());
            assert_eq!(heat.throttle.now, None, "{nonsense:?}");
            assert_eq!(heat.notes.len(), 1);
        }
    }

    #[test]
    fn a_cooling_device_of_the_processor_says_that_it_is_slowed_and_a_fan_does_not() {
        let device = "sys/class/thermal/cooling_device";
        let files = |cpu: &str| {
            tree(&[
                (&format!("{device}0/type"), "pwm-fan\n"),
                (&format!("{device}0/cur_state"), "3\n"),
                (&format!("{device}1/type"), "cpufreq-cpu4\n"),
                (&format!("{device}1/cur_state"), cpu),
            ])
        };
        assert_eq!(Heat::read(files("0\n").path()).throttle.now, Some(false));
        let throttle = Heat::read(files("2\n").path()).throttle;
        assert_eq!(throttle.now, Some(true));
        assert!(throttle.reasons[0].contains("cpufreq-cpu4"), "{:?}", throttle.reasons);
        assert_eq!(Heat::read(files("much\n").path()).throttle.now, None);
    }

    #[test]
    fn what_would_not_tell_of_heat_says_nothing_by_its_silence() {
        let root = tree(&[
            ("sys/class/hwmon/hwmon1/name", "rpi_volt\n"),
            ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0\n"),
            ("sys/class/thermal/cooling_device0/type", "Processor\n"),
            ("sys/class/thermal/cooling_device0/cur_state", "0\n"),
        ]);
        assert_eq!(Heat::read(root.path()).throttle.now, None);
        assert_eq!(Watch::begin(root.path()).finish().throttled, None);
        write(root.path(), "sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n");
        assert_eq!(Heat::read(root.path()).throttle.now, Some(true));
        assert_eq!(Watch::begin(root.path()).finish().throttled, Some(true));
    }

    #[test]
    fn counts_of_an_intel_processor_are_of_the_past() {
        let root = tree(&[("sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "7\n")]);
        let throttle = Heat::read(root.path()).throttle;
        assert_eq!(throttle.now, None);
        assert!(throttle.since_boot[0].contains('7'), "{:?}", throttle.since_boot);
    }
}
