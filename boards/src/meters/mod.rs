//! Meters: what this machine has that measures energy, or what stands in for it.
//!
//! One file a kind of sensor. [`discover`] finds them; what is there and cannot be used is named with the reason. A
//! sensor of power is read by a thread of its own ([`Sampler`]), a counter of energy when it is asked. A figure for less
//! time than [`Found::period`] is interpolated: the sum over many tokens is right, each token's share of it is not a
//! measurement of that token.

mod battery;
mod hwmon;
mod integrate;
mod log;
mod modelled;
#[cfg(target_os = "linux")]
mod perf;
pub(crate) mod pmic;
mod rapl;
mod replay;
mod sampler;
pub(crate) mod sysfs;

pub use integrate::Integrator;
pub use log::PowerLog;
pub use modelled::ModelMeter;
pub use pmic::parse as parse_pmic;
pub use replay::Replay;
pub use sampler::{Sampler, Source};

use pith_meter::Meter;
use std::path::Path;
use std::time::Duration;

/// A meter that can be used.
pub struct Found {
    /// The meter.
    pub meter: Box<dyn Meter>,
    /// How often it gives a new value. Zero where figures are computed and not sampled.
    pub period: Duration,
    /// What its figures leave out, or what else there is to know.
    pub note: Option<String>,
}

/// A sensor that is there and gives nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Its name.
    pub name: String,
    /// Why, and what mends it where something does.
    pub reason: String,
}

/// What was found.
#[derive(Default)]
pub struct Discovered {
    /// What can be used. Their scopes overlap: figures of two meters are never to be added.
    pub found: Vec<Found>,
    /// What cannot.
    pub unusable: Vec<Unusable>,
}

/// Looks for sensors on the machine whose `/sys`, `/proc` and `/usr` lie below `root`.
///
/// Sensors of power are sampled from now on, until their meters are dropped.
pub fn discover(root: &Path) -> Discovered {
    let mut all = Discovered::default();
    pmic::discover(root, &mut all);
    let has_package = rapl::discover(root, &mut all);
    #[cfg(target_os = "linux")]
    perf::discover(root, has_package, &mut all);
    #[cfg(not(target_os = "linux"))]
    let _ = has_package;
    hwmon::discover(root, &mut all);
    battery::discover(root, &mut all);
    all
}

impl Discovered {
    fn unusable(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.unusable.push(Unusable { name: name.into(), reason: reason.into() });
    }
}
