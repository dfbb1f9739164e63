//! Numbers, tables and arrays for people and programs.

use anyhow::Context;
use clap::ValueEnum;
use pith_format::{ReplaceOptions, Replacement};
use pith_runtime::Kind;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

/// Formats `1234567` as `1.2 MB`: decimal units, as memory traffic is counted.
pub fn bytes(count: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.iter().find(|(size, _)| count as f64 >= *size) {
        Some((size, unit)) => format!("{:.2} {unit}", count as f64 / size),
        None => format!("{count} B"),
    }
}

/// Parses bytes: `600M`, `1.5GB` (decimal), `2GiB` (binary) or `1000`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a size such as 600M, 1.5GB or 2GiB");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let exponent = |power: i32| match unit.trim().to_ascii_lowercase().as_str() {
        unit if unit.ends_with("ib") || unit.ends_with('i') => 1024f64.powi(power),
        _ => 1000f64.powi(power),
    };
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "ki" | "kib" => exponent(1),
        "m" | "mb" | "mi" | "mib" => exponent(2),
        "g" | "gb" | "gi" | "gib" => exponent(3),
        "t" | "tb" | "ti" | "tib" => exponent(4),
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor;
    if bytes.is_finite() && bytes < u64::MAX as f64 { Ok(bytes.round() as u64) } else { Err(wrong()) }
}

/// Parses a duration in seconds, above 0 and below a day.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds < 86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("\"{text}\" is not a number of seconds above 0")),
    }
}

/// The printed name of a kind.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Measured => "measured",
        Kind::Calibrated => "calibrated",
        Kind::Modelled => "modelled",
    }
}

/// Formats of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// Aligned columns
    Table,
    /// A Markdown table
    Md,
    /// Comma-separated values
    Csv,
    /// A JSON array
    Json,
}

/// A table of rows with the same columns.
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Panics unless it has a value for every column.
    pub fn push(&mut self, row: Vec<Value>) {
        assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    /// The whole table as text that ends with a line feed.
    pub fn render(&self, format: TableFormat) -> String {
        match format {
            TableFormat::Json => {
                let rows: Vec<Value> = self.rows.iter().map(|row| self.object(row)).collect();
                format!("{:#}\n", Value::Array(rows))
            }
            TableFormat::Csv => {
                self.lines(|cells| cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(","))
            }
            TableFormat::Md => self.markdown(),
            TableFormat::Table => self.aligned(),
        }
    }

    fn object(&self, row: &[Value]) -> Value {
        let pairs = self.columns.iter().zip(row).map(|(column, value)| (column.to_string(), value.clone()));
        Value::Object(pairs.collect::<Map<_, _>>())
    }

    fn cells(&self) -> impl Iterator<Item = Vec<String>> {
        let head = self.columns.iter().map(|column| column.to_string()).collect();
        std::iter::once(head).chain(self.rows.iter().map(|row| row.iter().map(cell).collect()))
    }

    fn lines(&self, line: impl Fn(&[String]) -> String) -> String {
        self.cells().map(|cells| line(&cells) + "\n").collect()
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        for (index, cells) in self.cells().enumerate() {
            let _ = writeln!(text, "| {} |", cells.join(" | "));
            if index == 0 {
                let rules: Vec<_> = (0..cells.len()).map(|column| self.rule(column)).collect();
                let _ = writeln!(text, "|{}|", rules.join("|"));
            }
        }
        text
    }

    fn rule(&self, column: usize) -> &'static str {
        if self.is_number(column) { "---:" } else { "---" }
    }

    fn is_number(&self, column: usize) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row[column].is_number())
    }

    fn aligned(&self) -> String {
        let width =
            |column: usize| self.cells().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        self.lines(|cells| {
            let padded = cells.iter().enumerate().map(|(column, cell)| match self.is_number(column) {
                true => format!("{cell:>0$}", widths[column]),
                false => format!("{cell:<0$}", widths[column]),
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
        })
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_string()
    }
}

/// A figure rounded to `decimals`, so that tables and JSON do not claim more precision.
pub fn rounded(value: f64, decimals: i32) -> Value {
    let factor = 10f64.powi(decimals);
    Value::from((value * factor).round() / factor)
}

/// Writes the head of a NumPy file (format 1.0) for a float32 array of `rows × cols` in C order.
pub fn write_npy_head(out: &mut impl Write, rows: usize, cols: usize) -> io::Result<()> {
    let mut head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    // Magic, version and length take 10 bytes. The data begins at a multiple of 64, after a line
    // feed.
    let padded = (10 + head.len() + 1).next_multiple_of(64) - 10;
    head.push_str(&" ".repeat(padded - 1 - head.len()));
    head.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(head.len() as u16).to_le_bytes())?;
    out.write_all(head.as_bytes())
}

