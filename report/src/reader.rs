//! Reads a ledger and checks every field.

use crate::entry::Entry;
use crate::error::ReportError;
use crate::fields::{Fields, Wrong, check_columns, from_row};
use crate::header::{Header, SCHEMA};
use crate::writer::LedgerFormat;
use serde_json::{Map, Value};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest accepted line. The first line of a model with thousands of layers is far shorter.
pub const MAX_LINE_BYTES: u64 = 16 << 20;

/// A checked ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerFile {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: LedgerFormat,
    /// Model, run and machine.
    pub header: Header,
    /// Cost of every token, in order; never empty.
    pub entries: Vec<Entry>,
    /// Figures left out, with reasons.
    pub warnings: Vec<Warning>,
}

/// A figure or line left out of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// First line concerned, from 1.
    pub line: u64,
    /// The field; empty where the whole line is left out.
    pub field: String,
    /// Reason.
    pub reason: String,
    /// Number of lines concerned.
    pub lines: u64,
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, field, reason, lines } = self;
        let comma = if field.is_empty() { "" } else { ", " };
        write!(formatter, "line {line}{comma}{field}: {reason}")?;
        if *lines > 1 { write!(formatter, " (and {} lines more)", lines - 1) } else { Ok(()) }
    }
}

impl LedgerFile {
    /// Reads a ledger in either format; the first byte shows which.
    ///
    /// Drops a truncated last line and impossible sensor figures, each with a [`Warning`]. An
    /// impossible figure of time, tokens or bytes is an error that names line and field.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let file = File::open(path).map_err(|source| ReportError::Io { path: path.to_path_buf(), source })?;
        Self::parse(path, BufReader::new(file))
    }

    /// [`LedgerFile::read`] from any reader; `path` is used in messages.
    pub fn parse(path: &Path, input: impl BufRead) -> Result<Self, ReportError> {
        let mut lines = Lines { input, path, number: 0, bytes: Vec::new() };
        let first = lines.next()?.ok_or_else(|| not_a_ledger(path, "the file is empty"))?;
        let text = first.text.trim_start_matches('\u{feff}');
        let (format, json) = match text.strip_prefix('#') {
            Some(json) => (LedgerFormat::Csv, json.trim()),
            None => (LedgerFormat::Jsonl, text),
        };
        let mut warnings = Vec::new();
        let header = header(path, json, &mut warnings)?;
        let mut reader = LedgerFile { path: path.into(), format, header, entries: Vec::new(), warnings };
        reader.read_entries(&mut lines)?;
        if reader.entries.is_empty() {
            return Err(ReportError::Empty { path: path.into() });
        }
        Ok(reader)
    }

    fn read_entries(&mut self, lines: &mut Lines<'_, impl BufRead>) -> Result<(), ReportError> {
        let path = self.path.clone();
        if self.format == LedgerFormat::Csv {
            let line = lines.next()?.ok_or_else(|| ReportError::Empty { path: path.clone() })?;
            let columns = cells(&line.text).map_err(|reason| line.error(&path, reason))?;
            check_columns(&columns, &self.header.meters).map_err(|wrong| field(&path, 2, wrong))?;
        }
        let mut end = 0.0;
        while let Some(line) = lines.next()? {
            // A number at the very end of the file may be cut short.
            let values = match self.values(&line.text) {
                Ok(values) if line.is_whole || self.format == LedgerFormat::Jsonl => values,
                Err(reason) if line.is_whole => return Err(line.error(&path, reason)),
                _ => {
                    let reason = "the file ends within this line, which is dropped".into();
                    self.warn(line.number, String::new(), reason);
                    return Ok(());
                }
            };
            let mut fields = Fields::new(values).map_err(|wrong| field(&path, line.number, wrong))?;
            let entry =
                fields.entry(&self.header.meters, end).map_err(|wrong| field(&path, line.number, wrong))?;
            for Wrong { field, found, expected } in fields.left_out {
                self.warn(line.number, field, format!("found {found}, expected {expected}; left out"));
            }
            end = entry.start_seconds + entry.seconds;
            self.entries.push(entry);
        }
        Ok(())
    }

    fn values(&self, text: &str) -> Result<Map<String, Value>, String> {
        match self.format {
            LedgerFormat::Jsonl => {
                serde_json::from_str(text).map_err(|error| format!("not a line of JSON: {error}"))
            }
            LedgerFormat::Csv => {
                let cells = cells(text)?;
                let columns = crate::writer::COLUMNS.len() + self.header.meters.len();
                if cells.len() != columns {
                    return Err(format!("found {} cells, expected {columns}", cells.len()));
                }
                Ok(from_row(&cells, &self.header.meters))
            }
        }
    }

    /// Keeps one warning per field, with the number of lines.
    fn warn(&mut self, line: u64, field: String, reason: String) {
        match self.warnings.iter_mut().find(|warning| !field.is_empty() && warning.field == field) {
            Some(warning) => warning.lines += 1,
            None => self.warnings.push(Warning { line, field, reason, lines: 1 }),
        }
    }
}

