//! `pith board calibrate`

use crate::machine::{own_profile, report_unusable};
use crate::output;
use clap::{Args, ValueHint};
use pith_bench::{
    Calibration, CalibrationPlan, Load, Loads, MachineLoads, MemoryProbe, WallTime, probe, thread_counts,
    usable_counters, widest,
};
use pith_boards::energy_fit::{Fit, OwnProfile, Term, fit, read_model, read_table, write_profile};
use pith_boards::meters::{Found, discover};
use pith_boards::{Ceiling, EnergyModel, Machine};
use pith_meter::Scope;
use pith_runtime::MAX_THREADS;
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `pith board calibrate`
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// Fit a table instead of measuring. Columns: bytes_per_token; tokens_per_s or
    /// seconds_per_token; joules_per_token; if known, operations_per_token and name. Nothing is
    /// saved without --output
    #[arg(long, value_name = "FILE.csv", value_hint = ValueHint::FilePath, conflicts_with_all = ["meter", "threads", "window"])]
    pub table: Option<PathBuf>,
    /// Watts at rest, if known; otherwise they are fitted
    #[arg(long, value_name = "WATTS")]
    pub idle_watts: Option<f64>,
    /// Meter to calibrate with [default: the one with the largest scope]
    #[arg(long, value_name = "NAME")]
    pub meter: Option<String>,
    /// Maximum number of threads [default: all cores]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
    /// Length of a window [default: 2, or 100 periods of the sensor]
    #[arg(long, value_name = "SECONDS", value_parser = output::parse_seconds)]
    pub window: Option<Duration>,
    /// Windows of every load
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub rounds: usize,
    /// File to write [default: this machine's profile in the configuration folder]
    #[arg(short, long, value_name = "FILE.toml", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Write no file
    #[arg(long, conflicts_with = "output")]
    pub dry_run: bool,
    /// Look for sensors and counters in the /proc and /sys below this folder
    #[arg(long, value_name = "DIR", default_value = "/", hide = true, value_hint = ValueHint::DirPath)]
    pub root: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Calibrates this machine's energy model, or fits a table. `shipped`: the energy model of the
/// board's profile, which is kept where there is nothing to calibrate with.
pub fn calibrate(args: CalibrateArgs, shipped: Option<EnergyModel>) -> anyhow::Result<()> {
    anyhow::ensure!(args.rounds > 0, "--rounds is 0, expected at least 1");
    if let Some(threads) = args.threads {
        anyhow::ensure!(
            (1..=MAX_THREADS).contains(&threads),
            "--threads is {threads}, expected 1 to {MAX_THREADS}"
        );
    }
    if let Some(watts) = args.idle_watts {
        anyhow::ensure!(watts.is_finite() && watts >= 0.0, "--idle-watts is {watts}, expected 0 or more");
    }
    match &args.table {
        Some(table) => from_table(&args, table),
        None => from_this_machine(&args, shipped),
    }
}

fn from_table(args: &CalibrateArgs, table: &Path) -> anyhow::Result<()> {
    let observations = read_table(table)?;
    let fit = fit(&observations, args.idle_watts)?;
    let mut saved = None;
    if let Some(path) = &args.output {
        let model = fit
            .model(Scope::Board, &format!("of the table {}", table.display()))
            .map_err(anyhow::Error::msg)?;
        let root = Path::new("/");
        let notes = vec!["The model of energy is fitted to a table, and need not be of this machine.".into()];
        let profile = OwnProfile::new(root, &Machine::read(root)?, &[], Some(model), notes);
        write_profile(path, &profile.to_toml())?;
        saved = Some(path);
    }
    let json = json!({"fit": fit, "saved": saved});
    let mut text = describe(&fit);
    if let Some(path) = saved {
        let _ = writeln!(text, "\nsaved {}", path.display());
    }
    Ok(output::print(&if args.json { format!("{json:#}\n") } else { text })?)
}

