//! Writes a ledger with a custom meter: idle power and joules per byte, both from the command line.
//!
//! `cargo run --release -p pith-report --example modelled -- MODEL LEDGER TOKENS WATTS
//! NANOJOULES_PER_BYTE`

use pith_meter::{Joules, Kind, Meter, MeterError, Scope, Traffic};
use pith_report::{Header, LedgerFormat, LedgerWriter, MachineRecord};
use pith_runtime::{GenerateOptions, Ledger, Model, Sampler, SamplerOptions, Session, SessionOptions};
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A meter without a sensor: computes energy from time and bytes with two numbers given by the
/// user.
struct ByBytes {
    watts: f64,
    joules_per_byte: f64,
    total: f64,
}

impl Meter for ByBytes {
    fn name(&self) -> &str {
        "time and bytes"
    }

    fn scope(&self) -> Scope {
        Scope::Board
    }

    fn kind(&self) -> Kind {
        Kind::Modelled
    }

    fn energy(&mut self) -> Result<Joules, MeterError> {
        Ok(Joules(self.total))
    }

    fn observe(&mut self, elapsed: Duration, traffic: &Traffic) {
        let bytes = traffic.total_bytes() - traffic.activation_bytes;
        self.total += self.watts * elapsed.as_secs_f64() + self.joules_per_byte * bytes as f64;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, ledger, tokens, watts, nanojoules] = &arguments[..] else {
        return Err("expected MODEL LEDGER TOKENS WATTS NANOJOULES_PER_BYTE".into());
    };
    let model = Arc::new(Model::open(Path::new(model))?);
    let mut session = Session::new(Arc::clone(&model), SessionOptions::default())?;
    let joules_per_byte = 1e-9 * nanojoules.parse::<f64>()?;
    let meters: Vec<Box<dyn Meter>> =
        vec![Box::new(ByBytes { watts: watts.parse()?, joules_per_byte, total: 0.0 })];

    let header = Header::new(&session, MachineRecord::default(), &meters);
    let path = Path::new(ledger);
    let mut writer = LedgerWriter::new(File::create(path)?, LedgerFormat::of(path), &header)?;
    let mut ledger = Ledger::with_meters(meters).totals_only().with_sink(move |cost| {
        if let Err(error) = writer.write(cost) {
            eprintln!("ledger: {error}");
        }
    });

    let prompt = model.tokenizer()?.encode("Question: What does a token cost?\nAnswer:", true)?;
    let mut sampler = Sampler::new(SamplerOptions { temperature: 0.0, ..SamplerOptions::default() })?;
    let options =
        GenerateOptions { max_tokens: Some(tokens.parse()?), ignore_eos: true, ..GenerateOptions::default() };
    session
        .generate(&prompt, &mut sampler, options)
        .with_ledger(&mut ledger)
        .try_for_each(|token| token.map(drop))?;
    Ok(())
}
