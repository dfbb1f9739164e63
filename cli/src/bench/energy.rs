//! `pith bench --energy`: joules for every token, by the measuring protocol of the boards crate.

use super::{BenchArgs, Test, short_name};
use crate::machine::{detect, own_profile, report_unusable, usable_counters};
use crate::output::{self, Table, TableFormat, rounded};
use anyhow::Context;
use clap::{Args, ValueEnum, ValueHint};
use pith_boards::calibrate::read_model;
use pith_boards::meters::{Discovered, Found, PowerLog, discover};
use pith_boards::profile::Evidence;
use pith_boards::protocol::{
    EnergySummary, Instruments, Plan, Record, Summary, ThrottleWatch, Variant, WallTime, Work, measure,
};
use pith_boards::{Ceiling, EnergyModel, Machine, available_memory, buffer_bytes, ceilings};
use pith_format::{Kind as TensorKind, Role};
use pith_meter::statistics::{Interval, compare};
use pith_runtime::{Kind, Model, Scope, Session};
use serde_json::{Value, json};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A window is at least so long where no sensor asks for more.
const LEAST_WINDOW: Duration = Duration::from_secs(2);
/// Runs of each test before its windows: processors and their supplies take a few to settle.
const WARMUPS: usize = 3;
/// Time to probe the memory, for each number of threads and round.
const PROBE: Duration = Duration::from_millis(400);

/// Options of measuring energy.
#[derive(Debug, Args)]
pub struct EnergyArgs {
    /// Measure joules a token too: --repetitions windows of each test, in turns, between two rests
    #[arg(long)]
    pub energy: bool,
    /// Length of a window [default: 2, or 100 periods of the slowest sensor]
    #[arg(long, value_name = "SECONDS", value_parser = output::parse_seconds, requires = "energy")]
    pub window: Option<Duration>,
    /// Length of the rests before and after [default: as --window]
    #[arg(long, value_name = "SECONDS", value_parser = output::parse_seconds, requires = "energy")]
    pub idle: Option<Duration>,
    /// Log that an external meter writes meanwhile, CSV with time_s and power_w, or voltage_v and current_a
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "energy")]
    pub power_log: Option<PathBuf>,
    /// Second since 1970 at which the log's time is 0 [default: its times are seconds since 1970]
    #[arg(long, value_name = "SECONDS", requires = "power_log")]
    pub power_log_start: Option<f64>,
    /// What the external meter covers
    #[arg(long, value_enum, default_value_t = LogScope::Board, requires = "power_log")]
    pub power_log_scope: LogScope,
    /// Profile whose energy model is used [default: the one that `pith board calibrate` wrote, or that of the
    /// profile that fits]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "energy")]
    pub energy_model: Option<PathBuf>,
}

/// Where an external meter sits.
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

/// One test of one model with a session of its own.
struct Running<'a> {
    model: &'a Arc<Model>,
    session: Session,
    test: Test,
    tokens: Vec<u32>,
}

impl Variant for Running<'_> {
    fn name(&self) -> String {
        format!("{}, {}, {} threads", short_name(self.model), self.test.name(), self.session.threads())
    }

    fn run(&mut self) -> Result<Work, Box<dyn Error + Send + Sync>> {
        let traffic = self.test.run(&mut self.session, &self.tokens)?;
        Ok(Work { tokens: self.test.tokens, traffic })
    }
}

