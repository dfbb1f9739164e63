//! Energy meters: the machine's sensors, or a model in their place.
//!
//! One file per kind of sensor. [`discover`] finds them and lists unusable ones with the reason. A
//! thread of its own ([`Sampler`]) reads each power sensor; energy counters are read on demand. A
//! figure for less than [`Found::period`] is interpolated: the sum over many tokens is right, but
//! one token's share is not a measurement of that token.

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

pub use integrate::Integrator;
pub use log::PowerLog;
pub use modelled::ModelMeter;
pub use pmic::parse as parse_pmic;
pub use replay::Replay;
pub use sampler::{Sampler, Source};

use crate::unusable::Unusable;
use pith_meter::Meter;
use std::path::Path;
use std::time::Duration;

/// A usable meter.
pub struct Found {
    /// The meter.
    pub meter: Box<dyn Meter>,
    /// Time between two new values. Zero for computed figures.
    pub period: Duration,
    /// Omissions and other caveats.
    pub note: Option<String>,
}

/// All sensors found.
#[derive(Default)]
pub struct Discovered {
    /// Usable meters. Their scopes overlap: figures of two meters are never to be added.
    pub found: Vec<Found>,
    /// Sensors that cannot be used.
    pub unusable: Vec<Unusable>,
}

/// Looks for sensors on the machine with `/sys`, `/proc` and `/usr` below `root`.
///
/// Power sensors are sampled from now on, until their meters are dropped.
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
