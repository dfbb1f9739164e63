//! A recorded log as a meter.

use super::log::PowerLog;
use pith_meter::{Joules, Kind, Meter, MeterError, Scope};

/// Replays the energy of a [`PowerLog`] as its clock advances: for tests, and to examine a recorded
/// run.
pub struct Replay {
    name: String,
    scope: Scope,
    log: PowerLog,
    clock: Box<dyn FnMut() -> f64 + Send>,
    last: f64,
}

impl Replay {
    /// A meter with `clock` as its time, in seconds of the log.
    pub fn new(
        name: impl Into<String>,
        scope: Scope,
        log: PowerLog,
        clock: impl FnMut() -> f64 + Send + 'static,
    ) -> Self {
        Self { name: name.into(), scope, log, clock: Box::new(clock), last: f64::NEG_INFINITY }
    }
}

impl Meter for Replay {
    fn name(&self) -> &str {
        &self.name
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn kind(&self) -> Kind {
        Kind::Measured
    }

    fn energy(&mut self) -> Result<Joules, MeterError> {
        let failed = |reason: String| MeterError { meter: self.name.clone(), reason };
        let now = (self.clock)();
        if now < self.last {
            return Err(failed(format!("the clock went from {} s to {now} s", self.last)));
        }
        let [first, _] = self.log.span_seconds();
        let joules = self.log.energy(first, now).map_err(failed)?;
        self.last = now;
        Ok(joules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_given_back_at_its_own_pace() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "time_s,power_w\n10,3\n11,3\n12,5\n").unwrap();
        let log = PowerLog::read(file.path()).unwrap();
        let mut times = [10.0, 11.5, 11.0, 12.0, 13.0].into_iter();
        let mut meter = Replay::new("log", Scope::Wall, log, move || times.next().unwrap());
        assert_eq!(meter.energy().unwrap(), Joules(0.0));
        assert_eq!(meter.energy().unwrap(), Joules(4.75));
        assert!(meter.energy().unwrap_err().reason.contains("clock"));
        assert_eq!(meter.energy().unwrap(), Joules(7.0));
        assert!(meter.energy().is_err(), "the log has ended");
    }
}
