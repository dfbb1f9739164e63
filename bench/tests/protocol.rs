//! The measuring protocol with a simulated machine: noise, a slow sensor, heat.

use pith_bench::{BenchError, Figure, Instruments, Plan, Record, Time, Variant, Work, read_log};
use pith_boards::counters::TrafficCounter;
use pith_boards::meters::{Found, Integrator, PowerLog};
use pith_boards::profile::Library;
use pith_boards::{EnergyModel, Estimate, ModelKind};
use pith_meter::statistics::{Interval, compare};
use pith_meter::{Joules, Kind, Meter, MeterError, Scope, Traffic};
use std::cell::RefCell;
use std::error::Error;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const IDLE_WATTS: f64 = 2.5;
const PERIOD: f64 = 0.2;

/// A board whose sensor is read every 200 ms, between which the load goes up and down.
struct Machine {
    random: u64,
    now: f64,
    next_sample: f64,
    watts: f64,
    noise_watts: f64,
    sum: Integrator,
    /// While the clock is in it, the sensor gives nothing.
    blind: Range<f64>,
    /// While the clock is in it, the machine is slowed down; `None` where nothing tells.
    hot: Option<Range<f64>>,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let sum = Integrator::new(5.0 * PERIOD);
        Self {
            random,
            now: 0.0,
            next_sample: 0.0,
            watts: IDLE_WATTS,
            noise_watts: 0.4,
            sum,
            blind: 0.0..0.0,
            hot: None,
        }
    }

    /// About normal: the sum of twelve uniform values.
    fn noise(&mut self) -> f64 {
        let mut uniform = || {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            (self.random >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..12).map(|_| uniform()).sum::<f64>() - 6.0
    }

    /// Lets time pass at some power.
    fn pass(&mut self, seconds: f64, watts: f64) {
        let end = self.now + seconds;
        self.watts = watts;
        while self.next_sample <= end {
            let seen = (watts + self.noise() * self.noise_watts).max(0.0);
            if !self.blind.contains(&self.next_sample) {
                self.sum.push(self.next_sample, seen);
            }
            self.next_sample += PERIOD;
        }
        self.now = end;
    }
}

struct Clock(Arc<Mutex<Machine>>);

impl Time for Clock {
    fn now(&mut self) -> f64 {
        self.0.lock().unwrap().now
    }

    fn rest(&mut self, duration: Duration) {
        self.0.lock().unwrap().pass(duration.as_secs_f64(), IDLE_WATTS);
    }
}

struct Sensor(Arc<Mutex<Machine>>);

impl Meter for Sensor {
    fn name(&self) -> &str {
        "simulated"
    }

    fn scope(&self) -> Scope {
        Scope::Board
    }

    fn kind(&self) -> Kind {
        Kind::Measured
    }

    fn energy(&mut self) -> Result<Joules, MeterError> {
        let mut machine = self.0.lock().unwrap();
        let now = machine.now;
        machine.sum.energy(now).map(Joules).map_err(|reason| MeterError { meter: "simulated".into(), reason })
    }
}

/// Decodes 8 tokens at 20 a second or so, at 6 W or so.
struct Decode {
    machine: Arc<Mutex<Machine>>,
    watts: f64,
    runs: Rc<RefCell<Vec<&'static str>>>,
    name: &'static str,
}

/// Counts 48,000 bytes every time it is asked, twice a window.
struct Count(u64);

impl TrafficCounter for Count {
    fn name(&self) -> &str {
        "count"
    }

    fn system_wide(&self) -> bool {
        true
    }

    fn bytes(&mut self) -> Result<u64, String> {
        self.0 += 48_000;
        Ok(self.0)
    }
}

const TOKENS: usize = 8;
const TOKEN_SECONDS: f64 = 0.05;

impl Variant for Decode {
    fn name(&self) -> String {
        self.name.into()
    }

    fn run(&mut self) -> Result<Work, Box<dyn Error + Send + Sync>> {
        self.runs.borrow_mut().push(self.name);
        let mut machine = self.machine.lock().unwrap();
        let watts = self.watts * (1.0 + 0.05 * machine.noise());
        machine.pass(TOKENS as f64 * TOKEN_SECONDS, watts);
        Ok(Work { tokens: TOKENS, traffic: Traffic { weight_bytes: 8_000, ..Traffic::default() } })
    }
}