/// Measures every test of every model with every number of threads, and prints what was found.
pub fn bench_energy(args: &BenchArgs, format: TableFormat, tests: &[Test]) -> anyhow::Result<()> {
    let root = Path::new("/");
    // Before any thread is started that counters are to see.
    let (mut counters, unusable) = usable_counters(root)?;
    let Discovered { found: mut meters, unusable: no_meters } = discover(root);
    report_unusable(no_meters.iter().chain(&unusable));
    for found in &meters {
        let note = found.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        eprintln!("meter {}{note}", found.meter.name());
    }
    let model = energy_model(&args.energy.energy_model)?;
    if let Some(path) = &args.energy.power_log {
        check_log(path)?;
    }
    if meters.is_empty() && args.energy.power_log.is_none() {
        eprintln!("{}", match &model {
            Some(model) => format!("no meter here: energy is modelled ({})", model.source),
            None => "no meter and no model of energy here: speeds and bytes only; give --power-log FILE, or calibrate \
                     by a meter: pith board calibrate"
                .into(),
        });
    }

    let files: Vec<Arc<Model>> =
        args.models.iter().map(|path| super::open(args, path)).collect::<anyhow::Result<_>>()?;
    // Before the first session, which may keep this thread on some CPUs.
    let choices = super::choices(args)?;
    anyhow::ensure!(
        choices.windows(2).all(|pair| pair[0].cpus == pair[1].cpus),
        "--energy measures in turns and so on the same CPUs; give --cpus, or one number of threads at a time"
    );
    let mut running = Vec::new();
    for model in &files {
        for cores in &choices {
            for &test in tests {
                let mut session = super::session(args, model, &[test], cores)?;
                let tokens = test.prepare(model, &mut session)?;
                running.push(Running { model, session, test, tokens });
            }
        }
    }
    let ceilings = probe(running.iter().map(|one| one.session.threads()))?;
    let plan = plan(args, &meters);
    announce(&plan, running.len());
    let mut watch = ThrottleWatch::new(root);
    let mut throttled = || watch.throttled();
    let mut variants: Vec<&mut dyn Variant> = running.iter_mut().map(|one| one as &mut dyn Variant).collect();
    let instruments = Instruments {
        meters: &mut meters,
        counters: &mut counters,
        time: &mut WallTime::new(),
        throttled: &mut throttled,
    };
    let mut record = measure(&plan, &mut variants, instruments)?;
    if let Some(path) = &args.energy.power_log {
        // What was measured meanwhile is not lost for it.
        let log = PowerLog::read(path).map(|log| log.shifted(args.energy.power_log_start.unwrap_or(0.0)));
        let scope = args.energy.power_log_scope.into();
        if let Err(error) = log.and_then(|log| record.add_log("log", scope, &log, &plan)) {
            eprintln!("--power-log: {error}; its figures are missing");
        }
    }
    if let Some(model) = &model {
        let operations: Vec<Option<f64>> =
            running.iter().map(|one| Some(operations_per_token(one.model, one.test))).collect();
        record.add_model(model, &operations);
    }
    print(&record, &running, &ceilings, format)
}

/// The model of energy asked for, or the one of this machine's own profile, or of the profile that fits it.
fn energy_model(given: &Option<PathBuf>) -> anyhow::Result<Option<EnergyModel>> {
    match given {
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
                None => Ok(detect(&Evidence::read(Path::new("/"))?, None)?.profile.energy_model),
            }
        }
    }
}

fn probe(threads: impl Iterator<Item = usize>) -> anyhow::Result<Vec<Ceiling>> {
    let mut threads: Vec<usize> = threads.collect();
    threads.sort_unstable();
    threads.dedup();
    let bytes = buffer_bytes(&Machine::detect()?, available_memory()?);
    Ok(ceilings(bytes, threads, PROBE))
}

/// A log that has begun and is wrong is better known before measuring than after. It may also begin later.
fn check_log(path: &Path) -> anyhow::Result<()> {
    let begun = std::fs::read_to_string(path).is_ok_and(|text| text.matches('\n').count() > 2);
    if begun {
        PowerLog::read(path).context("--power-log")?;
    }
    Ok(())
}

fn plan(args: &BenchArgs, meters: &[Found]) -> Plan {
    // A log that has begun already says how long windows have to be; one that has not is looked at in the end.
    let log = args.energy.power_log.as_ref().and_then(|path| PowerLog::read(path).ok());
    let log = log.map(|log| Duration::from_secs_f64(log.period_seconds()));
    let slowest = Plan::window_for(meters.iter().map(|found| found.period).chain(log), LEAST_WINDOW);
    let window = args.energy.window.unwrap_or(slowest);
    Plan { warmups: WARMUPS, windows: args.repetitions, window, idle: args.energy.idle.unwrap_or(window) }
}

