//! `pith bench --energy`: joules per token, by the protocol of the bench crate.

use super::{BenchArgs, short_name, title};
use crate::machine::{detect, own_profile, report_unusable};
use crate::output::{self, Table, TableFormat, rounded};
use anyhow::Context;
use clap::{Args, ValueEnum, ValueHint};
use pith_bench::{
    Counters, EnergySummary, Figure, Instruments, Plan, Record, Summary, Test, ThrottleWatch, Variant,
    WallTime, Workload, probe, read_log, usable_counters,
};
use pith_boards::energy_fit::read_model;
use pith_boards::meters::{Discovered, Found, PowerLog, discover};
use pith_boards::profile::Evidence;
use pith_boards::{Ceiling, EnergyModel};
use pith_meter::statistics::Interval;
use pith_meter::{Kind, Scope};
use pith_runtime::{Model, Session};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Options of energy measurements.
#[derive(Debug, Args)]
pub struct EnergyArgs {
    /// Also measure joules per token: --repetitions windows of each test, in turns, between two
    /// rests
    #[arg(long)]
    pub energy: bool,
    /// Length of a window [default: 2, or 100 periods of the slowest sensor]
    #[arg(long, value_name = "SECONDS", value_parser = output::parse_seconds, requires = "energy")]
    pub window: Option<Duration>,
    /// Length of the rests before and after [default: as --window]
    #[arg(long, value_name = "SECONDS", value_parser = output::parse_seconds, requires = "energy")]
    pub idle: Option<Duration>,
    /// CSV log of an external meter that is recording, with time_s and power_w, or voltage_v and
    /// current_a
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "energy")]
    pub power_log: Option<PathBuf>,
    /// Time 0 of the log, in seconds since 1970 [default: its times are seconds since 1970]
    #[arg(long, value_name = "SECONDS", requires = "power_log")]
    pub power_log_start: Option<f64>,
    /// Scope of the external meter
    #[arg(long, value_enum, default_value_t = LogScope::Board, requires = "power_log")]
    pub power_log_scope: LogScope,
    /// Profile with the energy model to use [default: the one that `pith board calibrate` wrote,
    /// otherwise the matching one]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "energy")]
    pub energy_model: Option<PathBuf>,
    /// Look for sensors and counters in the /proc and /sys below this folder
    #[arg(long, value_name = "DIR", default_value = "/", hide = true, value_hint = ValueHint::DirPath)]
    pub root: PathBuf,
}

/// Position of an external meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogScope {
    /// Between the supply and the board
    Board,
    /// Between the wall and the supply
    Wall,
}

impl From<LogScope> for Scope {
    fn from(scope: LogScope) -> Self {
        match scope {
            LogScope::Board => Scope::Board,
            LogScope::Wall => Scope::Wall,
        }
    }
}

/// A test of a model, in a session of its own.
struct Running {
    model: Arc<Model>,
    workload: Workload<Session>,
}

