//! The clock that windows are cut by.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock, and how to let time pass. Tests bring their own.
pub trait Time {
    /// Seconds since 1970. Never goes back.
    fn now(&mut self) -> f64;

    /// Does nothing for a while.
    fn rest(&mut self, duration: Duration);
}

/// The machine's clock: set once by the wall, then counted by one that nobody sets.
pub struct WallTime {
    began: Instant,
    unix_seconds: f64,
}

impl WallTime {
    /// From now on.
    pub fn new() -> Self {
        let unix_seconds =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Self { began: Instant::now(), unix_seconds }
    }
}

impl Default for WallTime {
    fn default() -> Self {
        Self::new()
    }
}

impl Time for WallTime {
    fn now(&mut self) -> f64 {
        self.unix_seconds + self.began.elapsed().as_secs_f64()
    }

    fn rest(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