/// Fails if `path` is a file of another kind than the one that is written there unasked: neither
/// empty nor beginning like one of that kind. Pipes and devices may be written to.
pub fn refuse_others(path: &Path, kind: &str, beginnings: &[&[u8]]) -> anyhow::Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let longest = beginnings.iter().map(|beginning| beginning.len()).max().unwrap_or(0);
    let mut found = Vec::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    file.take(longest as u64).read_to_end(&mut found).with_context(|| path.display().to_string())?;
    anyhow::ensure!(
        found.is_empty() || beginnings.iter().any(|beginning| found.starts_with(beginning)),
        "{} is there and is not {kind}; choose another output, or remove it",
        path.display()
    );
    Ok(())
}

/// Replaces a file atomically, without waiting for the disk. Pipes and devices are written
/// directly.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut output = Output::create(path)?;
    output.write_all(bytes)?;
    output.commit_unsynced()
}

/// A file that is replaced at [`Output::commit_unsynced`], or a pipe or device that is written
/// directly.
pub enum Output {
    /// A file that is invisible until it is complete.
    File(Replacement),
    /// A pipe or a device.
    Stream(File),
}

impl Output {
    /// Opens it.
    pub fn create(path: &Path) -> io::Result<Self> {
        match path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            true => Ok(Self::Stream(OpenOptions::new().write(true).open(path)?)),
            false => {
                Ok(Self::File(Replacement::create(path, ReplaceOptions::FORCE).map_err(io::Error::other)?))
            }
        }
    }

    /// Gives a file its name.
    pub fn commit_unsynced(self) -> io::Result<()> {
        match self {
            Self::File(file) => file.commit_unsynced().map_err(io::Error::other),
            Self::Stream(_) => Ok(()),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stream(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stream(file) => file.flush(),
        }
    }
}

/// Prints to standard output. A closed pipe is an error, which `main` does not report.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["model", "tokens/s"]);
        table.push(vec!["a, \"b\"".into(), rounded(1.23456, 2)]);
        table.push(vec!["c".into(), rounded(100.0, 2)]);
        table
    }

    #[test]
    fn each_form_holds_every_value() {
        assert_eq!(table().render(TableFormat::Csv), "model,tokens/s\n\"a, \"\"b\"\"\",1.23\nc,100.0\n");
        assert_eq!(
            table().render(TableFormat::Md),
            "| model | tokens/s |\n|---|---:|\n| a, \"b\" | 1.23 |\n| c | 100.0 |\n"
        );
        assert_eq!(
            table().render(TableFormat::Table),
            "model   tokens/s\na, \"b\"      1.23\nc          100.0\n"
        );
        let json: Value = serde_json::from_str(&table().render(TableFormat::Json)).unwrap();
        assert_eq!(json[1]["tokens/s"], 100.0);
    }

    #[test]
    fn seconds_are_above_none() {
        assert_eq!(parse_seconds("2.5"), Ok(Duration::from_millis(2500)));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "soon"] {
            assert!(parse_seconds(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn numpy_heads_are_aligned() {
        for (rows, cols) in [(1, 1), (64, 131), (12345, 151936)] {
            let mut bytes = Vec::new();
            write_npy_head(&mut bytes, rows, cols).unwrap();
            assert_eq!(bytes.len() % 64, 0);
            assert_eq!(usize::from(u16::from_le_bytes([bytes[8], bytes[9]])), bytes.len() - 10);
            assert!(String::from_utf8_lossy(&bytes).contains(&format!("({rows}, {cols})")));
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        let sizes =
            ["1000", "600M", "1.5gb", "2GiB", "64 KiB", "1t", "0"].map(|text| parse_bytes(text).unwrap());
        assert_eq!(sizes, [1000, 600_000_000, 1_500_000_000, 2 << 30, 64 << 10, 1_000_000_000_000, 0]);
        for text in ["", "M", "1.2.3", "5X", "-1", "1e3", "99999999999T"] {
            assert!(parse_bytes(text).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn bytes_take_decimal_units() {
        assert_eq!(
            [bytes(999), bytes(1_500), bytes(2_340_000), bytes(7_000_000_000)],
            ["999 B", "1.50 kB", "2.34 MB", "7.00 GB"]
        );
    }
}
