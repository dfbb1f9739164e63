//! How joules per token are measured so that one can trust them.
//!
//! Rest before and after, warm up, variants in turns, windows that hold many values of the sensor, prefill and decode
//! apart, everything drawn and what is drawn beyond rest, means with confidence intervals, windows marked in which the
//! machine was slowed down, and no ratio where the noise is larger.

mod run;
mod summary;
mod throttle;
mod time;

pub use run::{Instruments, LEAST_PERIODS, MeterInfo, Plan, RESTS, Record, Variant, Window, Work, measure};
pub use summary::{EnergySummary, Summary};
pub use throttle::ThrottleWatch;
pub use time::{Time, WallTime};
