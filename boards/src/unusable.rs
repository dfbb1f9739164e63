//! Sensors and counters that cannot be used.

/// A sensor or counter that exists but gives no figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Its name.
    pub name: String,
    /// The reason, with the fix if there is one.
    pub reason: String,
}
