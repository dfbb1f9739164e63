//! The state of the machine while work is measured.

use serde::{Deserialize, Serialize};

/// The state of the machine while tokens were computed. An unknown value is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Temperature of the processor, in °C.
    pub temperature_celsius: Option<f64>,
    /// Clock of the computing cores, in Hz; the fastest core's if they differ.
    pub frequency_hz: Option<u64>,
    /// Whether the clock is reduced now, because of heat or a weak supply.
    pub throttled: Option<bool>,
}

/// A source of [`Conditions`].
///
/// The ledger asks once for every cost, between one token and the next. An observer of slow sensors
/// therefore answers with its last reading. A sensor that fails gives `None` and never stops
/// generation.
pub trait Observer: Send {
    /// The state now.
    fn conditions(&mut self) -> Conditions;
}
