//! Detection of the profile: the most specific rule that the evidence satisfies.

use super::evidence::Evidence;
use super::schema::{Profile, Rule};
use serde::Serialize;
use std::path::PathBuf;

/// Origin of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Part of the program.
    Shipped,
    /// Read from this file.
    File(PathBuf),
}

/// The chosen profile, and the reasons.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detection {
    /// The profile.
    pub profile: Profile,
    /// Origin of the profile.
    pub origin: Origin,
    /// Specificity of the satisfied rule; `None` for a forced profile.
    pub specificity: Option<u32>,
    /// The conditions that held, each with the file behind it.
    pub reasons: Vec<String>,
    /// Names and specificity of other matching profiles, most specific first.
    pub others: Vec<(String, u32)>,
}

/// Weight of each condition. A board's name counts more than its chip's, and that more than a kind
/// of device.
mod weight {
    /// The device tree's model, or the firmware's product name.
    pub const BOARD: u32 = 100;
    /// Deduction per position in `compatible`.
    pub const STEP: u32 = 10;
    /// Least weight of an entry of `compatible`.
    pub const LEAST: u32 = 60;
    pub const CPU_NAME: u32 = 50;
    pub const ANDROID: u32 = 30;
    pub const PORTABLE: u32 = 10;
    pub const VENDOR: u32 = 5;
}

impl Rule {
    /// Number of conditions.
    pub(super) fn conditions(&self) -> usize {
        let texts = [
            &self.compatible,
            &self.model,
            &self.dmi_product,
            &self.dmi_vendor,
            &self.cpu_name,
            &self.cpu_vendor,
        ];
        let flags = [self.portable.is_some(), self.android.is_some(), self.always];
        texts.iter().filter(|text| text.is_some()).count() + flags.iter().filter(|&&flag| flag).count()
    }

    /// Specificity and the conditions that held; `None` unless all hold.
    pub(super) fn holds(&self, evidence: &Evidence) -> Option<(u32, Vec<String>)> {
        let (mut weight, mut reasons) = (0, Vec::new());
        let mut found = |points: u32, reason: String| {
            weight += points;
            reasons.push(reason);
        };
        if let Some(wanted) = &self.compatible {
            let there = evidence.compatible.as_ref()?;
            let index = there.value.iter().position(|entry| entry == wanted)?;
            let points = weight::BOARD.saturating_sub(weight::STEP * index as u32).max(weight::LEAST);
            found(points, format!("compatible is \"{wanted}\" ({})", there.path));
        }
        let beginnings = [
            ("model", &self.model, &evidence.model, weight::BOARD),
            ("product name", &self.dmi_product, &evidence.dmi_product, weight::BOARD),
            ("vendor", &self.dmi_vendor, &evidence.dmi_vendor, weight::VENDOR),
        ];
        for (what, wanted, there, points) in beginnings {
            let Some(wanted) = wanted else { continue };
            let there = there.as_ref().filter(|found| found.value.starts_with(wanted.as_str()))?;
            found(points, format!("{what} is \"{}\" ({})", there.value, there.path));
        }
        if let Some(wanted) = &self.cpu_name {
            let there = evidence.cpu_names.as_ref()?;
            let name = there.value.iter().find(|name| name.contains(wanted.as_str()))?;
            found(weight::CPU_NAME, format!("the processor is \"{name}\" ({})", there.path));
        }
        if let Some(wanted) = &self.cpu_vendor {
            let there = evidence.cpu_vendor.as_ref().filter(|found| found.value == *wanted)?;
            found(weight::VENDOR, format!("the processor's vendor is \"{wanted}\" ({})", there.path));
        }
        if let Some(wanted) = self.portable {
            let there = evidence.chassis_type.as_ref().filter(|_| evidence.portable() == Some(wanted))?;
            let kind = if wanted { "to carry" } else { "not to carry" };
            found(weight::PORTABLE, format!("chassis type {} is one {kind} ({})", there.value, there.path));
        }
        if let Some(wanted) = self.android {
            match (wanted, &evidence.android) {
                (true, Some(there)) => found(weight::ANDROID, format!("Android: there is {}", there.path)),
                (false, None) => found(0, "not Android".into()),
                _ => return None,
            }
        }
        if self.always {
            found(0, "fits every machine, and no other profile fits better".into());
        }
        Some((weight, reasons))
    }
}

impl Profile {
    /// Specificity of the best satisfied rule, and its conditions.
    pub(super) fn fits(&self, evidence: &Evidence) -> Option<(u32, Vec<String>)> {
        // The first of equal rules, in the profile's order.
        let held = self.detect.iter().filter_map(|rule| rule.holds(evidence));
        held.reduce(|best, next| if next.0 > best.0 { next } else { best })
    }
}
