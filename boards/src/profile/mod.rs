//! Board profiles: published facts with their sources, and detection of the board.

mod check;
mod detect;
mod evidence;
mod expectation;
mod library;
mod presence;
mod schema;

pub use detect::{Detection, Origin};
pub use evidence::{Evidence, Found};
pub use expectation::Expectation;
pub use library::Library;
pub use presence::{Presence, SensorState};
pub use schema::{
    Bandwidth, CacheFigure, CoreFigure, Counter, MemoryFigure, PageFigure, Profile, Rule, Sensor, SensorKind,
    ThrottlePoint,
};

use crate::error::MachineError;
use std::path::Path;

impl Profile {
    /// Parses a profile. `path` is the source of the text; errors name it with line and field.
    pub fn parse(text: &str, path: &Path) -> Result<Self, MachineError> {
        let wrong = |line: usize, field: String, reason: String| MachineError::Profile {
            path: path.to_path_buf(),
            line,
            field,
            reason,
        };
        let profile: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count();
            wrong(line, field(text, line), error.message().to_string())
        })?;
        if let Some(index) = profile.detect.iter().position(|rule| rule.conditions() == 0) {
            let reason = "has no condition; give compatible, model, dmi_product, dmi_vendor, cpu_name, cpu_vendor, \
                          portable, android, or always = true";
            return Err(wrong(header_line(text, "detect", index), "detect".into(), reason.into()));
        }
        let hwmon = |sensor: &Sensor| (sensor.kind == SensorKind::Hwmon) == sensor.chip.is_some();
        if let Some(index) = profile.sensors.iter().position(|sensor| !hwmon(sensor)) {
            let reason = "needs `chip`, the driver's name, if and only if its kind is hwmon";
            return Err(wrong(header_line(text, "sensors", index), "sensors".into(), reason.into()));
        }
        if profile.energy_model.as_ref().is_some_and(|model| model.source.trim().is_empty()) {
            let line = 1 + text.lines().position(|line| line.trim() == "[energy_model]").unwrap_or(0);
            return Err(wrong(line, "source".into(), "of the energy model is empty".into()));
        }
        Ok(profile)
    }
}

/// The key on a line, or the table that it opens.
fn field(text: &str, line: usize) -> String {
    let line = text.lines().nth(line - 1).unwrap_or_default();
    let key = line.split_once('=').map_or(line, |(key, _)| key);
    let key = key.trim().trim_matches(['[', ']']).trim();
    if key.is_empty() { "the profile".into() } else { key.into() }
}

/// The line of the `index`-th table of an array; 1 for other notations.
fn header_line(text: &str, table: &str, index: usize) -> usize {
    let header = format!("[[{table}]]");
    let mut lines = text.lines().enumerate().filter(|(_, line)| line.trim() == header);
    lines.nth(index).map_or(1, |(line, _)| line + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "name = \"x\"\ntitle = \"X\"\n\n[[detect]]\nmodel = \"X\"\nsource = \"me\"\n";

    fn error(more: &str) -> String {
        Profile::parse(&format!("{MINIMAL}\n{more}"), Path::new("x.toml")).unwrap_err().to_string()
    }

    #[test]
    fn a_minimal_profile_has_a_name_and_a_rule() {
        let profile = Profile::parse(MINIMAL, Path::new("x.toml")).unwrap();
        assert_eq!((profile.name.as_str(), profile.detect.len()), ("x", 1));
        let again = toml::to_string(&profile).unwrap();
        assert_eq!(Profile::parse(&again, Path::new("again")).unwrap(), profile);
    }

    #[test]
    fn errors_name_file_line_and_field() {
        for (more, parts) in [
            ("[[caches]]\nlevel = 2\nkib = 0\nsource = \"s\"\n", &["x.toml:10: kib", "is 0"][..]),
            ("[[caches]]\nlevel = 2\nkib = \"big\"\nsource = \"s\"\n", &["x.toml:10: kib", "string"]),
            (
                "[[caches]]\nlevel = 2\nways = 4\nkib = 1\nsource = \"s\"\n",
                &["x.toml:10: ways", "unknown field"],
            ),
            ("[[throttle]]\ncelsius = 900\neffect = \"e\"\nsource = \"s\"\n", &["x.toml:9: celsius", "900"]),
            ("[[throttle]]\ncelsius = nan\neffect = \"e\"\nsource = \"s\"\n", &["x.toml:9: celsius", "NaN"]),
            (
                "[[bandwidth]]\ngb_per_s = [2, 1]\ntest = \"t\"\nsource = \"s\"\n",
                &["x.toml:9: gb_per_s", "turned"],
            ),
            (
                "[[bandwidth]]\ngb_per_s = [-1, 1]\ntest = \"t\"\nsource = \"s\"\n",
                &["x.toml:9: gb_per_s", "-1"],
            ),
            ("[[cores]]\nname = \"n\"\ncount = 0\nsource = \"s\"\n", &["x.toml:10: count", "is 0"]),
            ("[[detect]]\nsource = \"s\"\n", &["x.toml:8: detect", "no condition"]),
            (
                "[[sensors]]\nkind = \"hwmon\"\nscope = \"board\"\nsource = \"s\"\n",
                &["x.toml:8: sensors", "chip"],
            ),
            ("[[sensors]]\nkind = \"tea\"\nscope = \"board\"\nsource = \"s\"\n", &["x.toml:9: kind", "tea"]),
            (
                "[energy_model]\nkind = \"shipped\"\nsource = \"s\"\nscope = \"board\"\n\
                 joules_per_byte = { value = -1e-10 }\nidle_watts = { value = 2 }\n",
                &["x.toml:12: joules_per_byte", "not negative"],
            ),
            ("[[cores]\n", &["x.toml:8: cores"]),
        ] {
            let message = error(more);
            assert!(parts.iter().all(|part| message.contains(part)), "{more}: {message}");
        }
    }

    #[test]
    fn a_figure_without_a_source_is_refused() {
        for table in [
            "[[cores]]\nname = \"n\"\n",
            "[[caches]]\nlevel = 1\nkib = 32\n",
            "[memory]\nkind = \"DDR4\"\n",
            "[[bandwidth]]\ngb_per_s = [1, 2]\ntest = \"t\"\n",
            "[page]\nkib = [4]\n",
            "[[throttle]]\ncelsius = 80\neffect = \"e\"\n",
            "[[sensors]]\nkind = \"rapl\"\nscope = \"package\"\n",
            "[[counters]]\nname = \"n\"\ncounts = \"c\"\n",
            "[[detect]]\nmodel = \"m\"\n",
            "[energy_model]\nkind = \"shipped\"\nscope = \"board\"\njoules_per_byte = { value = 1e-10 }\n\
             idle_watts = { value = 2 }\n",
        ] {
            let message = error(table);
            assert!(message.contains("x.toml:8") && message.contains("missing field `source`"), "{message}");
            let message = error(&format!("{table}source = \" \"\n"));
            assert!(message.contains("source: ") && message.contains("is empty"), "{message}");
        }
    }

    #[test]
    fn text_that_is_no_profile_is_an_error() {
        for text in ["", "name", "name = \"A b\"\n", "\0\0", "name = \"x\"\ntitle = \"X\"\ndetect = []\n"] {
            let message = Profile::parse(text, Path::new("x.toml")).unwrap_err().to_string();
            assert!(message.starts_with("x.toml:"), "{message}");
        }
    }
}
