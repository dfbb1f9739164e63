//! Work of known size to calibrate by: rest, reading, multiplying.

use super::fit::Observation;
use crate::bandwidth::Streamer;
use crate::error::MeasureError;
use crate::meters::Found;
use pith_kernels::probe::int8_peak;
use pith_meter::statistics::Interval;
use std::time::{Duration, Instant};

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing.
    Idle,
    /// So many threads read memory.
    Read(usize),
    /// So many threads multiply numbers that are in registers.
    Multiply(usize),
}

impl Load {
    /// Loads for a machine with so many cores to use: rest, reading with one thread, half of them and all, and
    /// multiplying with one and all where the kernels have a loop for this processor.
    pub fn all(threads: usize) -> Vec<Self> {
        let mut counts = vec![1, threads.div_ceil(2), threads];
        counts.dedup();
        let mut loads = vec![Self::Idle];
        loads.extend(counts.iter().map(|&count| Self::Read(count)));
        if int8_peak(1, Duration::from_millis(1)).is_some() {
            counts.retain(|count| *count == 1 || *count == threads);
            loads.extend(counts.into_iter().map(Self::Multiply));
        }
        loads
    }

    /// Name for reports.
    pub fn name(self) -> String {
        match self {
            Self::Idle => "idle".into(),
            Self::Read(1) => "read, 1 thread".into(),
            Self::Read(threads) => format!("read, {threads} threads"),
            Self::Multiply(1) => "multiply, 1 thread".into(),
            Self::Multiply(threads) => format!("multiply, {threads} threads"),
        }
    }

    /// Does it for `duration`; returns bytes and operations.
    fn run(self, streamer: &Streamer, duration: Duration) -> (u64, f64) {
        match self {
            Self::Idle => {
                std::thread::sleep(duration);
                (0, 0.0)
            }
            Self::Read(threads) => (streamer.read_for(threads, duration).0, 0.0),
            Self::Multiply(threads) => {
                let rate = int8_peak(threads, duration).map_or(0.0, |peak| peak.ops_per_s);
                (0, rate * duration.as_secs_f64())
            }
        }
    }
}

/// Does every load `rounds` times in turns, each for `window`, and reads `found` around each.
///
/// Every observation is divided by its seconds: sensors err in watts. A window without a figure is left out; the reasons are
/// returned beside the observations.
pub fn observe(
    found: &mut Found,
    loads: &[Load],
    rounds: usize,
    window: Duration,
    buffer_bytes: usize,
    mut progress: impl FnMut(usize, &str),
) -> Result<(Vec<Observation>, Vec<String>), MeasureError> {
    let streamer = Streamer::new(buffer_bytes);
    if found.meter.energy().is_err() {
        std::thread::sleep(found.period * 2);
    }
    let (mut observations, mut missing) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for load in loads {
            progress(round, &load.name());
            // A meter tells once that it has missed something; what it missed before this window is not of it.
            let before = found.meter.energy().or_else(|_| found.meter.energy());
            let started = Instant::now();
            let (bytes, operations) = load.run(&streamer, window);
            let seconds = started.elapsed().as_secs_f64();
            match (before, found.meter.energy()) {
                (Ok(before), Ok(after)) => observations.push(Observation {
                    label: load.name(),
                    bytes: bytes as f64 / seconds,
                    operations: Some(operations / seconds),
                    seconds: 1.0,
                    joules: (after - before).0 / seconds,
                }),
                (Err(error), _) | (_, Err(error)) => {
                    missing.push(format!("{}: {}", load.name(), error.reason))
                }
            }
        }
    }
    Ok((observations, missing))
}

/// Watts at rest, over the windows in which nothing was done.
pub fn idle_watts(observations: &[Observation]) -> Option<Interval> {
    let idle = observations.iter().filter(|seen| seen.label == Load::Idle.name());
    Interval::of(&idle.map(|seen| seen.joules / seen.seconds).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_meter::{Joules, Kind, Meter, MeterError, Scope};

    /// A watt, from the clock.
    struct OneWatt(Instant);

    impl Meter for OneWatt {
        fn name(&self) -> &str {
            "one watt"
        }

        fn scope(&self) -> Scope {
            Scope::Board
        }

        fn kind(&self) -> Kind {
            Kind::Measured
        }

        fn energy(&mut self) -> Result<Joules, MeterError> {
            Ok(Joules(self.0.elapsed().as_secs_f64()))
        }
    }

    #[test]
    fn loads_do_what_they_say_and_the_meter_sees_their_time() {
        let meter = Box::new(OneWatt(Instant::now()));
        let mut found = Found { meter, period: Duration::ZERO, note: None };
        let loads = Load::all(2);
        let window = Duration::from_millis(20);
        let (observations, missing) = observe(&mut found, &loads, 2, window, 1 << 20, |_, _| {}).unwrap();
        assert!(missing.is_empty() && observations.len() == 2 * loads.len());
        for seen in &observations {
            assert!((seen.joules - 1.0).abs() < 0.2, "{seen:?}");
            assert_eq!(seen.bytes > 0.0, seen.label.starts_with("read"), "{seen:?}");
            assert_eq!(seen.operations.unwrap() > 0.0, seen.label.starts_with("multiply"), "{seen:?}");
        }
        let idle = idle_watts(&observations).unwrap();
        assert!(idle.count == 2 && (idle.mean - 1.0).abs() < 0.2, "{idle:?}");
    }

    /// A watt, from the clock; of every three figures the second is missing.
    struct Forgetful(OneWatt, usize);

    impl Meter for Forgetful {
        fn name(&self) -> &str {
            "forgetful"
        }

        fn scope(&self) -> Scope {
            Scope::Board
        }

        fn kind(&self) -> Kind {
            Kind::Measured
        }

        fn energy(&mut self) -> Result<Joules, MeterError> {
            self.1 += 1;
            match self.1 {
                // The first is asked for before all windows; then every window asks at its start.
                count if count % 3 == 2 => {
                    Err(MeterError { meter: "forgetful".into(), reason: "no sample for a while".into() })
                }
                _ => self.0.energy(),
            }
        }
    }

    #[test]
    fn what_a_meter_missed_before_a_window_costs_no_observation() {
        let meter = Box::new(Forgetful(OneWatt(Instant::now()), 0));
        let mut found = Found { meter, period: Duration::ZERO, note: None };
        let window = Duration::from_millis(5);
        let (observations, missing) =
            observe(&mut found, &[Load::Idle], 3, window, 1 << 20, |_, _| {}).unwrap();
        assert_eq!((observations.len(), missing), (3, vec![]));
    }

    #[test]
    fn loads_are_named_once_each() {
        assert_eq!(Load::all(1)[..2], [Load::Idle, Load::Read(1)]);
        let reads: Vec<Load> =
            Load::all(8).into_iter().filter(|load| matches!(load, Load::Read(_))).collect();
        assert_eq!(reads, [Load::Read(1), Load::Read(4), Load::Read(8)]);
    }
}
