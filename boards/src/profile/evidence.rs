//! Facts that a machine reports about itself, before any conclusion.

use crate::error::MachineError;
use crate::sysfs::read;
use serde::Serialize;
use std::path::Path;

/// A value and the file it was read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// The file, below the root.
    pub path: String,
}

/// All facts that rules may test. An unknown fact is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The device tree's `compatible`: board first, then the chip.
    pub compatible: Option<Found<Vec<String>>>,
    /// The device tree's `model`.
    pub model: Option<Found<String>>,
    /// The product name in the firmware's tables (DMI).
    pub dmi_product: Option<Found<String>>,
    /// The vendor in the firmware's tables.
    pub dmi_vendor: Option<Found<String>>,
    /// The kind of chassis, as numbered by SMBIOS.
    pub chassis_type: Option<Found<u32>>,
    /// Names of processors.
    pub cpu_names: Option<Found<Vec<String>>>,
    /// Vendor of the processor.
    pub cpu_vendor: Option<Found<String>>,
    /// Whether a file that only Android has is present.
    pub android: Option<Found<bool>>,
}

/// Files of Android's base system, visible to apps.
const ANDROID: [&str; 3] = ["system/bin/app_process64", "system/bin/app_process32", "system/build.prop"];

/// SMBIOS numbers of portable chassis: portable, laptop, notebook, hand held, sub-notebook, tablet,
/// convertible, detachable.
const PORTABLE: [u32; 8] = [8, 9, 10, 11, 14, 30, 31, 32];

impl Evidence {
    /// The facts of the machine with `/proc`, `/sys` and `/system` below `root`.
    ///
    /// Fails if a file exists but cannot be read. A file with nonsense gives no fact.
    pub fn read(root: &Path) -> Result<Self, MachineError> {
        let tree = |name: &str| {
            first(
                root,
                &[&format!("proc/device-tree/{name}"), &format!("sys/firmware/devicetree/base/{name}")],
            )
        };
        let dmi = |name: &str| first(root, &[&format!("sys/class/dmi/id/{name}")]);
        let cpuinfo = first(root, &["proc/cpuinfo"])?;
        let names = |found: &Found<String>| {
            let names: Vec<String> = lines(&found.value, &["model name", "Hardware", "Model"]);
            (!names.is_empty()).then(|| Found { value: names, path: found.path.clone() })
        };
        let vendor = |found: &Found<String>| {
            let value = lines(&found.value, &["vendor_id"]).into_iter().next()?;
            Some(Found { value, path: found.path.clone() })
        };
        let android = ANDROID.iter().find(|path| root.join(path).exists());
        Ok(Self {
            compatible: tree("compatible")?.and_then(|found| {
                let entries = found.value.split('\0').map(str::trim).filter(|entry| !entry.is_empty());
                let entries: Vec<String> = entries.map(str::to_string).collect();
                (!entries.is_empty()).then_some(Found { value: entries, path: found.path })
            }),
            model: tree("model")?.and_then(trimmed),
            dmi_product: dmi("product_name")?.and_then(trimmed),
            dmi_vendor: dmi("sys_vendor")?.and_then(trimmed),
            chassis_type: dmi("chassis_type")?
                .and_then(|found| Some(Found { value: found.value.trim().parse().ok()?, path: found.path })),
            cpu_names: cpuinfo.as_ref().and_then(names),
            cpu_vendor: cpuinfo.as_ref().and_then(vendor),
            android: android.map(|path| Found { value: true, path: path.to_string() }),
        })
    }

    /// Whether the chassis is portable; `None` if the firmware does not tell.
    pub fn portable(&self) -> Option<bool> {
        self.chassis_type.as_ref().map(|found| PORTABLE.contains(&found.value))
    }

    /// All facts, as pairs of file and value.
    pub fn lines(&self) -> Vec<(String, String)> {
        let text = |found: &Option<Found<String>>| found.clone().map(|found| (found.path, found.value));
        let joined = |found: &Option<Found<Vec<String>>>| {
            found.clone().map(|found| (found.path, found.value.join(", ")))
        };
        let chassis = self.chassis_type.clone().map(|found| {
            let kind = if PORTABLE.contains(&found.value) { "portable" } else { "not portable" };
            (found.path, format!("{} ({kind})", found.value))
        });
        let android = self.android.clone().map(|found| (found.path, "is there".to_string()));
        [
            joined(&self.compatible),
            text(&self.model),
            text(&self.dmi_vendor),
            text(&self.dmi_product),
            chassis,
            joined(&self.cpu_names),
            text(&self.cpu_vendor),
            android,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The first file that exists.
fn first(root: &Path, paths: &[&str]) -> Result<Option<Found<String>>, MachineError> {
    for path in paths {
        if let Some(value) = read(&root.join(path))? {
            return Ok(Some(Found { value, path: path.to_string() }));
        }
    }
    Ok(None)
}

/// Trims white space and the zero byte of device-tree strings; `None` if nothing is left.
fn trimmed(found: Found<String>) -> Option<Found<String>> {
    let value = found.value.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_string();
    (!value.is_empty()).then_some(Found { value, path: found.path })
}

/// The distinct values of fields of `/proc/cpuinfo`, in order.
fn lines(text: &str, fields: &[&str]) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if fields.contains(&key.trim()) && !value.is_empty() && !values.iter().any(|other| other == value) {
            values.push(value.to_string());
        }
    }
    values
}
