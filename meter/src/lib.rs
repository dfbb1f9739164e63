//! The vocabulary of measuring, shared by the runtime's ledger, the boards' sensors and the
//! reports.
//!
//! A [`Meter`] counts [`Joules`]; a [`Reading`] is its figure for one stretch of work, with its
//! [`Scope`] and [`Kind`]. [`Traffic`] counts the bytes of that work, [`Conditions`] are the
//! machine's state during it. [`statistics`] says how sure a mean, a share or a difference is.
//!
//! The crate reads no sensor and runs no model, so that a sensor's code needs no runtime and the
//! runtime needs no sensor. Sensors are in `pith-boards`, the ledger that reads them is in
//! `pith-runtime`.
#![forbid(unsafe_code)]

mod conditions;
mod energy;
pub mod statistics;
mod traffic;

pub use conditions::{Conditions, Observer};
pub use energy::{Joules, Kind, Meter, MeterError, Reading, Scope};
pub use traffic::Traffic;
