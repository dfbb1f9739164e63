//! What can go wrong while something is measured.

use pith_boards::{MachineError, MeasureError};

/// A measurement that cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// Windows are too short for the sensor.
    #[error(
        "{meter} gives a value every {period_seconds} s; a window of {window_seconds} s holds too few of them, take \
         at least {least_seconds} s (--window {least_seconds})"
    )]
    Window {
        /// The meter.
        meter: String,
        /// How often it gives a value.
        period_seconds: f64,
        /// The window asked for.
        window_seconds: f64,
        /// The shortest one that will do.
        least_seconds: f64,
    },
    /// Nothing was asked for.
    #[error("{what} is 0, expected at least 1")]
    Nothing {
        /// The count.
        what: &'static str,
    },
    /// A clock that stands still or goes back.
    #[error("the clock does not go forward: {before_seconds} s and then {after_seconds} s")]
    Clock {
        /// An earlier moment.
        before_seconds: f64,
        /// The next one.
        after_seconds: f64,
    },
    /// The observations fit no model of energy.
    #[error("no energy model fits the observations: {0}")]
    Model(String),
    /// The work that was to be measured failed.
    #[error("{0}")]
    Work(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A sensor or a file of the machine.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// A file of the system.
    #[error(transparent)]
    Machine(#[from] MachineError),
}
