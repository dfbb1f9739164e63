//! The clock that cuts windows.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that can also wait. Tests supply their own.
pub trait Time {
    /// Seconds since 1970. Never goes back.
    fn now(&mut self) -> f64;

    /// Waits.
    fn rest(&mut self, duration: Duration);
}

/// The machine's clock: set once by wall time, then counted by a monotonic clock.
pub struct WallTime {
    began: Instant,
    unix_seconds: f64,
}

impl WallTime {
    /// A clock that starts now.
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