fn announce(plan: &Plan, variants: usize) {
    let seconds =
        plan.window.as_secs_f64() * (plan.windows * variants) as f64 + 2.0 * plan.idle.as_secs_f64();
    eprintln!(
        "resting {:.1} s, then {} windows of {:.1} s for each of {variants} tests in turns, then resting again: about {} s; \
         leave the machine alone",
        plan.idle.as_secs_f64(),
        plan.windows,
        plan.window.as_secs_f64(),
        seconds.ceil()
    );
}

/// Multiplications and additions of the matrices for one token of a test: two for each weight. A prompt needs logits of its
/// last token alone.
fn operations_per_token(model: &Model, test: Test) -> f64 {
    let (mut layers, mut head) = (0.0, 0.0);
    for entry in model.index().entries().iter().filter(|entry| entry.kind() == TensorKind::Matrix) {
        let operations = 2.0 * entry.rows as f64 * entry.cols as f64;
        match entry.id.role {
            // Of a head in two parts little of the second is read.
            Role::PositionEmbedding | Role::HeadRest => {}
            Role::TokenEmbedding if !model.config().tied_head => {}
            Role::TokenEmbedding | Role::Head => head += operations,
            _ => layers += operations,
        }
    }
    if test.prefill { layers + head / test.tokens as f64 } else { layers + head }
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

/// Columns of the table of one kind of figure: kinds never share a column.
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
    running: &[Running<'_>],
    ceilings: &[Ceiling],
    format: TableFormat,
) -> anyhow::Result<()> {
    let summaries = record.summaries();
    anyhow::ensure!(summaries.len() == running.len(), "a test made no token");
    let lead = |one: &Running<'_>| -> Vec<Value> {
        vec![short_name(one.model).into(), one.test.name().into(), one.session.threads().into()]
    };
    let mut speed = Table::new(&SPEED);
    for (summary, one) in summaries.iter().zip(running) {
        let ceiling = ceilings.iter().find(|ceiling| ceiling.threads == one.session.threads());
        // A row for every counter, or one without.
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
    let rate = summary.bytes_per_token * summary.tokens_per_s.mean;
    let share =
        ceiling.filter(|ceiling| ceiling.bytes_per_s > 0.0).map(|ceiling| 100.0 * rate / ceiling.bytes_per_s);
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
    let each = gross.filter(|gross| gross.mean > 0.0).map(|gross| 1.0 / gross.mean);
    vec![
        figure.meter.clone().into(),
        json!(figure.scope),
        significant(gross.map(|gross| gross.mean)),
        significant(gross.and_then(|gross| gross.half_width)),
        significant(net.map(|net| net.mean)),
        significant(net.and_then(|net| net.half_width)),
        significant(each),
        optional(figure.idle_watts, 3),
        optional(figure.idle_drift_watts, 3),
        figure.missing_windows.into(),
    ]
}

/// Tests of the same name are compared with the first of them.
fn comparisons(record: &Record, running: &[Running<'_>], summaries: &[Summary]) -> Vec<Value> {
    let mut all = Vec::new();
    for (second, one) in running.iter().enumerate() {
        let Some(first) = running.iter().position(|other| other.test.name() == one.test.name()) else {
            continue;
        };
        if first == second {
            continue;
        }
        let rates = |index: usize| -> Vec<f64> {
            let windows = &record.variants[index].1;
            windows.iter().map(|window| window.work.tokens as f64 / (window.end - window.start)).collect()
        };
        let mut say = |what: String, a: Vec<f64>, b: Vec<f64>| {
            let Some(found) = compare(&a, &b) else { return };
            let said = match found.ratio {
                Some(ratio) => format!("× {ratio:.3}"),
                None => "not distinguishable".into(),
            };
            let (from, to) = (&summaries[first].name, &summaries[second].name);
            all.push(Value::from(format!("{from} → {to}: {what} {said}")));
        };
        say("tokens/s".into(), rates(first), rates(second));
        // A model's figures differ as the clock does: that was said.
        let sensors = record.meters.iter().enumerate().filter(|(_, info)| info.kind != Kind::Modelled);
        for (meter, info) in sensors {
            let figures = |index: usize| {
                record.joules_per_token(index, meter).into_iter().collect::<Option<Vec<f64>>>()
            };
            if let (Some(a), Some(b)) = (figures(first), figures(second)) {
                say(format!("J/token by {} ({})", info.name, output::kind_name(info.kind)), a, b);
            }
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