fn from_this_machine(args: &CalibrateArgs, shipped: Option<EnergyModel>) -> anyhow::Result<()> {
    let root = args.root.as_path();
    let path = match (&args.output, args.dry_run) {
        (_, true) => None,
        (Some(path), _) => Some(path.clone()),
        (None, _) => Some(own_profile().ok_or_else(|| {
            anyhow::anyhow!(
                "there is no configuration folder: neither XDG_CONFIG_HOME nor HOME is set; give --output"
            )
        })?),
    };
    let machine = Machine::read(root)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or(cores).max(1);
    let (counters, unusable_counters) = usable_counters(root)?;
    eprintln!("reading memory with 1 to {threads} threads");
    let MemoryProbe { buffer_bytes, rates } = probe(root, thread_counts(threads))?;

    let mut all = discover(root);
    report_unusable(all.unusable.iter().chain(&unusable_counters));
    let names: Vec<String> = all.found.iter().map(|found| found.meter.name().to_string()).collect();
    let chosen =
        match &args.meter {
            Some(wanted) => Some(names.iter().position(|name| name == wanted).ok_or_else(|| {
                anyhow::anyhow!("--meter: there is no \"{wanted}\"; found {}", list(&names))
            })?),
            None => widest(&all.found),
        };
    let mut measured = None;
    if let Some(index) = chosen {
        measured = Some(by_meter(args, &mut all.found[index], threads, buffer_bytes)?);
    }

    // Without a meter the known model is kept: an earlier calibration, or the shipped one.
    let before = match &path {
        Some(path) if path.exists() => read_model(path)?,
        _ => None,
    };
    let model = match &measured {
        Some(measured) => Some(measured.model.clone()),
        None => before.or(shipped),
    };
    let notes = vec![match &measured {
        Some(measured) => format!("Calibrated by the meter \"{}\".", measured.meter),
        None => "No meter to calibrate by: figures of energy are modelled.".into(),
    }];
    if let Some(path) = &path {
        let profile = OwnProfile::new(root, &machine, &rates, model.clone(), notes);
        write_profile(path, &profile.to_toml())?;
    }
    let counter_names: Vec<String> = counters.iter().map(|counter| counter.name().to_string()).collect();
    if args.json {
        let value = json!({
            "memory": rates,
            "buffer_bytes": buffer_bytes,
            "counters": counter_names,
            "meters": names,
            "calibrated_by": measured.as_ref().map(|measured| measured.meter.clone()),
            "idle_watts": measured.as_ref().and_then(|measured| measured.idle_watts),
            "fit": measured.as_ref().map(|measured| &measured.fit),
            "observations": measured.as_ref().map(|measured| &measured.observations),
            "energy_model": model,
            "saved": path,
        });
        return Ok(output::print(&format!("{value:#}\n"))?);
    }
    let mut text = memory(&rates);
    let _ = writeln!(
        text,
        "counters  {}",
        if counters.is_empty() { "none can be used".into() } else { list(&counter_names) }
    );
    match &measured {
        Some(measured) => text += &calibration_text(measured),
        None => {
            let model = match &model {
                Some(model) => format!("coefficients as they were ({})", model.source),
                None => "and no coefficients either: no figures".into(),
            };
            let _ = writeln!(text, "energy    no meter to calibrate by; every figure is modelled, {model}");
        }
    }
    if let Some(path) = &path {
        let _ = writeln!(text, "saved     {}", path.display());
    }
    Ok(output::print(&text)?)
}

fn by_meter(
    args: &CalibrateArgs,
    found: &mut Found,
    threads: usize,
    buffer_bytes: usize,
) -> anyhow::Result<Calibration> {
    let mut machine = MachineLoads::new(buffer_bytes);
    let loads = Load::all(threads, machine.can_multiply());
    let plan = CalibrationPlan::new(found, loads, args.rounds, args.window)?;
    eprintln!(
        "calibrating by {} ({}): about {:.0} s; leave the machine alone",
        found.meter.name(),
        output::kind_name(found.meter.kind()),
        plan.seconds()
    );
    Ok(plan.run(found, args.idle_watts, &mut machine, &mut WallTime::new(), |round, load| {
        eprintln!("round {} of {}: {load}", round + 1, args.rounds);
    })?)
}

