//! Calibration of a simulated machine, whose costs are known.

use pith_bench::{BenchError, CalibrationPlan, Done, Load, Loads, Time, widest};
use pith_boards::energy_fit::Term;
use pith_boards::meters::Found;
use pith_meter::{Joules, Kind, Meter, MeterError, Scope};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const IDLE_WATTS: f64 = 2.5;
const JOULES_PER_BYTE: f64 = 4e-10;
const JOULES_PER_OPERATION: f64 = 3e-12;
/// Of one thread.
const BYTES_PER_S: f64 = 5e9;
const OPERATIONS_PER_S: f64 = 2e11;

/// Time and energy so far.
#[derive(Default)]
struct State {
    seconds: f64,
    joules: f64,
}

#[derive(Clone, Default)]
struct Machine(Arc<Mutex<State>>);

impl Machine {
    /// Lets time pass, with work in it.
    fn work(&self, duration: Duration, done: Done) -> Done {
        let mut state = self.0.lock().unwrap();
        state.seconds += duration.as_secs_f64();
        state.joules += IDLE_WATTS * duration.as_secs_f64()
            + JOULES_PER_BYTE * done.bytes as f64
            + JOULES_PER_OPERATION * done.operations;
        done
    }
}

impl Time for Machine {
    fn now(&mut self) -> f64 {
        self.0.lock().unwrap().seconds
    }

    fn rest(&mut self, duration: Duration) {
        self.work(duration, Done::default());
    }
}

impl Loads for Machine {
    fn can_multiply(&self) -> bool {
        true
    }

    fn read(&mut self, threads: usize, duration: Duration) -> Done {
        let bytes = (threads as f64 * BYTES_PER_S * duration.as_secs_f64()) as u64;
        self.work(duration, Done { bytes, operations: 0.0 })
    }

    fn multiply(&mut self, threads: usize, duration: Duration) -> Done {
        let operations = threads as f64 * OPERATIONS_PER_S * duration.as_secs_f64();
        self.work(duration, Done { bytes: 0, operations })
    }
}

/// A meter of the machine; of every three figures the one numbered `misses` fails.
struct Sensor {
    machine: Machine,
    scope: Scope,
    asked: usize,
    misses: Option<usize>,
}

impl Meter for Sensor {
    fn name(&self) -> &str {
        "simulated"
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn kind(&self) -> Kind {
        Kind::Measured
    }

    fn energy(&mut self) -> Result<Joules, MeterError> {
        self.asked += 1;
        match self.misses {
            Some(miss) if self.asked % 3 == miss => {
                Err(MeterError { meter: "simulated".into(), reason: "no sample for a while".into() })
            }
            _ => Ok(Joules(self.machine.0.lock().unwrap().joules)),
        }
    }
}

fn found(machine: &Machine, scope: Scope, misses: Option<usize>) -> Found {
    let meter = Box::new(Sensor { machine: machine.clone(), scope, asked: 0, misses });
    Found { meter, period: Duration::from_millis(100), note: None }
}

#[test]
fn the_costs_of_a_known_machine_are_found() {
    let mut machine = Machine::default();
    let mut found = found(&machine, Scope::Board, None);
    let loads = Load::all(4, machine.can_multiply());
    let plan = CalibrationPlan::new(&found, loads.clone(), 2, None).unwrap();
    assert_eq!(plan.window, Duration::from_secs(10), "100 values of the sensor");
    let mut seen = Vec::new();
    let result = plan
        .run(&mut found, None, &mut machine.clone(), &mut machine, |round, load| {
            seen.push((round, load.to_string()));
        })
        .unwrap();
    assert_eq!(seen.len(), 2 * loads.len());
    assert_eq!((&seen[0], seen[loads.len()].0), (&(0, "idle".to_string()), 1));
    assert!((machine.now() - plan.seconds()).abs() < 1e-6);
    assert!(result.missing.is_empty() && result.observations.len() == seen.len());
    assert!((result.idle_watts.unwrap().mean - IDLE_WATTS).abs() < 1e-9);
    for (term, expected) in
        [(Term::Byte, JOULES_PER_BYTE), (Term::Operation, JOULES_PER_OPERATION), (Term::Time, IDLE_WATTS)]
    {
        let found = result.fit.coefficients.iter().find(|one| one.term == term).unwrap().value;
        assert!((found / expected - 1.0).abs() < 1e-6, "{term:?}: {found}, expected {expected}");
    }
    assert!(result.model.source.contains("by the meter \"simulated\""), "{}", result.model.source);
    assert!((result.model.joules(1_000_000_000, 0, 2.0).0 - 5.4).abs() < 1e-6);
}

#[test]
fn a_figure_missed_before_a_window_costs_no_observation_and_one_at_its_end_does() {
    let observed = |misses| {
        let mut machine = Machine::default();
        let mut found = found(&machine, Scope::Board, Some(misses));
        let plan = CalibrationPlan::new(&found, vec![Load::Idle, Load::Read(1)], 3, None).unwrap();
        let result = plan.run(&mut found, None, &mut machine.clone(), &mut machine, |_, _| ());
        result.map(|result| (result.observations.len(), result.missing))
    };
    // One figure before all windows, then one at each end of a window; where the first of these
    // fails it is asked for again. With 2, it is always that one.
    assert_eq!(observed(2).unwrap(), (6, vec![]));
    // With 0, the third is missed, which ends the first window; later ones begin a window.
    assert_eq!(observed(0).unwrap(), (5, vec!["idle: no sample for a while".to_string()]));
}

#[test]
fn plans_that_measure_nothing_are_refused() {
    let found = found(&Machine::default(), Scope::Board, None);
    let plan = |rounds, window| CalibrationPlan::new(&found, vec![Load::Idle], rounds, window).unwrap_err();
    assert_eq!(plan(0, None).to_string(), "the number of rounds is 0, expected at least 1");
    let short = plan(1, Some(Duration::from_secs(9)));
    assert!(matches!(short, BenchError::Window { .. }), "{short}");
    assert!(short.to_string().contains("--window 10"), "{short}");
}

#[test]
fn the_widest_meter_is_the_first_of_those_that_cover_most() {
    let machine = Machine::default();
    let scopes = [Scope::Rail, Scope::Board, Scope::Package, Scope::Board];
    let all: Vec<Found> = scopes.into_iter().map(|scope| found(&machine, scope, None)).collect();
    assert_eq!((widest(&all), widest(&[])), (Some(1), None));
}

#[test]
fn loads_are_named_once_each() {
    assert_eq!(Load::all(1, false), [Load::Idle, Load::Read(1)]);
    let all = Load::all(8, true);
    let reads: Vec<&Load> = all.iter().filter(|load| matches!(load, Load::Read(_))).collect();
    assert_eq!(reads, [&Load::Read(1), &Load::Read(4), &Load::Read(8)]);
    assert_eq!(all[4..], [Load::Multiply(1), Load::Multiply(8)]);
}
