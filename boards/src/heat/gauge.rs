//! Heat while a model runs: few files, kept open, read at most ten times a second.

use super::files::{self, Frequency, Limit, Temperature};
use super::hottest;
use pith_meter::{Conditions, Observer};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// Figures are reused for this long.
const INTERVAL: Duration = Duration::from_millis(100);

/// Most files of a kind to read each time. A server has a hundred of each, nearly identical.
const MOST: usize = 8;

/// Reads [`Conditions`] cheaply.
pub struct Gauge {
    temperatures: Vec<Temperature>,
    frequencies: Vec<Frequency>,
    limits: Vec<(Limit, Before)>,
    last: Option<Instant>,
    conditions: Conditions,
    /// The limits that were active at the last reading.
    reasons: Vec<String>,
}

/// The last state of a limit with memory.
#[derive(Default)]
struct Before {
    count: Option<u64>,
    sticky: Option<u32>,
}

impl Gauge {
    /// Opens the files of the machine with `/sys` below `root`. Without any, all conditions are
    /// `None`.
    pub fn open(root: &Path) -> Self {
        let mut temperatures = files::temperatures(root);
        if temperatures.iter().any(|file| file.processor) {
            temperatures.retain(|file| file.processor);
        }
        temperatures.truncate(MOST);
        let mut frequencies = files::frequencies(root);
        // A phone's clusters are listed from the slowest: keep the last.
        let surplus = frequencies.len().saturating_sub(MOST);
        frequencies.drain(..surplus);
        let mut limits: Vec<(Limit, Before)> = Vec::new();
        for limit in files::limits(root) {
            // Limited per kind: a PC has one cooling device per core, and its counts come later.
            if limits.iter().filter(|(kept, _)| kept.kind() == limit.kind()).count() < MOST {
                limits.push((limit, Before::default()));
            }
        }
        let mut gauge = Self {
            temperatures,
            frequencies,
            limits,
            last: None,
            conditions: Conditions::default(),
            reasons: Vec::new(),
        };
        gauge.look();
        gauge
    }

    /// The machine's state, at most a tenth of a second old.
    pub fn conditions(&mut self) -> Conditions {
        self.conditions_at(Instant::now())
    }

    fn conditions_at(&mut self, now: Instant) -> Conditions {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL) {
            self.look();
        }
        self.conditions
    }

    fn look(&mut self) {
        let temperatures: Vec<(f64, bool)> = self
            .temperatures
            .iter_mut()
            .filter_map(|file| Some((file.celsius().ok()?, file.processor)))
            .collect();
        let mut told = false;
        self.reasons.clear();
        for (limit, before) in &mut self.limits {
            let Ok(state) = limit.read() else { continue };
            told |= limit.tells(&state) || state.count.is_some();
            self.reasons.extend(state.now);
            if let (Some(count), Some(old)) = (state.count, before.count)
                && count > old
            {
                self.reasons.extend(state.since_boot.iter().map(|reason| format!("{reason}, now again")));
            } else if before.sticky.is_some_and(|old| state.sticky & !old != 0) {
                self.reasons.extend(state.since_boot);
            }
            *before = Before { count: state.count, sticky: Some(state.sticky) };
        }
        self.conditions = Conditions {
            temperature_celsius: hottest(temperatures.iter().copied()),
            frequency_hz: self.frequencies.iter_mut().filter_map(|file| file.hz().ok()).max(),
            throttled: told.then_some(!self.reasons.is_empty()),
        };
        self.last = Some(Instant::now());
    }
}

/// Observes a stretch of work.
pub struct Watch {
    gauge: Gauge,
    stretch: Stretch,
}

/// The machine's state over a stretch of work.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stretch {
    /// Whether a reading found it throttled; `None` if no source tells.
    pub throttled: Option<bool>,
    /// The causes, each once.
    pub reasons: Vec<String>,
    /// The highest temperature read.
    pub hottest_celsius: Option<f64>,
    /// The lowest frequency read, of the fastest core at each moment.
    pub lowest_hz: Option<u64>,
}

impl Watch {
    /// Starts now, on the machine with `/sys` below `root`.
    pub fn begin(root: &Path) -> Self {
        let mut watch = Self { gauge: Gauge::open(root), stretch: Stretch::default() };
        watch.note();
        watch
    }

    /// Reads the state, unless the last reading is recent. Call it now and then.
    pub fn look(&mut self) -> Conditions {
        let last = self.gauge.last;
        let conditions = self.gauge.conditions();
        if self.gauge.last != last {
            self.note();
        }
        conditions
    }

    /// Ends the stretch with a last reading, and begins the next.
    pub fn finish(&mut self) -> Stretch {
        self.gauge.look();
        self.note();
        std::mem::take(&mut self.stretch)
    }

