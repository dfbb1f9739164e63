//! The sequence of a measurement: rest, warm-up, windows in turns, rest.

use crate::error::BenchError;
use crate::time::Time;
use pith_boards::EnergyModel;
use pith_boards::counters::TrafficCounter;
use pith_boards::meters::{Found, ModelMeter, PowerLog};
use pith_meter::{Joules, Kind, Scope, Traffic};
use std::time::Duration;

/// A window or a rest holds at least this many values of the slowest sensor, so at most a hundredth
/// of it is lost at its two ends.
pub const LEAST_PERIODS: f64 = 100.0;

/// Windows of each of the two rests. Their spread tells how well the power at rest is known.
pub const RESTS: u32 = 5;

/// Shortest window where no sensor needs a longer one.
pub(crate) const LEAST_WINDOW: Duration = Duration::from_secs(2);

/// Runs of each variant before its windows: processors and power supplies need a few to settle.
const WARMUPS: usize = 3;

/// Interval between checks for throttling in a window; there is one more check at its end.
const LOOK_SECONDS: f64 = 0.1;

/// Plan of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Warm-up runs of each variant.
    pub warmups: usize,
    /// Windows of each variant.
    pub windows: usize,
    /// Length of a window: runs are repeated until it is over.
    pub window: Duration,
    /// Length of the rests before and after.
    pub idle: Duration,
}

/// The work of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Number of tokens.
    pub tokens: usize,
    /// Counted bytes.
    pub traffic: Traffic,
}

/// A unit of measurement: one phase of one model with one set of options.
pub trait Variant {
    /// Name for reports.
    fn name(&self) -> String;

    /// Does the work once.
    fn run(&mut self) -> Result<Work, Box<dyn std::error::Error + Send + Sync>>;
}

/// A stretch of time and the work done in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Start, in seconds of the clock.
    pub start: f64,
    /// End, in seconds of the clock.
    pub end: f64,
    /// The work done.
    pub work: Work,
    /// Energy, one per meter; or the reason why it is missing.
    pub joules: Vec<Result<Joules, String>>,
    /// Bytes to and from memory, one per counter; or the reason why they are missing.
    pub measured_bytes: Vec<Result<u64, String>>,
    /// Whether the machine was throttled; `None` if unknown.
    pub throttled: Option<bool>,
}

/// A meter of the measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct MeterInfo {
    /// Its name.
    pub name: String,
    /// Its scope.
    pub scope: Scope,
    /// The kind of its figures.
    pub kind: Kind,
    /// Its period in seconds.
    pub period_seconds: f64,
}

/// All results of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The meters, in the order of each window's figures.
    pub meters: Vec<MeterInfo>,
    /// Names of the counters of memory traffic, in the order of each window's figures.
    pub counters: Vec<String>,
    /// Rest before, in [`RESTS`] windows.
    pub idle_before: Vec<Window>,
    /// Rest after, in [`RESTS`] windows.
    pub idle_after: Vec<Window>,
    /// Names of the variants and their windows. The i-th windows of all variants were taken in
    /// turns.
    pub variants: Vec<(String, Vec<Window>)>,
}

impl Plan {
    /// A plan of `windows` windows. Each has the wanted length, or a longer one where sensors with
    /// these `periods` need it; rests are as long as a window unless given.
    pub fn for_sensors(
        periods: impl IntoIterator<Item = Duration>,
        windows: usize,
        window: Option<Duration>,
        idle: Option<Duration>,
    ) -> Self {
        let window = window.unwrap_or_else(|| Self::window_for(periods, LEAST_WINDOW));
        Self { warmups: WARMUPS, windows, window, idle: idle.unwrap_or(window) }
    }

    /// Estimated duration in seconds for `variants` variants, without warm-ups.
    pub fn seconds(&self, variants: usize) -> f64 {
        self.window.as_secs_f64() * (self.windows * variants) as f64 + 2.0 * self.idle.as_secs_f64()
    }

    /// A window long enough for the slowest of these sensors, at least `least`.
    pub fn window_for(periods: impl IntoIterator<Item = Duration>, least: Duration) -> Duration {
        periods.into_iter().map(|period| period.mul_f64(LEAST_PERIODS)).fold(least, Duration::max)
    }

