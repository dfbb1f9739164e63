//! Speed by a clock of the test's own.

use pith_bench::{BenchError, Time, Variant, Work, speed};
use pith_meter::Traffic;
use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

struct Clock(Rc<Cell<f64>>);

impl Time for Clock {
    fn now(&mut self) -> f64 {
        self.0.get()
    }

    fn rest(&mut self, duration: Duration) {
        self.0.set(self.0.get() + duration.as_secs_f64());
    }
}

/// Takes the next of its times for each run.
struct Runs {
    clock: Rc<Cell<f64>>,
    seconds: Vec<f64>,
}

impl Variant for Runs {
    fn name(&self) -> String {
        "runs".into()
    }

    fn run(&mut self) -> Result<Work, Box<dyn Error + Send + Sync>> {
        if self.seconds.is_empty() {
            return Err("out of tokens".into());
        }
        self.clock.set(self.clock.get() + self.seconds.remove(0));
        let traffic = Traffic {
            weight_bytes: 800,
            embedding_bytes: 8,
            kv_read_bytes: 160,
            kv_write_bytes: 16,
            ..Traffic::default()
        };
        Ok(Work { tokens: 8, traffic })
    }
}

#[test]
fn the_first_run_warms_up_and_what_is_between_runs_does_not_count() {
    let clock = Rc::new(Cell::new(0.0));
    let mut runs = Runs { clock: Rc::clone(&clock), seconds: vec![100.0, 2.0, 4.0, 1.0] };
    let mut between = 0;
    let found = speed(&mut runs, 3, &mut Clock(Rc::clone(&clock)), || {
        between += 1;
        clock.set(clock.get() + 1000.0);
    })
    .unwrap();
    let rates = found.tokens_per_s;
    assert_eq!((rates.median, rates.min, rates.max), (4.0, 2.0, 8.0));
    assert_eq!((found.runs, between), (3, 4));
    assert_eq!(found.weight_bytes_per_token(), 100.0);
    assert_eq!(found.kv_bytes_per_token(), 22.0);
    assert_eq!(found.bytes_per_token(), 123.0);
    assert_eq!(found.bytes_per_s(), 492.0);
}

#[test]
fn no_runs_and_work_that_fails_are_errors() {
    let clock = Rc::new(Cell::new(0.0));
    let measure = |seconds: Vec<f64>, runs| {
        let mut work = Runs { clock: Rc::clone(&clock), seconds };
        speed(&mut work, runs, &mut Clock(Rc::clone(&clock)), || ()).unwrap_err()
    };
    assert!(matches!(measure(vec![1.0], 0), BenchError::Nothing { .. }));
    assert_eq!(measure(vec![1.0], 1).to_string(), "out of tokens");
}
