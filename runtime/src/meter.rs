//! What measures energy. The boards crate has the sensors; the runtime only knows that they count joules.

use crate::ledger::Traffic;
use serde::{Deserialize, Serialize};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};
use std::sync::Arc;
use std::time::Duration;

/// Energy.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize)]
pub struct Joules(pub f64);

/// What a figure of energy covers. Figures of different scopes are never added: the larger contains the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One supply rail.
    Rail,
    /// The processor's package.
    Package,
    /// The whole board or device.
    Board,
    /// What is drawn from the wall, losses of the supply included.
    Wall,
}

/// Where a figure of energy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A sensor's reading.
    Measured,
    /// A sensor's reading, corrected by a fit to a better instrument.
    Calibrated,
    /// No sensor: computed from time and traffic.
    Modelled,
}

/// A source of energy figures.
///
/// The ledger reads it before and after what it accounts for and takes the difference.
pub trait Meter: Send {
    /// Name for reports: the sensor's, or the model's.
    fn name(&self) -> &str;

    /// What its figures cover.
    fn scope(&self) -> Scope;

    /// Where they come from.
    fn kind(&self) -> Kind;

    /// Energy since some moment before the first call. Never falls: a counter that wraps is unwrapped here.
    fn energy(&mut self) -> Result<Joules, MeterError>;

    /// Hears of work that was just done, before [`Meter::energy`] is read: what a modelled meter counts from.
    fn observe(&mut self, _elapsed: Duration, _traffic: &Traffic) {}
}

/// The state of the machine while tokens were computed; what is not known is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Temperature of the processor.
    pub temperature_celsius: Option<f64>,
    /// Clock of the cores that compute; of the fastest where they differ.
    pub frequency_hz: Option<u64>,
    /// Whether the clock is held down now, by heat or by a weak supply.
    pub throttled: Option<bool>,
}

/// A source of [`Conditions`].
///
/// The ledger asks once for every cost, between one token and the next, so an observer of slow sensors answers from
/// what it read shortly before. A sensor that fails gives `None` and never stops generation.
pub trait Observer: Send {
    /// The state now.
    fn conditions(&mut self) -> Conditions;
}

/// A meter that gave no figure.
#[derive(Debug, thiserror::Error)]
#[error("{meter}: {reason}")]
pub struct MeterError {
    /// Name of the meter.
    pub meter: String,
    /// Why there is no figure.
    pub reason: String,
}

/// What one meter says of one stretch of work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// Name of the meter.
    pub meter: Arc<str>,
    /// What the figure covers.
    pub scope: Scope,
    /// Where it comes from.
    pub kind: Kind,
    /// The energy; `None` where the meter gave no figure before or after.
    pub joules: Option<Joules>,
}

impl Add for Joules {
    type Output = Joules;

    fn add(self, other: Joules) -> Joules {
        Joules(self.0 + other.0)
    }
}

impl AddAssign for Joules {
    fn add_assign(&mut self, other: Joules) {
        self.0 += other.0;
    }
}

impl Sub for Joules {
    type Output = Joules;

    fn sub(self, other: Joules) -> Joules {
        Joules(self.0 - other.0)
    }
}

impl Sum for Joules {
    fn sum<I: Iterator<Item = Joules>>(all: I) -> Joules {
        all.fold(Joules(0.0), Add::add)
    }
}