    fn note(&mut self) {
        let (now, stretch) = (self.gauge.conditions, &mut self.stretch);
        if let Some(throttled) = now.throttled {
            stretch.throttled = Some(throttled || stretch.throttled == Some(true));
        }
        for reason in &self.gauge.reasons {
            if !stretch.reasons.contains(reason) {
                stretch.reasons.push(reason.clone());
            }
        }
        let celsius = now.temperature_celsius.into_iter().chain(stretch.hottest_celsius);
        stretch.hottest_celsius = celsius.max_by(f64::total_cmp);
        stretch.lowest_hz = now.frequency_hz.into_iter().chain(stretch.lowest_hz).min();
    }
}

impl Stretch {
    /// One line for the user if the machine was throttled.
    pub fn warning(&self) -> Option<String> {
        let hottest =
            self.hottest_celsius.map_or(String::new(), |celsius| format!("; {celsius:.1} °C at most"));
        (self.throttled == Some(true)).then(|| format!("slowed down: {}{hottest}", self.reasons.join("; ")))
    }
}

impl Observer for Gauge {
    fn conditions(&mut self) -> Conditions {
        Gauge::conditions(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{tree, write};
    use super::*;

    const TEMPERATURE: &str = "sys/class/thermal/thermal_zone0/temp";
    const FREQUENCY: &str = "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq";
    const BITS: &str = "sys/devices/platform/soc/soc:firmware/get_throttled";

    fn pi() -> tempfile::TempDir {
        tree(&[
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            (TEMPERATURE, "50000\n"),
            (FREQUENCY, "1800000\n"),
            (BITS, "0\n"),
        ])
    }

    #[test]
    fn figures_are_kept_for_a_tenth_of_a_second() {
        let root = pi();
        let mut gauge = Gauge::open(root.path());
        let opened = gauge.last.unwrap();
        let first = gauge.conditions_at(opened);
        assert_eq!(
            first,
            Conditions {
                temperature_celsius: Some(50.0),
                frequency_hz: Some(1_800_000_000),
                throttled: Some(false)
            }
        );
        write(root.path(), TEMPERATURE, "60000\n");
        assert_eq!(gauge.conditions_at(opened + INTERVAL / 2), first);
        assert_eq!(gauge.conditions_at(opened + INTERVAL).temperature_celsius, Some(60.0));
    }

    #[test]
    fn a_stretch_that_was_slowed_down_says_so() {
        let root = pi();
        let mut watch = Watch::begin(root.path());
        assert_eq!(watch.finish().throttled, Some(false));
        write(root.path(), BITS, "80008\n");
        write(root.path(), TEMPERATURE, "71000\n");
        write(root.path(), FREQUENCY, "1200000\n");
        watch.gauge.last = Some(Instant::now() - INTERVAL);
        watch.look();
        write(root.path(), BITS, "80000\n");
        write(root.path(), TEMPERATURE, "70000\n");
        let stretch = watch.finish();
        assert_eq!(stretch.throttled, Some(true));
        assert_eq!((stretch.hottest_celsius, stretch.lowest_hz), (Some(71.0), Some(1_200_000_000)));
        let warning = stretch.warning().unwrap();
        assert!(warning.contains("soft temperature limit") && warning.contains("71.0 °C"), "{warning}");
        // A bit that stays set since boot does not blame later work.
        assert_eq!(watch.finish().throttled, Some(false));
    }

    #[test]
    fn what_happens_between_two_looks_is_found_by_counts_and_by_bits_that_stay() {
        let count = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count";
        let root = tree(&[(count, "5\n")]);
        let mut watch = Watch::begin(root.path());
        assert_eq!(watch.finish().throttled, Some(false), "the past is past");
        write(root.path(), count, "6\n");
        assert_eq!(watch.finish().throttled, Some(true));
        let root = pi();
        let mut watch = Watch::begin(root.path());
        write(root.path(), BITS, "40000\n");
        assert_eq!(watch.finish().throttled, Some(true));
    }

    #[test]
    fn files_that_vanish_or_hold_nonsense_give_nothing() {
        let root = pi();
        let mut watch = Watch::begin(root.path());
        for nonsense in ["", "-5\n", "zzz\n", "99999999999999999999999\n"] {
            for path in [TEMPERATURE, FREQUENCY, BITS] {
                write(root.path(), path, nonsense);
            }
            watch.finish();
            let stretch = watch.finish();
            // -5 thousandths of a degree are plausible.
            let celsius = (nonsense == "-5\n").then_some(-0.005);
            assert_eq!(stretch, Stretch { hottest_celsius: celsius, ..Stretch::default() }, "{nonsense:?}");
        }
        std::fs::remove_dir_all(root.path().join("sys")).unwrap();
        assert_eq!(Watch::begin(root.path()).finish(), Stretch::default());
    }
}
