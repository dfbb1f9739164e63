//! The power management chip of a Raspberry Pi 5, through `vcgencmd pmic_read_adc`.
//!
//! It measures voltage and current of the rails it generates: cores, memory, I/O. USB devices, the
//! load on the GPIO header's 5 V and the regulators' own losses are missing, so the sum is not the
//! board's power.

use super::{Discovered, Found, Sampler};
use pith_meter::{Kind, Scope};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Sampling period. One call costs a few milliseconds of one core.
const PERIOD: Duration = Duration::from_millis(200);
/// Time limit of a call: the command answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(2);
const NOTE: &str = "sum of the rails that the power management chip measures; USB, HATs, NVMe and the losses of the \
                    regulators are not in it";

pub(super) fn discover(root: &Path, all: &mut Discovered) {
    if !is_there(root) {
        return;
    }
    let command = ["usr/bin/vcgencmd", "opt/vc/bin/vcgencmd", "usr/local/bin/vcgencmd"]
        .iter()
        .map(|path| root.join(path))
        .find(|path| path.exists());
    let Some(command) = command else {
        return all.unusable("pmic", "there is no vcgencmd; install it: sudo apt install raspi-utils");
    };
    if let Err(reason) = read(&command) {
        return all.unusable("pmic", reason);
    }
    let source = Box::new(move || read(&command));
    let meter = Sampler::spawn("pmic".into(), Scope::Rail, Kind::Measured, PERIOD, source);
    all.found.push(Found { meter: Box::new(meter), period: PERIOD, note: Some(NOTE.into()) });
}

/// Whether the board has the chip: a Raspberry Pi 5, 500 (whose name starts the same) or Compute
/// Module 5.
pub(crate) fn is_there(root: &Path) -> bool {
    let model = ["proc/device-tree/model", "sys/firmware/devicetree/base/model"]
        .iter()
        .find_map(|path| std::fs::read_to_string(root.join(path)).ok())
        .unwrap_or_default();
    ["Raspberry Pi 5", "Raspberry Pi Compute Module 5"].iter().any(|name| model.starts_with(name))
}

/// Watts in the output of `vcgencmd pmic_read_adc`: the sum of volt × ampere over all rails with
/// both.
///
/// A line is `NAME_A current(N)=0.1A` or `NAME_V volt(N)=1.1V`, in any order; the unit may be
/// missing. A rail with only one of the two (EXT5V, BATT) is skipped. If one of the processor's own
/// rails is incomplete, there is no sum.
pub fn parse(text: &str) -> Result<f64, String> {
    let mut rails: BTreeMap<&str, [Option<f64>; 2]> = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let wrong = || format!("found \"{line}\", expected a line such as \"VDD_CORE_A current(7)=1.2A\"");
        let (name, reading) = line.split_once(char::is_whitespace).ok_or_else(wrong)?;
        let (rail, half) = match (name.strip_suffix("_A"), name.strip_suffix("_V")) {
            (Some(rail), _) => (rail, 0),
            (_, Some(rail)) => (rail, 1),
            _ => return Err(wrong()),
        };
        let value = reading.split_once('=').ok_or_else(wrong)?.1.trim_end_matches(['A', 'V']);
        let value: f64 = value.parse().map_err(|_| wrong())?;
        if !(0.0..=100.0).contains(&value) {
            return Err(format!("{name} is {value}, which no rail of this board can have"));
        }
        rails.entry(rail).or_default()[half] = Some(value);
    }
    if let Some((rail, _)) = rails.iter().find(|(_, [amperes, volts])| amperes.is_some() && volts.is_none()) {
        return Err(format!("{rail} has a current and no voltage"));
    }
    let cores = rails.get("VDD_CORE").is_some_and(|[amperes, volts]| amperes.is_some() && volts.is_some());
    if !cores {
        return Err("there is no power of VDD_CORE; is this a Raspberry Pi 5?".into());
    }
    Ok(rails.values().filter_map(|[amperes, volts]| Some((*amperes)? * (*volts)?)).sum())
}

fn read(command: &Path) -> Result<f64, String> {
    let failed = |error: std::io::Error| {
        format!("{}: {error}; if it may not be run: sudo usermod -aG video $USER", command.display())
    };
    let mut child = Command::new(command)
        .arg("pmic_read_adc")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if started.elapsed() > PATIENCE {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{} gave no answer for {} s", command.display(), PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let (mut out, mut errors) = (String::new(), String::new());
    // The answer is a few hundred bytes, which the pipe held until now.
    child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut out)).transpose().map_err(failed)?;
    child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut errors)).transpose().map_err(failed)?;
    if !status.success() {
        let said = errors.trim().lines().next().unwrap_or_default().to_string();
        return Err(format!(
            "{} failed ({status}): {said}; if it may not be run: sudo usermod -aG video $USER, and log in anew",
            command.display()
        ));
    }
    parse(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_output_give_the_sum_of_the_rails() {
        let golden = include_str!("../../tests/sensors/pmic.txt");
        let watts = parse(golden).unwrap();
        // Computed by hand from the twelve pairs in the file.
        let pairs = [
            (0.0, 3.799996),
            (0.06245952, 3.306322),
            (0.1610285, 1.798289),
            (0.00780744, 1.102929),
            (0.0, 0.6047613),
            (0.1756674, 1.104394),
            (0.3279125, 0.8025633),
            (10.87674, 0.8974594),
            (0.0003663, 3.304942),
            (0.00042735, 3.302194),
            (0.00579975, 0.7973619),
            (0.0136752, 5.07056),
        ];
        let expected: f64 = pairs.iter().map(|(amperes, volts)| amperes * volts).sum();
        assert!((watts - expected).abs() < 1e-9, "{watts} {expected}");
        let plain: String =
            golden.lines().map(|line| line.trim().trim_end_matches(['A', 'V']).to_string() + "\n").collect();
        assert_eq!(parse(&plain).unwrap(), watts);
    }

    #[test]
    fn halves_text_and_impossible_values_give_no_sum() {
        let error = |text: &str| parse(text).unwrap_err();
        assert!(error("").contains("VDD_CORE"));
        assert!(error("error=1 error_msg=\"Command not registered\"").contains("error_msg"));
        assert!(error("VDD_CORE_A current(7)=1.0A\n").contains("no voltage"));
        assert!(error("VDD_CORE_A current(7)=-1.0A\nVDD_CORE_V volt(1)=1V").contains("-1"));
        assert!(error("VDD_CORE_A current(7)=NaNA\nVDD_CORE_V volt(1)=1V").contains("NaN"));
        assert!(error("VDD_CORE_A current(7)=lots\n").contains("lots"));
    }
}
