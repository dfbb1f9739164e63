//! Calibration of a machine's energy model: runs loads of known size in turns, reads a meter around
//! each, and fits the model.

use crate::error::BenchError;
use crate::protocol::{LEAST_WINDOW, Plan};
use crate::time::Time;
use pith_boards::energy_fit::{Fit, Observation, fit};
use pith_boards::meters::Found;
use pith_boards::{EnergyModel, Streamer};
use pith_kernels::probe::int8_peak;
use pith_meter::Scope;
use pith_meter::statistics::Interval;
use std::time::Duration;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// No work.
    Idle,
    /// Reading memory on this number of threads.
    Read(usize),
    /// Multiplying numbers in registers on this number of threads.
    Multiply(usize),
}

/// The work done by a load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Done {
    /// Bytes read from memory.
    pub bytes: u64,
    /// Number of multiplications and additions.
    pub operations: f64,
}

/// Runs loads. Tests supply a simulated machine.
pub trait Loads {
    /// Whether [`Load::Multiply`] is supported.
    fn can_multiply(&self) -> bool;

    /// Reads memory on `threads` threads for about `duration`.
    fn read(&mut self, threads: usize, duration: Duration) -> Done;

    /// Multiplies on `threads` threads for about `duration`.
    fn multiply(&mut self, threads: usize, duration: Duration) -> Done;
}

/// This machine, with a buffer to read.
pub struct MachineLoads(Streamer);

impl MachineLoads {
    /// A buffer of `buffer_bytes` bytes; see [`probe_bytes`](crate::probe_bytes).
    pub fn new(buffer_bytes: usize) -> Self {
        Self(Streamer::new(buffer_bytes))
    }
}

impl Loads for MachineLoads {
    fn can_multiply(&self) -> bool {
        int8_peak(1, Duration::from_millis(1)).is_some()
    }

    fn read(&mut self, threads: usize, duration: Duration) -> Done {
        Done { bytes: self.0.read_for(threads, duration).0, operations: 0.0 }
    }

    fn multiply(&mut self, threads: usize, duration: Duration) -> Done {
        let rate = int8_peak(threads, duration).map_or(0.0, |peak| peak.ops_per_s);
        Done { bytes: 0, operations: rate * duration.as_secs_f64() }
    }
}

impl Load {
    /// Loads for a machine with `threads` usable cores: rest, reading on one thread, on half of
    /// them and on all; if `multiplies`, also multiplying on one and on all.
    pub fn all(threads: usize, multiplies: bool) -> Vec<Self> {
        let mut counts = vec![1, threads.div_ceil(2), threads];
        counts.dedup();
        let mut loads = vec![Self::Idle];
        loads.extend(counts.iter().map(|&count| Self::Read(count)));
        if multiplies {
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

    fn run(self, machine: &mut dyn Loads, time: &mut dyn Time, duration: Duration) -> Done {
        match self {
            Self::Idle => {
                time.rest(duration);
                Done::default()
            }
            Self::Read(threads) => machine.read(threads, duration),
            Self::Multiply(threads) => machine.multiply(threads, duration),
        }
    }
}

/// Plan of a calibration.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationPlan {
    /// Loads, done in turns.
    pub loads: Vec<Load>,
    /// Repetitions of each load.
    pub rounds: usize,
    /// Length of a window.
    pub window: Duration,
}

/// Results of a meter.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The meter.
    pub meter: String,
    /// One per window with a figure, divided by the window's seconds: the errors of sensors are in
    /// watts.
    pub observations: Vec<Observation>,
    /// The reasons of windows without a figure.
    pub missing: Vec<String>,
    /// Watts at rest.
    pub idle_watts: Option<Interval>,
    /// The fit.
    pub fit: Fit,
    /// The energy model from the fit.
    pub model: EnergyModel,
}

impl CalibrationPlan {
    /// A plan with windows of the given length, or longer if the meter needs it. An error where the
    /// meter gives too few values in a window.
    pub fn new(
        found: &Found,
        loads: Vec<Load>,
        rounds: usize,
        window: Option<Duration>,
    ) -> Result<Self, BenchError> {
        if rounds == 0 {
            return Err(BenchError::Nothing { what: "the number of rounds" });
        }
        let least = Plan::window_for([found.period], Duration::ZERO);
        let window = window.unwrap_or(least.max(LEAST_WINDOW));
        if window < least {
            return Err(BenchError::Window {
                meter: found.meter.name().into(),
                period_seconds: found.period.as_secs_f64(),
                window_seconds: window.as_secs_f64(),
                least_seconds: least.as_secs_f64(),
            });
        }
        Ok(Self { loads, rounds, window })
    }

    /// Estimated duration in seconds.
    pub fn seconds(&self) -> f64 {
        self.window.as_secs_f64() * (self.rounds * self.loads.len()) as f64
    }

    /// Runs every load in turns, reads `found` around each, and fits a model. `idle_watts`: watts
    /// at rest, if known; otherwise they are fitted. `progress` receives the round and the load.
    pub fn run(
        &self,
        found: &mut Found,
        idle_watts: Option<f64>,
        machine: &mut dyn Loads,
        time: &mut dyn Time,
        progress: impl FnMut(usize, &str),
    ) -> Result<Calibration, BenchError> {
        let (observations, missing) = self.observe(found, machine, time, progress);
        let fit = fit(&observations, idle_watts)?;
        let meter = found.meter.name().to_string();
        let model = fit.model(found.meter.scope(), &format!("by the meter \"{meter}\""));
        let model = model.map_err(BenchError::Model)?;
        let idle = observations.iter().filter(|seen| seen.label == Load::Idle.name());
        let idle_watts = Interval::of(&idle.map(|seen| seen.joules / seen.seconds).collect::<Vec<_>>());
        Ok(Calibration { meter, observations, missing, idle_watts, fit, model })
    }

    fn observe(
        &self,
        found: &mut Found,
        machine: &mut dyn Loads,
        time: &mut dyn Time,
        mut progress: impl FnMut(usize, &str),
    ) -> (Vec<Observation>, Vec<String>) {
        if found.meter.energy().is_err() {
            time.rest(found.period * 2);
        }
        let (mut observations, mut missing) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            for load in &self.loads {
                let label = load.name();
                progress(round, &label);
                // A meter reports a gap once, on its next reading. A gap before this window does
                // not concern it.
                let before = found.meter.energy().or_else(|_| found.meter.energy());
                let started = time.now();
                let Done { bytes, operations } = load.run(machine, time, self.window);
                let seconds = time.now() - started;
                match (before, found.meter.energy()) {
                    (Ok(before), Ok(after)) => observations.push(Observation {
                        label,
                        bytes: bytes as f64 / seconds,
                        operations: Some(operations / seconds),
                        seconds: 1.0,
                        joules: (after - before).0 / seconds,
                    }),
                    (Err(error), _) | (_, Err(error)) => missing.push(format!("{label}: {}", error.reason)),
                }
            }
        }
        (observations, missing)
    }
}

/// The meter with the largest scope; the first of equals.
pub fn widest(found: &[Found]) -> Option<usize> {
    let width = |scope: Scope| match scope {
        Scope::Wall => 3,
        Scope::Board => 2,
        Scope::Package => 1,
        Scope::Rail => 0,
    };
    (0..found.len()).rev().max_by_key(|&index| width(found[index].meter.scope()))
}