struct Lines<'a, R> {
    input: R,
    path: &'a Path,
    number: u64,
    bytes: Vec<u8>,
}

struct Line {
    number: u64,
    text: String,
    /// Whether it ended with a line feed.
    is_whole: bool,
}

impl Line {
    fn error(&self, path: &Path, reason: String) -> ReportError {
        ReportError::Line { path: path.into(), line: self.number, reason }
    }
}

impl<R: BufRead> Lines<'_, R> {
    /// The next non-blank line, without its line end.
    fn next(&mut self) -> Result<Option<Line>, ReportError> {
        loop {
            self.bytes.clear();
            self.number += 1;
            let mut limited = (&mut self.input).take(MAX_LINE_BYTES);
            let count = limited
                .read_until(b'\n', &mut self.bytes)
                .map_err(|source| ReportError::Io { path: self.path.into(), source })?;
            if count == 0 {
                return Ok(None);
            }
            let is_whole = self.bytes.last() == Some(&b'\n');
            let error =
                |reason: String| ReportError::Line { path: self.path.into(), line: self.number, reason };
            if !is_whole && count as u64 == MAX_LINE_BYTES {
                return Err(error(format!("longer than {MAX_LINE_BYTES} bytes")));
            }
            let text = match std::str::from_utf8(&self.bytes) {
                Ok(text) => text.trim().to_string(),
                // The file may be cut inside a character.
                Err(_) if !is_whole && self.number > 1 => String::from_utf8_lossy(&self.bytes).into_owned(),
                Err(_) => return Err(error("not UTF-8 text".into())),
            };
            if !text.is_empty() {
                return Ok(Some(Line { number: self.number, text, is_whole }));
            }
        }
    }
}

fn cells(text: &str) -> Result<csv::StringRecord, String> {
    let mut record = csv::StringRecord::new();
    csv::ReaderBuilder::new()
        .has_headers(false)
        .buffer_capacity(text.len().max(1))
        .from_reader(text.as_bytes())
        .read_record(&mut record)
        .map_err(|error| error.to_string())?;
    Ok(record)
}

fn header(path: &Path, json: &str, warnings: &mut Vec<Warning>) -> Result<Header, ReportError> {
    let value: Value =
        serde_json::from_str(json).map_err(|error| not_a_ledger(path, &format!("line 1: {error}")))?;
    let version = value.get("pith_ledger").ok_or_else(|| not_a_ledger(path, "line 1 has no pith_ledger"))?;
    match version.as_u64() {
        Some(found) if found > u64::from(SCHEMA) => {
            return Err(ReportError::Schema { path: path.into(), found, newest: SCHEMA });
        }
        Some(1..) => {}
        _ => {
            let (found, expected) = (version.to_string(), format!("a version from 1 to {SCHEMA}"));
            return Err(field(path, 1, Wrong { field: "pith_ledger".into(), found, expected }));
        }
    }
    let mut header: Header = serde_path_to_error::deserialize(value).map_err(|error| {
        let name = error.path().to_string();
        ReportError::Field {
            path: path.into(),
            line: 1,
            field: if name == "." { "the run".into() } else { name },
            found: error.into_inner().to_string(),
            expected: "the field as docs/ledger.md has it".into(),
        }
    })?;
    let rate = header.bandwidth.as_ref().map(|bandwidth| bandwidth.bytes_per_second);
    if let Some(rate) = rate.filter(|rate| !(1e6..=1e14).contains(rate)) {
        header.bandwidth = None;
        warnings.push(Warning {
            line: 1,
            field: "bandwidth.bytes_per_second".into(),
            reason: format!("found {rate}, expected 1e6 to 1e14 bytes a second: left out"),
            lines: 1,
        });
    }
    Ok(header)
}

fn not_a_ledger(path: &Path, reason: &str) -> ReportError {
    ReportError::NotALedger { path: path.into(), reason: reason.into() }
}

fn field(path: &Path, line: u64, wrong: Wrong) -> ReportError {
    let Wrong { field, found, expected } = wrong;
    ReportError::Field { path: path.into(), line, field, found, expected }
}