/// Measures every test of every model with every number of threads, and prints the results.
pub fn bench_energy(args: &BenchArgs, format: TableFormat, tests: &[Test]) -> anyhow::Result<()> {
    let root = args.energy.root.as_path();
    // Counters only count threads that start after them.
    let (mut counters, unusable): Counters = usable_counters(root)?;
    let Discovered { found: mut meters, unusable: no_meters } = discover(root);
    report_unusable(no_meters.iter().chain(&unusable));
    for found in &meters {
        let note = found.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        eprintln!("meter {}{note}", found.meter.name());
    }
    let model = energy_model(&args.energy)?;
    if let Some(path) = &args.energy.power_log {
        check_log(path)?;
    }
    if meters.is_empty() && args.energy.power_log.is_none() {
        eprintln!("{}", match &model {
            Some(model) => format!("no meter here: energy is modelled ({})", model.source),
            None => "no meter and no energy model here: speeds and bytes only; give --power-log FILE, or calibrate \
                     with a meter: pith board calibrate"
                .into(),
        });
    }
    let mut running = prepare(args, tests)?;
    let ceilings = probe(root, running.iter().map(|one| one.workload.session().threads()))?.rates;
    let plan = plan(args, &meters);
    announce(&plan, running.len());
    let mut watch = ThrottleWatch::new(root);
    let mut throttled = || watch.throttled();
    let mut variants: Vec<&mut dyn Variant> =
        running.iter_mut().map(|one| &mut one.workload as &mut dyn Variant).collect();
    let mut time = WallTime::new();
    let instruments = Instruments {
        meters: &mut meters,
        counters: &mut counters,
        time: &mut time,
        throttled: &mut throttled,
    };
    let mut record = plan.measure(&mut variants, instruments)?;
    if let Some(path) = &args.energy.power_log {
        // A broken log costs only its own figures.
        let shift = args.energy.power_log_start.unwrap_or(0.0);
        let end = record.idle_after.last().map_or(0.0, |rest| rest.end);
        let log = read_log(path, shift, end, plan.idle, &mut time);
        let scope = args.energy.power_log_scope.into();
        let added = log.map_err(Into::into).and_then(|log| record.add_log("log", scope, &log, &plan));
        if let Err(error) = added {
            eprintln!("--power-log: {error}; its figures are missing");
        }
    }
    if let Some(model) = &model {
        let operations: Vec<Option<f64>> =
            running.iter().map(|one| Some(one.workload.test().operations_per_token(&one.model))).collect();
        record.add_model(model, &operations);
    }
    print(&record, &running, &ceilings, format)
}

/// A session for every model, number of threads and test.
fn prepare(args: &BenchArgs, tests: &[Test]) -> anyhow::Result<Vec<Running>> {
    // Before the first session, which may restrict this thread to some CPUs.
    let choices = super::choices(args)?;
    anyhow::ensure!(
        choices.windows(2).all(|pair| pair[0].cpus == pair[1].cpus),
        "--energy measures in turns and so on the same CPUs; give --cpus, or one number of threads at a time"
    );
    let open = |path| super::open(args, path, &choices[0]);
    let files: Vec<Arc<Model>> = args.models.iter().map(|path| open(path)).collect::<anyhow::Result<_>>()?;
    let mut running = Vec::new();
    for model in files {
        for cores in &choices {
            for &test in tests {
                let session = super::session(args, &model, &[test], cores)?;
                let name = format!("{}, {}, {} threads", short_name(&model), title(test), session.threads());
                let workload = Workload::prepare(name, &model, session, test)?;
                running.push(Running { model: Arc::clone(&model), workload });
            }
        }
    }
    Ok(running)
}

/// The requested energy model, or that of this machine's own profile, or that of the matching
/// profile.
fn energy_model(args: &EnergyArgs) -> anyhow::Result<Option<EnergyModel>> {
    match &args.energy_model {
        Some(path) => {
            let model = read_model(path)?;
            Ok(Some(
                model.with_context(|| format!("--energy-model: {} has no [energy_model]", path.display()))?,
            ))
        }
        None => {
            let own = own_profile().filter(|path| path.exists());
            match own.map(|path| read_model(&path)).transpose()?.flatten() {
                Some(model) => Ok(Some(model)),
                None => Ok(detect(&Evidence::read(&args.root)?, None)?.profile.energy_model),
            }
        }
    }
}

/// A faulty log should be reported before measuring, not after. The log may also begin later.
fn check_log(path: &Path) -> anyhow::Result<()> {
    let begun = std::fs::read_to_string(path).is_ok_and(|text| text.matches('\n').count() > 2);
    if begun {
        PowerLog::read(path).context("--power-log")?;
    }
    Ok(())
}

fn plan(args: &BenchArgs, meters: &[Found]) -> Plan {
    // An existing log gives the length of windows now; one that begins later is read at the end.
    let log = args.energy.power_log.as_ref().and_then(|path| PowerLog::read(path).ok());
    let log = log.map(|log| Duration::from_secs_f64(log.period_seconds()));
    let periods = meters.iter().map(|found| found.period).chain(log);
    Plan::for_sensors(periods, args.repetitions, args.energy.window, args.energy.idle)
}

