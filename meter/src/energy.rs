//! Energy and its meters.

use crate::Traffic;
use serde::{Deserialize, Serialize};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};
use std::sync::Arc;
use std::time::Duration;

/// Energy, in joules.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize)]
pub struct Joules(pub f64);

/// The part of the machine that a figure of energy covers. Figures of different scopes are never
/// added: the larger scope contains the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One supply rail.
    Rail,
    /// The processor's package.
    Package,
    /// The whole board or device.
    Board,
    /// Drawn from the wall, losses of the supply included.
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
/// The ledger reads it before and after a stretch of work and takes the difference.
pub trait Meter: Send {
    /// Name for reports: the sensor's or the model's.
    fn name(&self) -> &str;

    /// The part of the machine that its figures cover.
    fn scope(&self) -> Scope;

    /// Where its figures come from.
    fn kind(&self) -> Kind;

    /// Energy since a fixed moment before the first call. Never falls: wrapping counters are
    /// unwrapped here.
    fn energy(&mut self) -> Result<Joules, MeterError>;

    /// Receives the work just done, before [`Meter::energy`] is read. A modelled meter computes its
    /// figure from it.
    fn observe(&mut self, _elapsed: Duration, _traffic: &Traffic) {}
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

/// One meter's figure for one stretch of work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// Name of the meter.
    pub meter: Arc<str>,
    /// The part of the machine that the figure covers.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The words in ledgers and board profiles.
    #[test]
    fn scopes_and_kinds_are_written_in_lower_case() {
        for (scope, word) in [
            (Scope::Rail, "rail"),
            (Scope::Package, "package"),
            (Scope::Board, "board"),
            (Scope::Wall, "wall"),
        ] {
            assert_eq!(serde_json::to_value(scope).unwrap(), word);
            assert_eq!(serde_json::from_value::<Scope>(word.into()).unwrap(), scope);
        }
        for (kind, word) in
            [(Kind::Measured, "measured"), (Kind::Calibrated, "calibrated"), (Kind::Modelled, "modelled")]
        {
            assert_eq!(serde_json::to_value(kind).unwrap(), word);
            assert_eq!(serde_json::from_value::<Kind>(word.into()).unwrap(), kind);
        }
    }

    #[test]
    fn joules_add_up() {
        let mut sum: Joules = [Joules(1.5), Joules(2.0)].into_iter().sum();
        sum += Joules(0.5);
        assert_eq!(sum - Joules(1.0), Joules(3.0));
    }
}