/// A meter's results as text.
fn calibration_text(found: &Calibration) -> String {
    let mut text = String::new();
    if let Some(idle) = found.idle_watts {
        let width = plus_minus(idle.half_width, 3);
        let _ = writeln!(text, "idle      {:.3} W{width} by {}", idle.mean, found.meter);
    }
    for reason in &found.missing {
        let _ = writeln!(text, "missing   {reason}");
    }
    text + "\n" + &describe(&found.fit) + "\n"
}

fn memory(rates: &[Ceiling]) -> String {
    let mut text = String::new();
    for rate in rates {
        let what = if rate.threads == 1 { "thread" } else { "threads" };
        let _ =
            writeln!(text, "memory    {:.2} GB/s read by {} {what}", rate.bytes_per_s / 1e9, rate.threads);
    }
    text
}

/// A fit as text: coefficients, their quality, and every residual.
fn describe(fit: &Fit) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "joules = e_byte·bytes + e_operation·operations + P_idle·seconds, {} observations",
        fit.residuals.len()
    );
    for one in &fit.coefficients {
        let (name, factor, unit) = unit(one.term);
        let interval =
            one.interval95.map_or("no interval: nothing is left over to tell".into(), |[low, high]| {
                format!("95 %: {:.4} to {:.4}", low * factor, high * factor)
            });
        let _ = writeln!(
            text,
            "{name:<12} {:.4} {unit} ({interval}; robust estimate {:.4})",
            one.value * factor,
            one.robust * factor
        );
    }
    if let Some(watts) = fit.given_idle_watts {
        let _ = writeln!(text, "P_idle       {watts} W (given)");
    }
    for term in &fit.not_shown {
        let (name, ..) = unit(*term);
        let _ = writeln!(
            text,
            "{name:<12} not shown: beside the others it comes out negative, so that its cost is counted in theirs"
        );
    }
    if let Some(correlation) = fit.byte_time_correlation.filter(|value| value.abs() > 0.9) {
        let _ = writeln!(
            text,
            "bytes and time go together ({correlation:.3}): these observations hardly tell their costs apart; add others, \
             or give --idle-watts"
        );
    }
    let _ =
        writeln!(text, "residuals    {:.1} % of the mean energy (root of the mean square)", fit.rms_percent);
    for one in &fit.residuals {
        let _ = writeln!(
            text,
            "  {:<22} {:>10.4} J measured {:>10.4} J fitted {:>+7.1} %{}",
            one.label,
            one.joules,
            one.fitted_joules,
            one.percent,
            match one.studentised {
                Some(value) if one.stands_out => format!("  stands out ({value:+.1} standard errors)"),
                _ => String::new(),
            }
        );
    }
    for other in &fit.alternatives {
        let terms: Vec<String> = other
            .terms
            .iter()
            .map(|(term, value)| {
                let (name, factor, unit) = unit(*term);
                format!("{name} {:.4} {unit}", value * factor)
            })
            .collect();
        let _ = writeln!(text, "or           {}: residuals {:.1} %", terms.join(", "), other.rms_percent);
    }
    text
}

/// Printed name, factor and unit of a coefficient.
fn unit(term: Term) -> (&'static str, f64, &'static str) {
    match term {
        Term::Byte => ("e_byte", 1e9, "nJ/byte"),
        Term::Operation => ("e_operation", 1e12, "pJ/operation"),
        Term::Time => ("P_idle", 1.0, "W"),
    }
}

fn plus_minus(half_width: Option<f64>, decimals: usize) -> String {
    half_width.map(|half| format!(" ± {half:.decimals$}")).unwrap_or_default()
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_boards::energy_fit::Observation;

    #[test]
    fn a_fit_is_printed_with_every_residual() {
        let seen = |label: &str, bytes: f64, joules: f64| Observation {
            label: label.into(),
            bytes,
            operations: None,
            seconds: 1.0,
            joules,
        };
        let all = [seen("idle", 0.0, 3.0), seen("a", 4e9, 5.1), seen("b", 8e9, 6.9), seen("c", 6e9, 6.05)];
        let text = describe(&fit(&all, None).unwrap());
        for part in ["e_byte", "nJ/byte", "P_idle", "95 %", "robust", "  idle", "  c "] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