fn announce(plan: &Plan, variants: usize) {
    eprintln!(
        "resting {:.1} s, then {} windows of {:.1} s for each of {variants} tests in turns, then resting again: about {} s; \
         leave the machine alone",
        plan.idle.as_secs_f64(),
        plan.windows,
        plan.window.as_secs_f64(),
        plan.seconds(variants).ceil()
    );
}

const SPEED: [&str; 14] = [
    "model",
    "test",
    "threads",
    "tokens_per_s",
    "±",
    "gb_per_s",
    "ceiling_gb_per_s",
    "ceiling_%",
    "counted_bytes_per_token",
    "counter",
    "measured_bytes_per_token",
    "± ",
    "windows",
    "throttled",
];

/// Table columns for one kind of figure: kinds never share a column.
fn energy_columns(kind: Kind) -> [&'static str; 13] {
    let [gross, net, each] = match kind {
        Kind::Measured => ["measured_j_per_token", "measured_net_j_per_token", "measured_tokens_per_j"],
        Kind::Calibrated => {
            ["calibrated_j_per_token", "calibrated_net_j_per_token", "calibrated_tokens_per_j"]
        }
        Kind::Modelled => ["modelled_j_per_token", "modelled_net_j_per_token", "modelled_tokens_per_j"],
    };
    [
        "model",
        "test",
        "threads",
        "meter",
        "scope",
        gross,
        "±",
        net,
        "± ",
        each,
        "idle_w",
        "idle_drift_w",
        "missing",
    ]
}

fn print(
    record: &Record,
    running: &[Running],
    ceilings: &[Ceiling],
    format: TableFormat,
) -> anyhow::Result<()> {
    let summaries = record.summaries();
    anyhow::ensure!(summaries.len() == running.len(), "a test made no token");
    let lead = |one: &Running| -> Vec<Value> {
        vec![
            short_name(&one.model).into(),
            title(one.workload.test()).into(),
            one.workload.session().threads().into(),
        ]
    };
    let mut speed = Table::new(&SPEED);
    for (summary, one) in summaries.iter().zip(running) {
        let ceiling = ceilings.iter().find(|ceiling| ceiling.threads == one.workload.session().threads());
        // One row per counter, or one without a counter.
        let measured = record.counters.iter().map(Some).zip(summary.measured_bytes_per_token.iter().copied());
        let mut measured: Vec<_> = measured.collect();
        if measured.is_empty() {
            measured.push((None, None));
        }
        for (counter, bytes) in measured {
            let rest = speed_row(summary, ceiling, counter.map(String::as_str), bytes);
            speed.push([lead(one), rest].concat());
        }
    }
    let mut energy = Vec::new();
    for kind in [Kind::Measured, Kind::Calibrated, Kind::Modelled] {
        let mut table = Table::new(&energy_columns(kind));
        let mut rows = 0;
        for (summary, one) in summaries.iter().zip(running) {
            for figure in summary.energy.iter().filter(|figure| figure.kind == kind) {
                table.push([lead(one), energy_row(figure)].concat());
                rows += 1;
            }
        }
        if rows > 0 {
            energy.push(table);
        }
    }
    let comparisons = comparisons(record, running, &summaries);
    for (summary, figure) in
        summaries.iter().flat_map(|one| one.energy.iter().map(move |figure| (one, figure)))
    {
        if let Some(reason) = &figure.reason {
            if figure.missing_windows == 0 {
                eprintln!("{}: {}: {reason}", summary.name, figure.meter);
                continue;
            }
            eprintln!(
                "{}: {} of {} windows without a figure by {}: {reason}",
                summary.name, figure.missing_windows, summary.windows, figure.meter
            );
        }
    }
    if format == TableFormat::Json {
        let parse = |table: &Table| serde_json::from_str::<Value>(&table.render(TableFormat::Json));
        let energy: Vec<Value> = energy.iter().map(parse).collect::<Result<_, _>>()?;
        let energy: Vec<Value> =
            energy.into_iter().flat_map(|table| table.as_array().cloned().unwrap_or_default()).collect();
        let all = json!({"speed": parse(&speed)?, "energy": energy, "comparisons": comparisons});
        return Ok(output::print(&format!("{all:#}\n"))?);
    }
    let mut text = speed.render(format);
    for table in &energy {
        text += "\n";
        text += &table.render(format);
    }
    for one in &comparisons {
        text += &format!("\n{}", one.as_str().unwrap_or_default());
    }
    if !comparisons.is_empty() {
        text += "\n";
    }
    Ok(output::print(&text)?)
}