    /// Measures `variants`.
    ///
    /// Rests; warms up every variant; takes a window of each, repeatedly, in reverse order every
    /// other time; rests.
    pub fn measure(
        &self,
        variants: &mut [&mut dyn Variant],
        instruments: Instruments<'_>,
    ) -> Result<Record, BenchError> {
        let mut bench = instruments;
        let meters: Vec<MeterInfo> = bench.meters.iter().map(MeterInfo::of).collect();
        let counters = bench.counters.iter().map(|counter| counter.name().to_string()).collect();
        self.check(&meters)?;
        bench.settle();
        let idle_before = bench.rest(self.idle);
        for variant in variants.iter_mut() {
            for _ in 0..self.warmups {
                variant.run().map_err(BenchError::Work)?;
            }
        }
        let mut windows: Vec<Vec<Window>> = vec![Vec::with_capacity(self.windows); variants.len()];
        for round in 0..self.windows {
            let mut order: Vec<usize> = (0..variants.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                windows[index].push(bench.window(self.window, &mut *variants[index])?);
            }
        }
        let idle_after = bench.rest(self.idle);
        let names = variants.iter().map(|variant| variant.name());
        Ok(Record { meters, counters, idle_before, idle_after, variants: names.zip(windows).collect() })
    }

    /// Refuses windows that are too short for a sensor.
    pub fn check(&self, meters: &[MeterInfo]) -> Result<(), BenchError> {
        if self.windows == 0 {
            return Err(BenchError::Nothing { what: "the number of windows" });
        }
        for meter in meters {
            let least_seconds = meter.period_seconds * LEAST_PERIODS;
            let window_seconds = self.window.min(self.idle).as_secs_f64();
            // Tolerates rounding in the sum of milliseconds.
            if window_seconds < least_seconds * (1.0 - 1e-9) {
                return Err(BenchError::Window {
                    meter: meter.name.clone(),
                    period_seconds: meter.period_seconds,
                    window_seconds,
                    least_seconds,
                });
            }
        }
        Ok(())
    }
}

/// The instruments of a measurement.
pub struct Instruments<'a> {
    /// Energy meters.
    pub meters: &'a mut [Found],
    /// Counters of memory traffic that have passed the gate.
    pub counters: &'a mut [Box<dyn TrafficCounter>],
    /// The clock.
    pub time: &'a mut dyn Time,
    /// Returns whether the machine was throttled since the last call; `None` if unknown.
    pub throttled: &'a mut dyn FnMut() -> Option<bool>,
}

impl MeterInfo {
    fn of(found: &Found) -> Self {
        Self {
            name: found.meter.name().to_string(),
            scope: found.meter.scope(),
            kind: found.meter.kind(),
            period_seconds: found.period.as_secs_f64(),
        }
    }
}

