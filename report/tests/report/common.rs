//! Ledgers of invented runs, whose figures need only be consistent.

use pith_meter::{Conditions, Joules, Kind, Reading, Scope, Traffic};
use pith_report::{
    Bandwidth, Header, LayerBytes, LedgerFile, LedgerFormat, LedgerWriter, MachineRecord, MeterRecord,
    ModelRecord, RoleBytes, RunRecord, SCHEMA,
};
use pith_runtime::{Phase, TokenCost};
use std::path::Path;
use std::time::Duration;

/// A model in one encoding.
pub struct Plan {
    pub name: &'static str,
    pub encoding: &'static str,
    pub layer_bytes: u64,
    pub layers: u64,
    pub seconds: f64,
    pub meters: Vec<MeterRecord>,
    pub warm: bool,
}

pub fn meter(name: &str, scope: Scope, kind: Kind) -> MeterRecord {
    MeterRecord { meter: name.into(), scope, kind, period_milliseconds: None }
}

/// Four runs: two models, two encodings, a board with a sensor and one without.
pub fn plans() -> Vec<Plan> {
    let both = || {
        vec![meter("pmic, sum", Scope::Board, Kind::Measured), meter("bytes", Scope::Board, Kind::Modelled)]
    };
    let plan = |name, encoding, layer_bytes, layers, seconds, meters, warm| Plan {
        name,
        encoding,
        layer_bytes,
        layers,
        seconds,
        meters,
        warm,
    };
    vec![
        plan("heron-0.5b", "q4", 12_600_000, 24, 0.038, both(), true),
        plan("heron-0.5b", "q8", 20_100_000, 24, 0.050, both(), true),
        plan("wren", "q4", 310_000, 6, 0.0011, vec![meter("bytes", Scope::Board, Kind::Modelled)], false),
        plan("wren", "q8", 590_000, 6, 0.0017, Vec::new(), false),
    ]
}

pub fn header(plan: &Plan) -> Header {
    let role = |role: &str, encoding: Option<&str>, bytes| RoleBytes {
        role: role.into(),
        encoding: encoding.map(Into::into),
        tensors: plan.layers,
        bytes,
    };
    let layer = |layer| LayerBytes {
        layer: Some(layer),
        attention_bytes: plan.layer_bytes / 4 + 1000 * layer,
        ffn_bytes: plan.layer_bytes * 3 / 4,
        other_bytes: 4096,
    };
    let own = LayerBytes { other_bytes: plan.layer_bytes * 5, ..LayerBytes::default() };
    Header {
        pith_ledger: SCHEMA,
        pith: "0.1.0".into(),
        started: Some("2026-11-22T08:11:52Z".into()),
        model: ModelRecord {
            name: plan.name.into(),
            file: format!("{}.pith", plan.name),
            file_bytes: plan.layer_bytes * (plan.layers + 5),
            file_checksum: "0123456789abcdef".into(),
            source_checksum: String::new(),
            recipe: plan.encoding.into(),
            decode_weight_bytes: plan.layer_bytes * plan.layers,
            by_role: vec![
                role("embedding.token", Some("q8"), plan.layer_bytes * 5),
                role("attention.query", Some(plan.encoding), plan.layer_bytes * plan.layers / 4),
                role("ffn.up", Some(plan.encoding), plan.layer_bytes * plan.layers * 3 / 4),
                role("ffn.norm", None, 4096),
            ],
            by_layer: std::iter::once(own).chain((0..plan.layers).map(layer)).collect(),
        },
        run: RunRecord {
            kernels: "neon".into(),
            threads: 4,
            kv: "f16".into(),
            context_len: 4096,
            batch: 128,
        },
        machine: MachineRecord { board: plan.warm.then(|| "Test Board".into()), ..MachineRecord::default() },
        bandwidth: plan.warm.then(|| Bandwidth {
            bytes_per_second: 14.5e9,
            threads: Some(4),
            source: "probe".into(),
        }),
        meters: plan.meters.clone(),
    }
}

/// Costs of a prompt and `tokens` decoded tokens; every tenth comes with an accepted draft token.
pub fn costs(plan: &Plan, tokens: usize) -> Vec<TokenCost> {
    let mut noise = 12345_u64;
    let mut uniform = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut start = 0.003;
    (0..=tokens)
        .map(|index| {
            let is_prompt = index == 0;
            let slow = 1.0 + 0.1 * uniform() + if index > tokens * 3 / 4 { 0.2 } else { 0.0 };
            let seconds = plan.seconds * slow * if is_prompt { 12.0 } else { 1.0 };
            let weights = plan.layer_bytes * plan.layers;
            let traffic = Traffic {
                weight_bytes: weights,
                embedding_bytes: 14_336,
                kv_read_bytes: 12_288 * (index as u64 + 40),
                kv_write_bytes: 12_288,
                activation_bytes: 900_000,
            };
            let mut joules = |meter: &MeterRecord| match meter.kind {
                Kind::Modelled => 3.0 * seconds + 2e-10 * weights as f64,
                _ => 6.5 * seconds * (0.9 + 0.2 * uniform()),
            };
            let energy = plan.meters.iter().map(|meter| Reading {
                meter: meter.meter.as_str().into(),
                scope: meter.scope,
                kind: meter.kind,
                joules: Some(Joules(joules(meter))),
            });
            let celsius = 48.0 + 30.0 * index as f64 / tokens as f64;
            let cost = TokenCost {
                phase: if is_prompt { Phase::Prefill } else { Phase::Decode },
                tokens: if is_prompt { 64 } else { 1 + usize::from(index % 10 == 0) },
                drafted: if !is_prompt && index % 10 == 0 { 2 } else { 0 },
                start: Duration::from_secs_f64(start),
                elapsed: Duration::from_secs_f64(seconds),
                traffic,
                energy: energy.collect(),
                conditions: Conditions {
                    temperature_celsius: plan.warm.then_some(celsius),
                    frequency_hz: plan.warm.then_some(2_400_000_000),
                    throttled: plan.warm.then_some(index > tokens * 3 / 4),
                },
            };
            start += seconds + 0.0001;
            cost
        })
        .collect()
}

/// A ledger as bytes.
pub fn written(header: &Header, costs: &[TokenCost], format: LedgerFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = LedgerWriter::new(&mut bytes, format, header).unwrap();
    costs.iter().for_each(|cost| writer.write(cost).unwrap());
    writer.flush().unwrap();
    drop(writer);
    bytes
}

pub fn parsed(name: &str, bytes: &[u8]) -> Result<LedgerFile, pith_report::ReportError> {
    LedgerFile::parse(Path::new(name), bytes)
}
