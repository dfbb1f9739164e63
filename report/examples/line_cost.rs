//! Cost of writing a ledger line: median and 99th percentile over many writes to a file.
//!
//! `cargo run --release -p pith-report --example line_cost -- LEDGER FILE LINES` writes the first
//! line's run again and again, in the format that FILE's name selects.

use pith_meter::{Joules, Reading};
use pith_report::{LedgerFile, LedgerFormat, LedgerWriter};
use pith_runtime::TokenCost;
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [ledger, file, lines] = &arguments[..] else { return Err("expected LEDGER FILE LINES".into()) };
    let ledger = LedgerFile::read(Path::new(ledger))?;
    let entry = ledger.entries.last().expect("a ledger that was read has entries");
    let meters = ledger.header.meters.iter().zip(&entry.joules);
    let mut cost = TokenCost {
        phase: entry.phase,
        tokens: entry.tokens as usize,
        drafted: entry.drafted as usize,
        start: Duration::from_secs_f64(entry.start_seconds),
        elapsed: Duration::from_secs_f64(entry.seconds),
        traffic: entry.traffic,
        energy: meters
            .map(|(meter, joules)| Reading {
                meter: meter.meter.as_str().into(),
                scope: meter.scope,
                kind: meter.kind,
                joules: joules.map(Joules),
            })
            .collect(),
        conditions: entry.conditions,
    };
    let path = Path::new(file);
    let mut writer = LedgerWriter::new(File::create(path)?, LedgerFormat::of(path), &ledger.header)?;
    let mut times = Vec::new();
    for _ in 0..lines.parse::<usize>()?.max(1) {
        cost.start += cost.elapsed;
        let started = Instant::now();
        writer.write(&cost)?;
        times.push(started.elapsed());
    }
    let all = times.iter().sum::<Duration>() / times.len() as u32;
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    println!("{} lines: mean {all:?}, median {:?}, 99 of 100 below {:?}", times.len(), at(50), at(99));
    Ok(())
}
