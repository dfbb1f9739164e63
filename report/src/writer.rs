//! Writes a ledger, a line a token, as it comes.

use crate::header::Header;
use pith_runtime::TokenCost;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Form of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerFormat {
    /// A JSON object a line.
    Jsonl,
    /// Comma-separated values below a comment that holds the first line of the other form.
    Csv,
}

/// Columns of a CSV ledger before those of the meters, in their order.
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

/// Lines that come faster than this wait for each other, so that writing them costs no call of the system each.
const INTERVAL: Duration = Duration::from_millis(100);

/// Writes one line a cost, whole lines at a time: a run that is killed leaves whole lines, and lacks those of its last
/// tenth of a second at most.
pub struct LedgerWriter<W: Write> {
    out: W,
    format: LedgerFormat,
    lines: Vec<u8>,
    written: Instant,
}

impl LedgerFormat {
    /// CSV where the name ends in `.csv`, otherwise lines of JSON.
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("csv") => Self::Csv,
            _ => Self::Jsonl,
        }
    }
}

impl<W: Write> LedgerWriter<W> {
    /// Writes what comes before the first token. `out` must not be buffered.
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

    /// Adds a line; writes it, and those that wait, unless the last ones were written a moment ago.
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

    /// Writes the lines that wait.
    pub fn flush(&mut self) -> io::Result<()> {
        self.written = Instant::now();
        let result = self.out.write_all(&self.lines);
        self.lines.clear();
        result
    }
}

impl<W: Write> Drop for LedgerWriter<W> {
    /// Writes the lines that wait; who wants to know whether that went well calls [`LedgerWriter::flush`].
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// A meter's name inside the one line of columns.
pub(crate) fn one_line(name: &str) -> String {
    name.replace(['\n', '\r'], " ")
}

/// Numbers, words without commas, and nothing where a figure is missing.
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
