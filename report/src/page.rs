//! One self-contained page from ledgers.

use crate::charts::{self, Chart};
use crate::error::ReportError;
use crate::reader::LedgerFile;
use crate::run::{Run, runs};
use crate::tables::{self, Table};
use crate::timeline::Bins;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, context};
use pith_meter::{Kind, Scope};
use pith_runtime::Phase;
use serde::Serialize;

/// Charts and tables of a single run.
#[derive(Serialize)]
struct Details {
    id: String,
    title: String,
    facts: Vec<(&'static str, Option<String>)>,
    warnings: Vec<String>,
    charts: Vec<Chart>,
    tables: Vec<Table>,
}

/// One part of the page.
#[derive(Serialize)]
struct Section {
    id: &'static str,
    title: &'static str,
    intro: String,
    charts: Vec<Chart>,
    tables: Vec<Table>,
}

/// Draws the page: HTML that is well-formed XML, without external resources or scripts.
pub fn page(ledgers: &[LedgerFile]) -> Result<String, ReportError> {
    if ledgers.is_empty() {
        return Err(ReportError::NoLedgers);
    }
    let runs = runs(ledgers);
    let sections = [energy(&runs), speed(&runs), memory(&runs)];
    let details: Vec<Details> = runs.iter().map(details).collect();
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page", include_str!("page.html"))?;
    let title = match &runs[..] {
        [run] => format!("What a token costs: {}", run.label),
        _ => format!("What a token costs: {} runs", runs.len()),
    };
    let page = environment.get_template("page")?.render(context! {
        title,
        style => include_str!("page.css"),
        version => env!("CARGO_PKG_VERSION"),
        runs => Value::from(Serde(tables::runs(&runs))),
        sections => Value::from(Serde(sections)),
        details => Value::from(Serde(details)),
    })?;
    Ok(page)
}

const KINDS: [Kind; 3] = [Kind::Measured, Kind::Calibrated, Kind::Modelled];
const SCOPES: [Scope; 4] = [Scope::Rail, Scope::Package, Scope::Board, Scope::Wall];

fn energy(runs: &[Run<'_>]) -> Section {
    let each = KINDS.into_iter().flat_map(|kind| SCOPES.map(|scope| charts::energy(runs, kind, scope)));
    let has =
        |kind: Kind| runs.iter().any(|run| run.ledger.header.meters.iter().any(|meter| meter.kind == kind));
    let without: Vec<_> = runs.iter().filter(|run| run.ledger.header.meters.is_empty()).collect();
    let names: Vec<_> = without.iter().map(|run| run.numbered()).collect();
    let intro = match without.len() {
        0 => String::new(),
        count if count == runs.len() => "No run had a meter: every figure of energy is missing.".into(),
        _ => format!("Without a meter, so that their figures are missing: {}.", names.join(", ")),
    };
    Section {
        id: "energy",
        title: "Energy",
        intro,
        charts: each.flatten().collect(),
        tables: KINDS.into_iter().filter(|&kind| has(kind)).map(|kind| tables::energy(runs, kind)).collect(),
    }
}

fn speed(runs: &[Run<'_>]) -> Section {
    let charts = [Phase::Decode, Phase::Prefill].map(|phase| charts::speed(runs, phase));
    Section {
        id: "speed",
        title: "Speed",
        intro: String::new(),
        charts: charts.into_iter().flatten().collect(),
        tables: vec![tables::speed(runs)],
    }
}

fn memory(runs: &[Run<'_>]) -> Section {
    let charts = [charts::roofline(runs), charts::traffic(runs)];
    Section {
        id: "memory",
        title: "Memory",
        intro: String::new(),
        charts: charts.into_iter().flatten().collect(),
        tables: vec![tables::roofline(runs), tables::traffic(runs)],
    }
}

fn details(run: &Run<'_>) -> Details {
    let header = &run.ledger.header;
    let (model, machine) = (&header.model, &header.machine);
    let bins = Bins::new(run.ledger);
    let file = run.ledger.path.file_name().map(|name| name.to_string_lossy().into_owned());
    let empty = |text: &str| (!text.is_empty()).then(|| text.to_string());
    let memory = |bytes: u64| format!("{} GB", tables::significant(bytes as f64 / 1e9, 3));
    let meters: Vec<_> = header
        .meters
        .iter()
        .map(|meter| {
            let (scope, kind) =
                (crate::metrics::scope_name(meter.scope), crate::metrics::kind_name(meter.kind));
            format!("{} ({scope}, {kind})", meter.meter)
        })
        .collect();
    let facts = vec![
        ("ledger", file),
        ("begun", header.started.clone()),
        ("model file", Some(format!("{}, {} bytes", model.file, model.file_bytes))),
        ("file checksum", empty(&model.file_checksum)),
        ("source checksum", empty(&model.source_checksum)),
        ("recipe", empty(&model.recipe)),
        ("weights a decoded token", Some(format!("{} bytes (counted)", model.decode_weight_bytes))),
        ("kernels, threads", Some(format!("{}, {}", header.run.kernels, header.run.threads))),
        ("KV cache", Some(format!("{}, {} tokens", header.run.kv, header.run.context_len))),
        ("prompt batch", Some(format!("{} tokens", header.run.batch))),
        ("board", machine.board.clone()),
        ("processor", machine.processor.clone()),
        ("cores", machine.cores.map(|cores| cores.to_string())),
        ("memory", machine.memory_bytes.map(memory)),
        ("meters", empty(&meters.join(", "))),
        ("pith", Some(header.pith.clone())),
    ];
    let mut charts = charts::timeline(run, &bins);
    charts.extend(charts::layers(run));
    Details {
        id: format!("run-{}", run.number),
        title: run.numbered(),
        facts,
        warnings: run.ledger.warnings.iter().map(ToString::to_string).collect(),
        charts,
        tables: vec![tables::timeline(run, &bins), tables::roles(run), tables::layers(run)],
    }
}
