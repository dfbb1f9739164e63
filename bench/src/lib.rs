//! Measurement of Pith's speed and energy, for `pith bench`, `pith board calibrate` and
//! `cargo xtask`.
//!
//! A [`Workload`] is a [`Test`] on a session. [`speed`] times it, [`Plan::measure`] measures the
//! energy of several in turns, and [`CalibrationPlan::run`] fits a machine's energy model to loads
//! of known size. Clocks, meters, counters and the work itself are parameters, so tests run on a
//! simulated machine and do not depend on the load of the real one.
//!
//! Sensors, profiles and the fit are in `pith-boards`, intervals and comparisons in `pith-meter`.
#![forbid(unsafe_code)]

mod ceiling;
mod energy_fit;
mod error;
mod head;
mod protocol;
mod speed;
mod test;
mod time;
mod wall;

pub use ceiling::{Counters, MemoryProbe, probe, probe_bytes, thread_counts, usable_counters};
pub use energy_fit::{Calibration, CalibrationPlan, Done, Load, Loads, MachineLoads, widest};
pub use error::BenchError;
pub use head::Head;
pub use protocol::{
    EnergySummary, Figure, Instruments, LEAST_PERIODS, MeterInfo, Plan, RESTS, Record, Summary,
    ThrottleWatch, Variant, Window, Work, read_log,
};
pub use speed::{Speed, speed};
pub use test::{Test, Workload};
pub use time::{Time, WallTime};
pub use wall::{Parts, RoleRate, Wall};