fn plan() -> Plan {
    let window = Duration::from_secs(20);
    Plan { warmups: 2, windows: 6, window, idle: window }
}

fn simulate(seed: u64, watts: &[(&'static str, f64)]) -> (Record, Vec<&'static str>) {
    simulate_on(Machine::new(seed), &plan(), watts)
}

fn simulate_on(machine: Machine, plan: &Plan, watts: &[(&'static str, f64)]) -> (Record, Vec<&'static str>) {
    let machine = Arc::new(Mutex::new(machine));
    let runs = Rc::new(RefCell::new(Vec::new()));
    let mut variants: Vec<Decode> = watts
        .iter()
        .map(|&(name, watts)| Decode { machine: Arc::clone(&machine), watts, runs: Rc::clone(&runs), name })
        .collect();
    let mut variants: Vec<&mut dyn Variant> =
        variants.iter_mut().map(|variant| variant as &mut dyn Variant).collect();
    let meter = Box::new(Sensor(Arc::clone(&machine)));
    let mut meters = [Found { meter, period: Duration::from_secs_f64(PERIOD), note: None }];
    let mut time = Clock(Arc::clone(&machine));
    let mut counters: [Box<dyn TrafficCounter>; 1] = [Box::new(Count(0))];
    let instruments = Instruments {
        meters: &mut meters,
        counters: &mut counters,
        time: &mut time,
        throttled: &mut || {
            let machine = machine.lock().unwrap();
            machine.hot.as_ref().map(|hot| hot.contains(&machine.now))
        },
    };
    let record = plan.measure(&mut variants, instruments).unwrap();
    let runs = runs.borrow().clone();
    (record, runs)
}

#[test]
fn the_interval_covers_the_true_value_in_at_least_93_of_100_runs() {
    let (mut gross, mut net) = (0, 0);
    for seed in 1..=100 {
        let (record, _) = simulate(seed, &[("decode", 6.0)]);
        let summary = &record.summaries()[0];
        let energy = &summary.energy[0];
        let holds = |interval: Option<Interval>, truth: f64| {
            let [low, high] = interval.unwrap().ends().unwrap();
            usize::from(low <= truth && truth <= high)
        };
        gross += holds(energy.gross_joules_per_token, 6.0 * TOKEN_SECONDS);
        net += holds(energy.net_joules_per_token, (6.0 - IDLE_WATTS) * TOKEN_SECONDS);
        assert_eq!((summary.windows, energy.missing_windows, summary.throttled_windows), (6, 0, None));
        assert_eq!(summary.bytes_per_token, 1000.0);
        assert!((summary.tokens_per_s.mean - 20.0).abs() < 1e-6);
        // And it says something: the interval is no wider than a tenth.
        assert!(energy.gross_joules_per_token.unwrap().half_width.unwrap() < 0.03);
    }
    println!("covered: gross {gross}, net {net} of 100");
    assert!(gross >= 93 && net >= 93, "gross {gross}, net {net}");
}

#[test]
fn variants_take_turns_and_are_compared_pair_by_pair() {
    let (record, runs) = simulate(7, &[("a", 6.0), ("b", 5.0), ("c", 6.01)]);
    assert_eq!(&runs[..6], ["a", "a", "b", "b", "c", "c"], "each warms up");
    let mut order = runs[6..].to_vec();
    order.dedup();
    // At the turn the last variant has two windows in a row.
    assert_eq!(order, ["a", "b", "c", "b", "a", "b", "c", "b", "a", "b", "c", "b", "a"]);
    let joules = |variant: usize| -> Vec<f64> {
        record.joules_per_token(variant, 0).into_iter().map(Option::unwrap).collect()
    };
    let ratio = compare(&joules(0), &joules(1)).unwrap().ratio.unwrap();
    assert!((ratio - 5.0 / 6.0).abs() < 0.02, "{ratio}");
    assert_eq!(compare(&joules(0), &joules(2)).unwrap().ratio, None, "0.2 % is within the noise");
    let [(Figure::TokensPerSecond, rates), (Figure::JoulesPerToken(meter), energy)] =
        record.compare(0, 1)[..]
    else {
        panic!("{:?}", record.compare(0, 1))
    };
    assert_eq!((rates.ratio, meter.name.as_str(), energy.ratio), (None, "simulated", Some(ratio)));
}

#[test]
fn a_window_too_short_for_the_sensor_is_refused() {
    let machine = Arc::new(Mutex::new(Machine::new(1)));
    let meter = Box::new(Sensor(Arc::clone(&machine)));
    let mut meters = [Found { meter, period: Duration::from_secs_f64(PERIOD), note: None }];
    let short = Plan { window: Duration::from_secs(2), ..plan() };
    let mut time = Clock(machine);
    let instruments =
        Instruments { meters: &mut meters, counters: &mut [], time: &mut time, throttled: &mut || None };
    let error = short.measure(&mut [], instruments).unwrap_err();
    assert!(matches!(error, BenchError::Window { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("0.2 s") && message.contains("--window 20"), "{message}");
}

/// A clock beside a meter that writes a sample every `PERIOD`, with the one of now still missing.
struct Writing {
    now: f64,
    ends: f64,
    file: std::path::PathBuf,
}

impl Writing {
    /// Where the log ends, and how long was waited for it.
    fn read(ends: f64, until: f64) -> (f64, f64) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut meter = Self { now: 100.0, ends, file: file.path().into() };
        meter.write();
        let log = read_log(file.path(), 1000.0, 1000.0 + until, Duration::from_secs(20), &mut meter).unwrap();
        (log.span_seconds()[1] - 1000.0, meter.now - 100.0)
    }

    fn write(&self) {
        let count = (self.now.min(self.ends) / PERIOD) as usize;
        let lines = (0..count).map(|sample| format!("{:.1},4\n", sample as f64 * PERIOD));
        std::fs::write(&self.file, "time_s,power_w\n".to_string() + &lines.collect::<String>()).unwrap();
    }
}

impl Time for Writing {
    fn now(&mut self) -> f64 {
        self.now
    }

    fn rest(&mut self, duration: Duration) {
        self.now += duration.as_secs_f64();
        self.write();
    }
}

#[test]
fn a_log_that_is_being_written_is_waited_for() {
    let (last, waited) = Writing::read(f64::INFINITY, 100.0);
    assert!((100.0..100.5).contains(&last) && waited < 1.0, "{last}, {waited}");
    // Its last sample covers the end already.
    assert_eq!(Writing::read(f64::INFINITY, 99.0).1, 0.0);
    // It has ended before.
    let (last, waited) = Writing::read(99.0, 100.0);
    assert!(last < 99.0 && (1.0..1.5).contains(&waited), "{last}, {waited}");
    // Its times are others, and it never comes near.
    assert_eq!(Writing::read(f64::INFINITY, 1e9).1, 0.0);
    // It is as late as is allowed.
    let (last, waited) = Writing::read(f64::INFINITY, 119.5);
    assert!((119.5..120.0).contains(&last) && (19.0..20.0).contains(&waited), "{last}, {waited}");
}

#[test]
fn a_log_from_outside_is_laid_beside_the_windows() {
    let (mut record, _) = simulate(3, &[("decode", 6.0)]);
    let end = record.idle_after[4].end;
    let mut text = String::from("time_s,power_w\n");
    let mut moment = 0.0;
    while moment < end - 30.0 {
        text += &format!("{moment},4\n");
        moment += 0.1;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let log = PowerLog::read(file.path()).unwrap();
    record.add_log("plug", Scope::Wall, &log, &plan()).unwrap();
    let summary = &record.summaries()[0];
    let [own, plug] = &summary.energy[..] else { panic!("{:?}", summary.energy) };
    assert_eq!((own.missing_windows, plug.missing_windows), (0, 1), "the log ends within the last window");
    assert!((plug.gross_joules_per_token.unwrap().mean - 4.0 * TOKEN_SECONDS).abs() < 1e-6);
    assert_eq!(plug.net_joules_per_token, None, "the rest afterwards is not in the log");
    assert!(plug.reason.as_ref().unwrap().contains("not all"));
    assert_eq!(plug.scope, Scope::Wall);
}

#[test]
fn traffic_is_measured_beside_what_is_counted_and_modelled_energy_says_so() {
    let (mut record, _) = simulate(5, &[("decode", 6.0)]);
    let estimate = |value| Estimate::new(value, None).unwrap();
    let model = EnergyModel {
        kind: ModelKind::Shipped,
        source: "a test".into(),
        scope: Scope::Board,
        joules_per_byte: estimate(1e-5),
        joules_per_operation: Some(estimate(1e-3)),
        idle_watts: estimate(2.0),
    };
    record.add_model(&model, &[Some(10.0)]);
    record.add_model(&model, &[None]);
    let summary = &record.summaries()[0];
    // 50 runs of 8 tokens a window.
    let measured = summary.measured_bytes_per_token[0].unwrap();
    assert!((measured.mean - 120.0).abs() < 3.0, "{measured:?}");
    let [_, modelled, unknown] = &summary.energy[..] else { panic!("{:?}", summary.energy) };
    assert_eq!(modelled.gross_joules_per_token.unwrap().half_width, None);
    let gross = modelled.gross_joules_per_token.unwrap().mean;
    assert!((gross - (1000.0 * 1e-5 + 10.0 * 1e-3 + 2.0 * TOKEN_SECONDS)).abs() < 1e-6, "{gross}");
    assert!((modelled.net_joules_per_token.unwrap().mean - 0.02).abs() < 1e-6);
    assert_eq!(modelled.kind, Kind::Modelled);
    // What a model gives differs as the clock does.
    assert!(
        record.compare(0, 0).iter().all(
            |(figure, _)| !matches!(figure, Figure::JoulesPerToken(meter) if meter.kind == Kind::Modelled)
        )
    );
    assert_eq!((unknown.gross_joules_per_token, unknown.missing_windows), (None, 6));
}

#[test]
fn a_machine_that_is_slowed_down_amid_a_window_says_so() {
    // After rest and warm-up the windows begin at 20.8 s, 40.8 s and so on.
    let machine = Machine { hot: Some(47.0..49.0), ..Machine::new(9) };
    let (record, _) = simulate_on(machine, &plan(), &[("decode", 6.0)]);
    let told: Vec<Option<bool>> = record.variants[0].1.iter().map(|window| window.throttled).collect();
    assert_eq!(told, [false, true, false, false, false, false].map(Some));
    assert_eq!(record.summaries()[0].throttled_windows, Some(1));
}

#[test]
fn what_a_sensor_missed_before_a_window_costs_no_figure() {
    // It gives nothing for longer than a hole may be, all of it while the variant warms up.
    let machine = Machine { blind: 20.1..21.5, ..Machine::new(11) };
    let plan = Plan { warmups: 5, ..plan() };
    let (record, _) = simulate_on(machine, &plan, &[("decode", 6.0)]);
    let energy = &record.summaries()[0].energy[0];
    assert_eq!((energy.missing_windows, &energy.reason), (0, &None));
}

#[test]
fn a_model_with_one_power_gives_no_rest_and_nothing_beyond_it() {
    let (mut record, _) = simulate(5, &[("decode", 6.0)]);
    let shipped = Library::shipped().forced("raspberry-pi-5").unwrap().profile.energy_model.unwrap();
    assert!(!shipped.tells_work_from_rest());
    record.add_model(&shipped, &[None]);
    let summary = &record.summaries()[0];
    let modelled = &summary.energy[1];
    let gross = modelled.gross_joules_per_token.unwrap().mean;
    assert!((gross - shipped.idle_watts.value() * TOKEN_SECONDS).abs() < 1e-6, "{gross}");
    assert_eq!((modelled.net_joules_per_token, modelled.missing_windows), (None, 0));
    assert_eq!((modelled.idle_watts, modelled.idle_drift_watts), (None, None));
    assert!(modelled.reason.as_ref().unwrap().contains("one power for rest and work"));
}
