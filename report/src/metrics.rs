//! Running sums as Prometheus text.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>, the syntax follows
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4.

use crate::header::{Header, MeterRecord};
use pith_meter::Kind;
use pith_meter::{Conditions, Scope, Traffic};
use pith_runtime::{Phase, TokenCost};
use std::fmt::Write;

/// Costs of a process so far.
#[derive(Clone, Debug)]
pub struct Metrics {
    info: Vec<(&'static str, String)>,
    phases: [PhaseSums; 2],
    meters: Vec<MeterRecord>,
    conditions: Conditions,
}

#[derive(Clone, Debug, Default)]
struct PhaseSums {
    calls: u64,
    tokens: u64,
    drafted: u64,
    seconds: f64,
    traffic: Traffic,
    /// Per meter: joules if any were read, and the number of failed readings.
    energy: Vec<(Option<f64>, u64)>,
}

const PHASES: [&str; 2] = ["prefill", "decode"];

impl Metrics {
    /// Starts at zero, for the model and the meters of the header.
    pub fn new(header: &Header) -> Self {
        let model = &header.model;
        let info = vec![
            ("version", header.pith.clone()),
            ("model", model.name.clone()),
            ("encoding", model.main_encoding().unwrap_or_default().into()),
            ("file_checksum", model.file_checksum.clone()),
            ("kernels", header.run.kernels.clone()),
            ("threads", header.run.threads.to_string()),
            ("kv", header.run.kv.clone()),
        ];
        let sums = PhaseSums { energy: vec![(None, 0); header.meters.len()], ..PhaseSums::default() };
        Self {
            info,
            phases: [sums.clone(), sums],
            meters: header.meters.clone(),
            conditions: Conditions::default(),
        }
    }

    /// Adds one cost.
    pub fn add(&mut self, cost: &TokenCost) {
        let sums = &mut self.phases[match cost.phase {
            Phase::Prefill => 0,
            Phase::Decode => 1,
        }];
        sums.calls += 1;
        sums.tokens += cost.tokens as u64;
        sums.drafted += cost.drafted as u64;
        sums.seconds += cost.elapsed.as_secs_f64();
        sums.traffic += cost.traffic;
        for ((joules, missing), reading) in sums.energy.iter_mut().zip(&cost.energy) {
            match reading.joules.map(|joules| joules.0).filter(|joules| joules.is_finite() && *joules >= 0.0)
            {
                Some(more) => *joules = Some(joules.unwrap_or_default() + more),
                None => *missing += 1,
            }
        }
        self.conditions = cost.conditions;
    }

    /// Renders the text. A quantity that was never known has no sample.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(4096);
        let labels: Vec<_> = self.info.iter().map(|(name, value)| label(name, value)).collect();
        family(&mut text, "pith_info", "gauge", "What is running; always 1");
        let _ = writeln!(text, "pith_info{{{}}} 1", labels.join(","));
        self.by_phase(&mut text, "pith_tokens_total", "Tokens computed", |sums| sums.tokens);
        self.by_phase(&mut text, "pith_drafted_tokens_total", "Tokens drafted, accepted or not", |sums| {
            sums.drafted
        });
        self.by_phase(&mut text, "pith_passes_total", "Passes over the model; a prompt is one", |sums| {
            sums.calls
        });
        self.by_phase(&mut text, "pith_compute_seconds_total", "Time spent computing tokens", |sums| {
            sums.seconds
        });
        for (kind, help, bytes) in TRAFFIC {
            self.by_phase(&mut text, &format!("pith_{kind}_bytes_total"), help, |sums| bytes(&sums.traffic));
        }
        self.energy(&mut text);
        let conditions = &self.conditions;
        let temperature = conditions.temperature_celsius.filter(|celsius| celsius.is_finite());
        gauge(&mut text, "pith_temperature_celsius", "Temperature after the last token", temperature);
        let frequency = conditions.frequency_hz.map(|hertz| hertz as f64);
        gauge(&mut text, "pith_frequency_hertz", "Clock of the cores after the last token", frequency);
        let throttled = conditions.throttled.map(|throttled| f64::from(u8::from(throttled)));
        gauge(&mut text, "pith_throttled", "Whether the clock was held down after the last token", throttled);
        text
    }

    fn by_phase<T: std::fmt::Display>(
        &self,
        text: &mut String,
        name: &str,
        help: &str,
        value: impl Fn(&PhaseSums) -> T,
    ) {
        family(text, name, "counter", help);
        for (phase, sums) in PHASES.iter().zip(&self.phases) {
            let _ = writeln!(text, "{name}{{phase=\"{phase}\"}} {}", value(sums));
        }
    }

    fn energy(&self, text: &mut String) {
        if self.meters.is_empty() {
            return;
        }
        let (joules, missing) = ("pith_energy_joules_total", "pith_energy_readings_missing_total");
        family(text, joules, "counter", "Energy of computing tokens; never add different scopes or kinds");
        self.by_meter(text, |sums, meter| sums.energy[meter].0, joules);
        family(text, missing, "counter", "Passes for which a meter gave no figure");
        self.by_meter(text, |sums, meter| Some(sums.energy[meter].1), missing);
    }

    fn by_meter<T: std::fmt::Display>(
        &self,
        text: &mut String,
        value: impl Fn(&PhaseSums, usize) -> Option<T>,
        name: &str,
    ) {
        for (index, meter) in self.meters.iter().enumerate() {
            // Two meters of one name would give two samples of one series, which a server refuses.
            let twins = self.meters[..index].iter().filter(|other| *other == meter).count();
            let shown =
                if twins > 0 { format!("{} #{}", meter.meter, twins + 1) } else { meter.meter.clone() };
            let own = [
                label("meter", &shown),
                label("scope", scope_name(meter.scope)),
                label("kind", kind_name(meter.kind)),
            ];
            for (phase, sums) in PHASES.iter().zip(&self.phases) {
                if let Some(value) = value(sums, index) {
                    let _ = writeln!(text, "{name}{{{},phase=\"{phase}\"}} {value}", own.join(","));
                }
            }
        }
    }
}

type Bytes = fn(&Traffic) -> u64;

const TRAFFIC: [(&str, &str, Bytes); 5] = [
    ("weight", "Bytes of weights read, counted", |traffic| traffic.weight_bytes),
    ("embedding", "Bytes of embedding blocks read, counted", |traffic| traffic.embedding_bytes),
    ("kv_read", "Bytes of keys and values read, counted", |traffic| traffic.kv_read_bytes),
    ("kv_write", "Bytes of keys and values written, counted", |traffic| traffic.kv_write_bytes),
    ("activation", "Bytes of operands and results of matrices, counted", |traffic| traffic.activation_bytes),
];

/// Name of a scope in files and labels.
pub(crate) fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Rail => "rail",
        Scope::Package => "package",
        Scope::Board => "board",
        Scope::Wall => "wall",
    }
}

/// Name of a kind in files and labels.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Measured => "measured",
        Kind::Calibrated => "calibrated",
        Kind::Modelled => "modelled",
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

fn gauge(text: &mut String, name: &str, help: &str, value: Option<f64>) {
    if let Some(value) = value {
        family(text, name, "gauge", help);
        let _ = writeln!(text, "{name} {value}");
    }
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
