//! The protocol of measuring joules for each token.
//!
//! Rest before and after, warm-up, variants in turns, windows that hold many values of the sensor,
//! prefill and decode apart, gross energy and energy beyond rest, means with confidence intervals,
//! windows marked in which the machine was throttled, and no ratio where the noise is larger.

mod comparison;
mod run;
mod summary;
mod throttle;

pub use comparison::Figure;
pub(crate) use run::LEAST_WINDOW;
pub use run::{Instruments, LEAST_PERIODS, MeterInfo, Plan, RESTS, Record, Variant, Window, Work};
pub use summary::{EnergySummary, Summary};
pub use throttle::ThrottleWatch;
