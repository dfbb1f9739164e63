//! The vocabulary of measurement, shared by the runtime's ledger, the boards' sensors and the
//! reports.
//!
//! A [`Meter`] counts [`Joules`]; a [`Reading`] is its figure for one stretch of work, with
//! [`Scope`] and [`Kind`]. [`Traffic`] counts the bytes of that work; [`Conditions`] are the
//! machine's state during it. [`statistics`] gives the uncertainty of means, shares and
//! differences.
//!
//! The crate reads no sensor and runs no model, so sensors and runtime do not depend on each other.
//! Sensors are in `pith-boards`, the ledger that reads them in `pith-runtime`.
#![forbid(unsafe_code)]

mod conditions;
mod energy;
pub mod statistics;
mod traffic;

pub use conditions::{Conditions, Observer};
pub use energy::{Joules, Kind, Meter, MeterError, Reading, Scope};
pub use traffic::Traffic;
