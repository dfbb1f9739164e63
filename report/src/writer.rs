//! Writes a ledger, one line per token, during the run.

use crate::header::Header;
use pith_runtime::TokenCost;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Format of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerFormat {
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values below a comment that holds the JSON form's first line.
    Csv,
}

/// Columns of a CSV ledger before the meters' columns, in order.
pub(crate) const COLUMNS: [&str; 13] = [
    "start_seconds",
    "phase",
    "tokens",
    "drafted",
    "seconds",
    "weight_bytes",
    "embedding_bytes",
    "kv_read_bytes",
    "kv_write_bytes",
    "activation_bytes",
    "temperature_celsius",
    "frequency_hz",
    "throttled",
];

/// Name of a meter's column.
pub(crate) fn joules_column(meter: &str) -> String {
    format!("joules[{meter}]")
}

/// Lines that arrive faster than this are collected, to save a system call per line.
const INTERVAL: Duration = Duration::from_millis(100);

/// Writes one line per cost, whole lines only. A run that is killed leaves whole lines and loses at
/// most those of its last tenth of a second.
pub struct LedgerWriter<W: Write> {
    out: W,
    format: LedgerFormat,
    lines: Vec<u8>,
    written: Instant,
}

impl LedgerFormat {
    /// CSV where the name ends in `.csv`, otherwise JSON lines.
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("csv") => Self::Csv,
            _ => Self::Jsonl,
        }
    }
}

impl<W: Write> LedgerWriter<W> {
    /// Writes the part before the first token. `out` must not be buffered.
    pub fn new(mut out: W, format: LedgerFormat, header: &Header) -> io::Result<Self> {
        let mut text = serde_json::to_string(header)?;
        text.push('\n');
        if format == LedgerFormat::Csv {
            text.insert_str(0, "# ");
            let mut columns = csv::Writer::from_writer(Vec::new());
            let meters = header.meters.iter().map(|meter| joules_column(&one_line(&meter.meter)));
            columns.write_record(COLUMNS.into_iter().map(String::from).chain(meters))?;
            let columns = columns.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
            text.push_str(&String::from_utf8_lossy(&columns));
        }
        out.write_all(text.as_bytes())?;
        Ok(Self { out, format, lines: Vec::new(), written: Instant::now() })
    }

    /// Adds a line. Writes it and the waiting lines, unless the last write was a moment ago.
    pub fn write(&mut self, cost: &TokenCost) -> io::Result<()> {
        match self.format {
            LedgerFormat::Jsonl => serde_json::to_writer(&mut self.lines, cost)?,
            LedgerFormat::Csv => row(cost, &mut self.lines)?,
        }
        self.lines.push(b'\n');
        if self.written.elapsed() < INTERVAL {
            return Ok(());
        }
        self.flush()
    }

    /// Writes the waiting lines.
    pub fn flush(&mut self) -> io::Result<()> {
        self.written = Instant::now();
        let result = self.out.write_all(&self.lines);
        self.lines.clear();
        result
    }
}

impl<W: Write> Drop for LedgerWriter<W> {
    /// Writes the waiting lines and ignores errors; call [`LedgerWriter::flush`] to see them.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// A meter's name in the single line of column names.
pub(crate) fn one_line(name: &str) -> String {
    name.replace(['\n', '\r'], " ")
}

/// Numbers, and words without commas; an empty cell where a figure is missing.
fn row(cost: &TokenCost, line: &mut Vec<u8>) -> io::Result<()> {
    fn cell(line: &mut Vec<u8>, value: Option<impl std::fmt::Display>) -> io::Result<()> {
        line.push(b',');
        value.map_or(Ok(()), |value| write!(line, "{value}"))
    }
    let phase = match cost.phase {
        pith_runtime::Phase::Prefill => "prefill",
        pith_runtime::Phase::Decode => "decode",
    };
    write!(line, "{},{phase}", cost.start.as_secs_f64())?;
    cell(line, Some(cost.tokens))?;
    cell(line, Some(cost.drafted))?;
    cell(line, Some(cost.elapsed.as_secs_f64()))?;
    let traffic = &cost.traffic;
    for bytes in [
        traffic.weight_bytes,
        traffic.embedding_bytes,
        traffic.kv_read_bytes,
        traffic.kv_write_bytes,
        traffic.activation_bytes,
    ] {
        cell(line, Some(bytes))?;
    }
    let finite = |value: &f64| value.is_finite();
    cell(line, cost.conditions.temperature_celsius.filter(finite))?;
    cell(line, cost.conditions.frequency_hz)?;
    cell(line, cost.conditions.throttled)?;
    for reading in &cost.energy {
        cell(line, reading.joules.map(|joules| joules.0).filter(finite))?;
    }
    Ok(())
}