impl Instruments<'_> {
    /// Gives newly opened sensors the time for a first value.
    fn settle(&mut self) {
        if self.energies().iter().any(Result::is_err) {
            let slowest = self.meters.iter().map(|found| found.period).max().unwrap_or_default();
            self.time.rest(slowest * 2);
        }
    }

    fn rest(&mut self, duration: Duration) -> Vec<Window> {
        let one = |_| {
            let begin = self.begin();
            self.time.rest(duration / RESTS);
            let elapsed = Duration::from_secs_f64((self.time.now() - begin.start).max(0.0));
            self.observe(elapsed, &Traffic::default());
            self.end(begin, Work::default(), None)
        };
        (0..RESTS).map(one).collect()
    }

    fn window(&mut self, duration: Duration, variant: &mut dyn Variant) -> Result<Window, BenchError> {
        let begin = self.begin();
        let mut work = Work::default();
        let mut last = begin.start;
        let (mut throttled, mut looked) = (None, begin.start);
        while last - begin.start < duration.as_secs_f64() {
            let done = variant.run().map_err(BenchError::Work)?;
            let now = self.time.now();
            if now <= last {
                return Err(BenchError::Clock { before_seconds: last, after_seconds: now });
            }
            self.observe(Duration::from_secs_f64(now - last), &done.traffic);
            work.tokens += done.tokens;
            work.traffic += done.traffic;
            last = now;
            // Flags of the moment may be gone by the end of the window.
            if now - looked >= LOOK_SECONDS {
                (throttled, looked) = (either(throttled, (self.throttled)()), now);
            }
        }
        Ok(self.end(begin, work, throttled))
    }

    fn begin(&mut self) -> Begin {
        (self.throttled)();
        let (joules, bytes) = (self.base_lines(), self.counts());
        Begin { start: self.time.now(), joules, bytes }
    }

    /// `throttled`: the result of the checks since the window began.
    fn end(&mut self, begin: Begin, work: Work, throttled: Option<bool>) -> Window {
        let end = self.time.now();
        let pairs = self.energies().into_iter().zip(begin.joules);
        let joules = pairs.map(|(after, before)| Ok(after? - before?)).collect();
        let pairs = self.counts().into_iter().zip(begin.bytes);
        let measured_bytes = pairs
            .map(|(after, before)| {
                let (after, before) = (after?, before?);
                after.checked_sub(before).ok_or_else(|| format!("the count fell from {before} to {after}"))
            })
            .collect();
        let throttled = either(throttled, (self.throttled)());
        Window { start: begin.start, end, work, joules, measured_bytes, throttled }
    }

    /// Baseline figures. A meter reports a gap once, and a gap before a window does not concern it,
    /// so a failed reading is repeated.
    fn base_lines(&mut self) -> Vec<Result<Joules, String>> {
        let meters = self.meters.iter_mut().map(|found| &mut found.meter);
        let figures = meters.map(|meter| meter.energy().or_else(|_| meter.energy()));
        figures.map(|figure| figure.map_err(|error| error.reason)).collect()
    }

    fn counts(&mut self) -> Vec<Result<u64, String>> {
        self.counters.iter_mut().map(|counter| counter.bytes()).collect()
    }

    fn energies(&mut self) -> Vec<Result<Joules, String>> {
        let figures = self.meters.iter_mut().map(|found| found.meter.energy());
        figures.map(|figure| figure.map_err(|error| error.reason)).collect()
    }

    fn observe(&mut self, elapsed: Duration, traffic: &Traffic) {
        self.meters.iter_mut().for_each(|found| found.meter.observe(elapsed, traffic));
    }
}

/// Combines the results of two checks.
fn either(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    one.into_iter().chain(other).reduce(|one, other| one || other)
}

/// Readings of the instruments at the start of a window.
struct Begin {
    start: f64,
    joules: Vec<Result<Joules, String>>,
    bytes: Vec<Result<u64, String>>,
}

impl Record {
    /// Adds the modelled energy of each window, from its time, bytes and operations.
    /// `operations_per_token`: one per variant. A model with a coefficient for operations gives no
    /// figure where they are unknown; a model that does not tell work from rest gives none for
    /// rests.
    pub fn add_model(&mut self, model: &EnergyModel, operations_per_token: &[Option<f64>]) {
        let info =
            MeterInfo { name: "model".into(), scope: model.scope, kind: Kind::Modelled, period_seconds: 0.0 };
        self.meters.push(info);
        let needed = model.joules_per_operation.is_some_and(|estimate| estimate.value() > 0.0);
        let joules = |window: &Window, operations: Option<f64>| {
            let operations = match operations {
                None if needed => {
                    return Err("the model counts operations, and these are not known".to_string());
                }
                operations => operations.unwrap_or(0.0) * window.work.tokens as f64,
            };
            let bytes = ModelMeter::memory_bytes(&window.work.traffic);
            Ok(model.joules(bytes, operations as u64, window.end - window.start))
        };
        for (index, (_, windows)) in self.variants.iter_mut().enumerate() {
            let operations = operations_per_token.get(index).copied().flatten();
            for window in windows {
                let figure = joules(window, operations);
                window.joules.push(figure);
            }
        }
        for window in self.idle_before.iter_mut().chain(&mut self.idle_after) {
            let figure = match model.tells_work_from_rest() {
                true => joules(window, Some(0.0)),
                false => Err("the model has one power for rest and work".into()),
            };
            window.joules.push(figure);
        }
    }

    /// Adds the log of an external meter; its times are those of the record's clock.
    pub fn add_log(
        &mut self,
        name: &str,
        scope: Scope,
        log: &PowerLog,
        plan: &Plan,
    ) -> Result<(), BenchError> {
        let period_seconds = log.period_seconds();
        let info = MeterInfo { name: name.into(), scope, kind: Kind::Measured, period_seconds };
        plan.check(std::slice::from_ref(&info))?;
        self.meters.push(info);
        let windows = self.variants.iter_mut().flat_map(|(_, windows)| windows);
        for window in windows.chain(&mut self.idle_before).chain(&mut self.idle_after) {
            window.joules.push(log.energy(window.start, window.end));
        }
        Ok(())
    }
}
