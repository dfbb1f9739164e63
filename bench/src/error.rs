//! Errors of measurements.

use pith_boards::{MachineError, MeasureError};

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// Windows too short for the sensor.
    #[error(
        "{meter} gives a value every {period_seconds} s; a window of {window_seconds} s holds too few of them, take \
         at least {least_seconds} s (--window {least_seconds})"
    )]
    Window {
        /// The meter.
        meter: String,
        /// The sensor's period.
        period_seconds: f64,
        /// The requested window.
        window_seconds: f64,
        /// The shortest possible window.
        least_seconds: f64,
    },
    /// A count of 0.
    #[error("{what} is 0, expected at least 1")]
    Nothing {
        /// Name of the count.
        what: &'static str,
    },
    /// A clock that stands still or runs backwards.
    #[error("the clock does not go forward: {before_seconds} s and then {after_seconds} s")]
    Clock {
        /// An earlier moment.
        before_seconds: f64,
        /// The next one.
        after_seconds: f64,
    },
    /// Observations that fit no energy model.
    #[error("no energy model fits the observations: {0}")]
    Model(String),
    /// The measured work failed.
    #[error("{0}")]
    Work(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A sensor or a file of the machine.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// A file of the system.
    #[error(transparent)]
    Machine(#[from] MachineError),
}
