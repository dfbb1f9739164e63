//! Which profile fits: rules against evidence, the most specific wins.

use super::evidence::Evidence;
use super::schema::{Profile, Rule};
use serde::Serialize;
use std::path::PathBuf;

/// Where a profile comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It is part of the program.
    Shipped,
    /// It was read from this file.
    File(PathBuf),
}

/// The profile chosen, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detection {
    /// What is known of the board.
    pub profile: Profile,
    /// Where the profile comes from.
    pub origin: Origin,
    /// How specific the rule is that held; `None` where the profile was forced.
    pub specificity: Option<u32>,
    /// What held, with the file each was read from.
    pub reasons: Vec<String>,
    /// Names of other profiles that fit too, with how specific their rules are, the most specific first.
    pub others: Vec<(String, u32)>,
}

/// How much a condition says. A name of the board says more than one of its chip, that more than a kind of device.
mod weight {
    /// The device tree's model, or the firmware's product name.
    pub const BOARD: u32 = 100;
    /// What each entry of `compatible` behind the first says less.
    pub const STEP: u32 = 10;
    /// An entry of `compatible` far behind.
    pub const LEAST: u32 = 60;
    pub const CPU_NAME: u32 = 50;
    pub const ANDROID: u32 = 30;
    pub const PORTABLE: u32 = 10;
    pub const VENDOR: u32 = 5;
}

impl Rule {
    /// How many conditions there are.
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

    /// How specific it is, and what held, if all of it does.
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
    /// How specific the best of its rules is that hold, and what held.
    pub(super) fn fits(&self, evidence: &Evidence) -> Option<(u32, Vec<String>)> {
        // The first of equals, as rules are written.
        let held = self.detect.iter().filter_map(|rule| rule.holds(evidence));
        held.reduce(|best, next| if next.0 > best.0 { next } else { best })
    }
}
