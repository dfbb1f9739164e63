//! What a profile says of a board. Every table of figures has a `source`: who says so, or who measured it and how.

use super::check::{count, from_kib, gigabytes, list, name, range, some_positive, some_text, text};
use crate::cpu::CacheKind;
use crate::model::EnergyModel;
use pith_meter::Scope;
use serde::{Deserialize, Serialize};

/// What is known of a board beforehand. An expectation, never a measurement of the machine at hand; what nobody is
/// known to have published is left out.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Short name, as `--profile` takes it: lower case letters, digits and hyphens.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// Name for people.
    #[serde(deserialize_with = "text")]
    pub title: String,
    /// What its owner should know, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How such a board is recognised: one rule has to hold.
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
    /// How fast memory is read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bandwidth: Vec<Bandwidth>,
    /// Pages of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<PageFigure>,
    /// Temperatures at which something happens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttle: Vec<ThrottlePoint>,
    /// Sensors of power or energy that such a board has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensors: Vec<Sensor>,
    /// Counters of memory traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<Counter>,
    /// What energy is computed from where nothing measures it; absent where no measurement justifies one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_model: Option<EnergyModel>,
}

/// Conditions that have to hold together. At least one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// An entry of the device tree's `compatible`, whole.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub compatible: Option<String>,
    /// The beginning of the device tree's `model`.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The beginning of the product name in the firmware's tables (DMI).
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub dmi_product: Option<String>,
    /// The beginning of the vendor's name in the firmware's tables (DMI).
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub dmi_vendor: Option<String>,
    /// A part of the processor's name in `/proc/cpuinfo`.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub cpu_name: Option<String>,
    /// `vendor_id` in `/proc/cpuinfo`, whole.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub cpu_vendor: Option<String>,
    /// A computer to carry, by the chassis type in the firmware's tables; `false` asks for one that is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portable: Option<bool>,
    /// Android; `false` asks for another system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub android: Option<bool>,
    /// Holds everywhere, and yields to every other rule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// Who says that such a board looks so.
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
    /// How many; absent where products differ.
    #[serde(default, deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Highest frequency in MHz.
    #[serde(default, deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub mhz: Option<f64>,
    /// What of the instruction set matters here, as the kernel names it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// What it lacks that others of its kind have, as the kernel names it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// Who says so.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// A cache.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CacheFigure {
    /// 1 is nearest to the core.
    pub level: u32,
    /// What it holds.
    #[serde(default)]
    pub kind: CacheKind,
    /// Size, in KiB.
    #[serde(deserialize_with = "from_kib")]
    pub kib: u64,
    /// How many there are of this size; absent where it is not known.
    #[serde(default, deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The cores it belongs to, by name; absent where all share it or all have one.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub cores: Option<String>,
    /// Who says so.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// The memory's kind and what it could do at most.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryFigure {
    /// Kind and speed.
    #[serde(deserialize_with = "text")]
    pub kind: String,
    /// Width of the bus.
    #[serde(default, deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub bus_bits: Option<u32>,
    /// Transfers a second times width, in GB/s (10⁹ bytes).
    #[serde(default, deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub theoretical_gb_per_s: Option<f64>,
    /// Who says so.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// How fast memory was read.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// Threads that read together; absent where the source does not say.
    #[serde(default, deserialize_with = "count", skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// The cores they ran on, by name; absent where there is one kind.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub cores: Option<String>,
    /// Smallest and largest figure published, in GB/s (10⁹ bytes); twice the same where there is one.
    #[serde(deserialize_with = "gigabytes")]
    pub gb_per_s: [f64; 2],
    /// What was timed: a program's test, or the decoding of a model.
    #[serde(deserialize_with = "text")]
    pub test: String,
    /// Who measured it.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// Pages of memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PageFigure {
    /// Sizes that systems for this board use, in KiB; the first is the usual one.
    #[serde(deserialize_with = "list")]
    pub kib: Vec<u32>,
    /// Who says so.
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
    /// What happens there.
    #[serde(deserialize_with = "text")]
    pub effect: String,
    /// Who says so.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// How a sensor is read.
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
    /// Rails that Android gives to apps.
    Odpm,
}

/// A sensor of power or energy.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sensor {
    /// How it is read.
    pub kind: SensorKind,
    /// The driver's name under `/sys/class/hwmon`, for sensors of that kind.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub chip: Option<String>,
    /// What it sees.
    pub scope: Scope,
    /// Names of its rails; empty where they are not known beforehand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rails: Vec<String>,
    /// What it leaves out, and other reasons for care.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Who says so.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

/// A counter of memory traffic.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Counter {
    /// The kernel's name of the device that counts, under `/sys/bus/event_source/devices`, or of the core's event.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// What it counts.
    #[serde(deserialize_with = "text")]
    pub counts: String,
    /// Bytes that one count stands for; absent where it counts bytes or says its unit itself.
    #[serde(default, deserialize_with = "some_positive", skip_serializing_if = "Option::is_none")]
    pub bytes_per_count: Option<f64>,
    /// Reasons for care.
    #[serde(default, deserialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Who says so.
    #[serde(deserialize_with = "text")]
    pub source: String,
}

impl Bandwidth {
    /// The middle between the smallest and the largest figure, in GB/s.
    pub fn middle_gb_per_s(&self) -> f64 {
        (self.gb_per_s[0] + self.gb_per_s[1]) / 2.0
    }
}
