//! The protocol for measuring joules per token.
//!
//! It rests before and after, warms up, and takes variants in turns, in windows that hold many
//! values of the sensor. Prefill and decode are separate. It gives gross energy and net energy
//! (gross less rest), as means with confidence intervals. It marks windows with throttling, and
//! gives no ratio where the noise is larger.

mod comparison;
mod log;
mod run;
mod summary;
mod throttle;

pub use comparison::Figure;
pub use log::read_log;
pub(crate) use run::LEAST_WINDOW;
pub use run::{Instruments, LEAST_PERIODS, MeterInfo, Plan, RESTS, Record, Variant, Window, Work};
pub use summary::{EnergySummary, Summary};
pub use throttle::ThrottleWatch;