fn speed_row(
    summary: &Summary,
    ceiling: Option<&Ceiling>,
    counter: Option<&str>,
    measured: Option<Interval>,
) -> Vec<Value> {
    let rate = summary.bytes_per_s();
    let share = ceiling.and_then(|ceiling| ceiling.share(rate)).map(|share| 100.0 * share);
    vec![
        rounded(summary.tokens_per_s.mean, 2),
        optional(summary.tokens_per_s.half_width, 2),
        rounded(rate / 1e9, 3),
        optional(ceiling.map(|ceiling| ceiling.bytes_per_s / 1e9), 2),
        optional(share, 1),
        rounded(summary.bytes_per_token, 0),
        counter.map_or(Value::Null, Value::from),
        optional(measured.map(|bytes| bytes.mean), 0),
        optional(measured.and_then(|bytes| bytes.half_width), 0),
        summary.windows.into(),
        summary.throttled_windows.map_or("unknown".into(), |count| {
            Value::from(if count == 0 { "no".to_string() } else { format!("in {count} windows") })
        }),
    ]
}

fn energy_row(figure: &EnergySummary) -> Vec<Value> {
    let (gross, net) = (figure.gross_joules_per_token, figure.net_joules_per_token);
    vec![
        figure.meter.clone().into(),
        json!(figure.scope),
        significant(gross.map(|gross| gross.mean)),
        significant(gross.and_then(|gross| gross.half_width)),
        significant(net.map(|net| net.mean)),
        significant(net.and_then(|net| net.half_width)),
        significant(figure.tokens_per_joule()),
        optional(figure.idle_watts, 3),
        optional(figure.idle_drift_watts, 3),
        figure.missing_windows.into(),
    ]
}

/// Compares every test with the first of the same name, as text.
fn comparisons(record: &Record, running: &[Running], summaries: &[Summary]) -> Vec<Value> {
    let mut all = Vec::new();
    for (second, one) in running.iter().enumerate() {
        let same = |other: &Running| other.workload.test() == one.workload.test();
        let first = running.iter().position(same).expect("it is the same as itself");
        if first == second {
            continue;
        }
        for (figure, found) in record.compare(first, second) {
            let name = match figure {
                Figure::TokensPerSecond => "tokens/s".to_string(),
                Figure::JoulesPerToken(meter) => {
                    format!("J/token by {} ({})", meter.name, output::kind_name(meter.kind))
                }
            };
            let said = match found.ratio {
                Some(ratio) => format!("× {ratio:.3}"),
                None => "not distinguishable".into(),
            };
            let (from, to) = (&summaries[first].name, &summaries[second].name);
            all.push(Value::from(format!("{from} → {to}: {name} {said}")));
        }
    }
    all
}

fn optional(value: Option<f64>, decimals: i32) -> Value {
    value.filter(|value| value.is_finite()).map_or(Value::Null, |value| rounded(value, decimals))
}

/// Four significant digits.
fn significant(value: Option<f64>) -> Value {
    let Some(value) = value.filter(|value| value.is_finite()) else { return Value::Null };
    if value == 0.0 {
        return Value::from(0.0);
    }
    format!("{value:.3e}").parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_four_digits_and_unknown_ones_none() {
        assert_eq!(significant(Some(0.000_123_456)), Value::from(0.000_123_5));
        assert_eq!(significant(Some(12345.6)), Value::from(12350.0));
        assert_eq!((significant(None), optional(Some(f64::NAN), 2)), (Value::Null, Value::Null));
    }

    #[test]
    fn kinds_never_share_a_column() {
        let [a, b, c] = [Kind::Measured, Kind::Calibrated, Kind::Modelled].map(energy_columns);
        assert!(a[5] != b[5] && b[5] != c[5] && a[5] != c[5]);
    }
}
