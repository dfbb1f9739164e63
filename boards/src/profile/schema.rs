//! The schema of a profile. Every table of figures has a `source`: who published or measured it,
//! and how.

use super::check::{count, from_kib, gigabytes, list, name, range, some_positive, some_text, text};
use crate::cpu::CacheKind;
use crate::energy_model::EnergyModel;
use pith_meter::Scope;
use serde::{Deserialize, Serialize};

/// Known facts about a board. They are expectations, never measurements of this machine; facts
/// without a publication are left out.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Short name, as for `--profile`: lower case letters, digits and hyphens.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// Display name.
    #[serde(deserialize_with = "text")]
    pub title: String,
    /// Notes for the owner, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Rules that recognise the board; one must hold.
    #[serde(deserialize_with = "list")]
    pub detect: Vec<Rule>,
    /// Kinds of core.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cores: Vec<CoreFigure>,
    /// Caches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<CacheFigure>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryFigure>,
    /// Measured memory bandwidths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bandwidth: Vec<Bandwidth>,
    /// Page sizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<PageFigure>,
    /// Temperatures that trigger an action.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttle: Vec<ThrottlePoint>,
    /// Sensors of power or energy on the board.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensors: Vec<Sensor>,
    /// Counters of memory traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<Counter>,
    /// Energy model for boards without a sensor; absent if no measurement supports one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_model: Option<EnergyModel>,
}

/// Conditions that must all hold. At least one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// An entry of the device tree's `compatible`, in full.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub compatible: Option<String>,
    /// Prefix of the device tree's `model`.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Prefix of the product name in the firmware's tables (DMI).
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub dmi_product: Option<String>,
    /// Prefix of the vendor's name in the firmware's tables (DMI).
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub dmi_vendor: Option<String>,
    /// Part of the processor's name in `/proc/cpuinfo`.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub cpu_name: Option<String>,
    /// `vendor_id` in `/proc/cpuinfo`, in full.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub cpu_vendor: Option<String>,
    /// Whether the computer is portable, by the firmware's chassis type; `false` requires that it
    /// is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portable: Option<bool>,
    /// Whether the system is Android; `false` requires another system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub android: Option<bool>,
    /// Always holds, and yields to every other rule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// Source of the rule.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// Cores of one kind.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CoreFigure {
    /// The vendor's name for the core.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// Number of cores; absent if products differ.
    #[serde(default, deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Highest frequency in MHz.
    #[serde(default, deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub mhz: Option<f64>,
    /// Relevant instruction-set features, by the kernel's names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Features that it lacks although others of its kind have them, by the kernel's names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// Source of the figures.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// A cache.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CacheFigure {
    /// 1 is nearest to the core.
    pub level: u32,
    /// Its content.
    #[serde(default)]
    pub kind: CacheKind,
    /// Size, in KiB.
    #[serde(deserialize_with = "from_kib")]
    pub kib: u64,
    /// Number of caches of this size; absent if unknown.
    #[serde(default, deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Name of the cores that own it; absent if all share it or each has one.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub cores: Option<String>,
    /// Source of the figures.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// Kind of memory and its theoretical maximum.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryFigure {
    /// Kind and speed.
    #[serde(deserialize_with = "text")]
    pub kind: String,
    /// Bus width, in bits.
    #[serde(default, deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub bus_bits: Option<u32>,
    /// Transfers per second times width, in GB/s (10⁹ bytes).
    #[serde(default, deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub theoretical_gb_per_s: Option<f64>,
    /// Source of the figures.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// A measured memory bandwidth.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// Number of threads reading together; absent if the source does not tell.
    #[serde(default, deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Name of the cores used; absent if there is one kind.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub cores: Option<String>,
    /// Smallest and largest published figure, in GB/s (10⁹ bytes); equal if there is one.
    #[serde(deserialize_with = "gigabytes")]
    pub gb_per_s: [f64; 2],
    /// The work timed: a benchmark, or the decoding of a model.
    #[serde(deserialize_with = "text")]
    pub test: String,
    /// Source of the measurement.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// Page sizes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PageFigure {
    /// Page sizes of the board's usual systems, in KiB; the first is the most common.
    #[serde(deserialize_with = "list")]
    pub kib: Vec<u32>,
    /// Source of the figures.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// A temperature at which the board slows down.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ThrottlePoint {
    /// The temperature, 0 to 150 °C.
    #[serde(deserialize_with = "range")]
    pub celsius: f64,
    /// The action at that temperature.
    #[serde(deserialize_with = "text")]
    pub effect: String,
    /// Source of the figures.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// The way a sensor is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SensorKind {
    /// Energy counters of x86 processors, through powercap.
    Rapl,
    /// The power chip of a Raspberry Pi 5, through its firmware.
    PiPmic,
    /// A chip with a driver under `/sys/class/hwmon`.
    Hwmon,
    /// A battery under `/sys/class/power_supply`.
    Battery,
    /// Power rails that Android exposes to apps.
    Odpm,
}

/// A sensor of power or energy.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sensor {
    /// The way it is read.
    pub kind: SensorKind,
    /// The driver's name under `/sys/class/hwmon`, for sensors of that kind.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub chip: Option<String>,
    /// The part of the machine that it measures.
    pub scope: Scope,
    /// Names of its rails; empty if unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rails: Vec<String>,
    /// Omissions and other caveats.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Source of the figures.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// A counter of memory traffic.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Counter {
    /// The kernel's name of the counting device, under `/sys/bus/event_source/devices`, or of the
    /// core's event.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// The events that it counts.
    #[serde(deserialize_with = "text")]
    pub counts: String,
    /// Bytes per count; absent if it counts bytes or the kernel states the unit.
    #[serde(default, deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub bytes_per_count: Option<f64>,
    /// Caveats.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Source of the figures.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

impl Bandwidth {
    /// The midpoint of the smallest and the largest figure, in GB/s.
    pub fn middle_gb_per_s(&self) -> f64 {
        (self.gb_per_s[0] + self.gb_per_s[1]) / 2.0
    }
}
