//! A thread that samples a power sensor and integrates its energy.

use super::integrate::Integrator;
use pith_meter::{Joules, Kind, Meter, MeterError, Scope};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Periods without a sample after which the energy is unknown.
const GAP_PERIODS: f64 = 5.0;

/// Reads the present power, in watts, or returns the reason for none.
pub type Source = Box<dyn FnMut() -> Result<f64, String> + Send>;

/// A meter over a power sensor.
///
/// A thread reads the sensor once per period. A failed read is repeated at the next period; the
/// energy it leaves unknown is missing from the figures, and nothing waits for it.
pub struct Sampler {
    name: String,
    scope: Scope,
    kind: Kind,
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    integrator: Mutex<Integrator>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

impl Sampler {
    /// Reads `source` once every `period`, at least a millisecond, until the sampler is dropped.
    pub fn spawn(name: String, scope: Scope, kind: Kind, period: Duration, source: Source) -> Self {
        let period = period.max(Duration::from_millis(1));
        let shared = Arc::new(Shared {
            started: Instant::now(),
            integrator: Mutex::new(Integrator::new(GAP_PERIODS * period.as_secs_f64())),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        });
        let thread = Arc::clone(&shared);
        let spawned = std::thread::Builder::new()
            .name("pith power".into())
            .spawn(move || thread.sample(period, source));
        if let Err(error) = spawned {
            shared.integrator().fail(format!("no thread to read it: {error}"));
        }
        Self { name, scope, kind, shared }
    }
}

impl Shared {
    fn sample(&self, period: Duration, mut source: Source) {
        let mut next = Instant::now();
        loop {
            let before = Instant::now();
            let watts = source();
            // A slow sensor's reading is dated to the middle of the read.
            let moment = (before - self.started + before.elapsed() / 2).as_secs_f64();
            match watts {
                Ok(watts) => self.integrator().push(moment, watts),
                Err(reason) => self.integrator().fail(reason),
            }
            next = (next + period).max(Instant::now());
            let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
            while !*stop {
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                stop = self.stopped.wait_timeout(stop, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            if *stop {
                return;
            }
        }
    }

    fn integrator(&self) -> MutexGuard<'_, Integrator> {
        self.integrator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter for Sampler {
    fn name(&self) -> &str {
        &self.name
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn energy(&mut self) -> Result<Joules, MeterError> {
        let now = self.shared.started.elapsed().as_secs_f64();
        let joules = self.shared.integrator().energy(now);
        joules.map(Joules).map_err(|reason| MeterError { meter: self.name.clone(), reason })
    }
}

impl Drop for Sampler {
    /// Ends the thread without waiting for a hanging read.
    fn drop(&mut self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.stopped.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn until(what: impl Fn() -> bool) {
        let started = Instant::now();
        while !what() && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(what(), "nothing happened for 20 s");
    }

    /// Tests only the thread; the integrator is tested without a clock.
    #[test]
    fn the_sensor_is_read_again_and_again_until_the_sampler_goes() {
        let reads = Arc::new(AtomicUsize::new(0));
        let held = Arc::clone(&reads);
        let source = Box::new(move || {
            held.fetch_add(1, Ordering::Relaxed);
            Ok(4.0)
        });
        let period = Duration::from_millis(1);
        let meter = Sampler::spawn("test".into(), Scope::Board, Kind::Measured, period, source);
        until(|| reads.load(Ordering::Relaxed) > 3);
        until(|| meter.shared.integrator().energy(0.0).is_ok_and(|joules| joules > 0.0));
        // The thread holds the second reference.
        assert_eq!(Arc::strong_count(&reads), 2);
        drop(meter);
        until(|| Arc::strong_count(&reads) == 1);
    }

    #[test]
    fn a_sensor_that_fails_says_why_and_stops_nothing() {
        let source = Box::new(|| Err("the wire is cut".to_string()));
        let period = Duration::from_millis(1);
        let mut meter = Sampler::spawn("wire".into(), Scope::Rail, Kind::Measured, period, source);
        until(|| meter.shared.integrator().energy(0.0).is_err_and(|reason| reason.contains("cut")));
        let error = meter.energy().unwrap_err();
        assert_eq!((error.meter.as_str(), error.reason.as_str()), ("wire", "the wire is cut"));
    }
}
