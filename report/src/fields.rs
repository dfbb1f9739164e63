//! One line of a ledger: every field by name, checked for type and range.
//!
//! An impossible figure that the program itself counted (time, tokens, bytes) is an error. An
//! impossible sensor reading is left out with a warning: a bad sensor spoils only its own figures.

use crate::entry::Entry;
use crate::header::MeterRecord;
use crate::writer::{COLUMNS, joules_column, one_line};
use pith_meter::{Conditions, Traffic};
use pith_runtime::Phase;
use serde_json::{Map, Value};

/// Longest time (a century) and largest count (an integer that every JSON reader keeps exactly)
/// that are accepted.
const MOST_SECONDS: f64 = 3.2e9;
const MOST_COUNT: f64 = 9_007_199_254_740_992.0;
/// Largest accepted power of any meter, in watts.
const MOST_WATTS: f64 = 1e5;
/// Accepted temperatures; others were given in another unit.
const CELSIUS: std::ops::RangeInclusive<f64> = -60.0..=200.0;
const HERTZ: std::ops::RangeInclusive<f64> = 1e6..=2e10;

/// A wrong field and the reason.
pub(crate) struct Wrong {
    pub field: String,
    pub found: String,
    pub expected: String,
}

/// Fields of a line, and those left out of it.
pub(crate) struct Fields {
    values: Map<String, Value>,
    pub left_out: Vec<Wrong>,
}

impl Fields {
    /// Takes the fields of an object. An unknown field is refused: it may be a known one in another
    /// unit.
    pub fn new(values: Map<String, Value>) -> Result<Self, Wrong> {
        for name in values.keys() {
            if !COLUMNS.contains(&name.as_str()) && name != "energy" {
                return Err(unknown(name));
            }
        }
        Ok(Self { values, left_out: Vec::new() })
    }

    /// The whole line. `end` is the end time of the line before.
    pub fn entry(&mut self, meters: &[MeterRecord], end: f64) -> Result<Entry, Wrong> {
        let phase = self.phase()?;
        let start_seconds = self.number("start_seconds", MOST_SECONDS)?;
        let seconds = self.number("seconds", MOST_SECONDS)?;
        // Both were rounded to double precision.
        if start_seconds < end - 1e-6 {
            return Err(Wrong {
                field: "start_seconds".into(),
                found: start_seconds.to_string(),
                expected: format!("{end} or more, when the line before it ended: clocks do not go back"),
            });
        }
        let traffic = Traffic {
            weight_bytes: self.count("weight_bytes")?,
            embedding_bytes: self.count("embedding_bytes")?,
            kv_read_bytes: self.count("kv_read_bytes")?,
            kv_write_bytes: self.count("kv_write_bytes")?,
            activation_bytes: self.count("activation_bytes")?,
        };
        Ok(Entry {
            start_seconds,
            phase,
            tokens: self.count("tokens")?,
            drafted: self.count("drafted")?,
            seconds,
            traffic,
            joules: self.energy(meters, seconds)?,
            conditions: self.conditions()?,
        })
    }

    fn phase(&self) -> Result<Phase, Wrong> {
        match self.values.get("phase").and_then(Value::as_str) {
            Some("prefill") => Ok(Phase::Prefill),
            Some("decode") => Ok(Phase::Decode),
            _ => Err(wrong("phase", self.values.get("phase"), "\"prefill\" or \"decode\"")),
        }
    }

    fn number(&self, field: &str, most: f64) -> Result<f64, Wrong> {
        let value = self.values.get(field);
        match value.and_then(Value::as_f64) {
            Some(number) if (0.0..=most).contains(&number) => Ok(number),
            _ => Err(wrong(field, value, &format!("a number from 0 to {most:e}"))),
        }
    }

    fn count(&self, field: &str) -> Result<u64, Wrong> {
        let value = self.values.get(field);
        match value.and_then(Value::as_u64) {
            Some(count) if count as f64 <= MOST_COUNT => Ok(count),
            _ => Err(wrong(field, value, "a whole number from 0 to 2^53")),
        }
    }

    /// A sensor's figure: missing, or a number. An impossible number is left out.
    fn figure(
        &mut self,
        field: &str,
        value: &Value,
        range: std::ops::RangeInclusive<f64>,
        unit: &str,
    ) -> Result<Option<f64>, Wrong> {
        if value.is_null() {
            return Ok(None);
        }
        let number = value.as_f64().ok_or_else(|| wrong(field, Some(value), "a number, or nothing"))?;
        if range.contains(&number) {
            return Ok(Some(number));
        }
        let expected = format!("{:e} to {:e} {unit} (is it in another unit?)", range.start(), range.end());
        self.left_out.push(wrong(field, Some(value), &expected));
        Ok(None)
    }

    fn conditions(&mut self) -> Result<Conditions, Wrong> {
        let take =
            |fields: &mut Self, field: &str| fields.values.remove(field).ok_or(wrong(field, None, "it"));
        let temperature = take(self, "temperature_celsius")?;
        let frequency = take(self, "frequency_hz")?;
        let throttled = match take(self, "throttled")? {
            Value::Null => None,
            Value::Bool(throttled) => Some(throttled),
            other => return Err(wrong("throttled", Some(&other), "true, false, or nothing")),
        };
        Ok(Conditions {
            temperature_celsius: self.figure("temperature_celsius", &temperature, CELSIUS, "°C")?,
            frequency_hz: self.figure("frequency_hz", &frequency, HERTZ, "Hz")?.map(|hertz| hertz as u64),
            throttled,
        })
    }

    /// Joules of every meter, in the order of the first line.
    fn energy(&mut self, meters: &[MeterRecord], seconds: f64) -> Result<Vec<Option<f64>>, Wrong> {
        let readings = match self.values.remove("energy") {
            Some(Value::Array(readings)) if readings.len() == meters.len() => readings,
            other => {
                let expected = format!("{} readings, one for each meter of the first line", meters.len());
                return Err(wrong("energy", other.as_ref(), &expected));
            }
        };
        let mut joules = Vec::with_capacity(meters.len());
        for (meter, mut reading) in meters.iter().zip(readings) {
            let field = format!("energy, {}", meter.meter);
            let value = reading.get_mut("joules").map(Value::take);
            let same = ["meter", "scope", "kind"].into_iter().all(|key| {
                let own = serde_json::to_value(meter).ok();
                own.is_some_and(|own| reading.get(key) == own.get(key))
            });
            let value = match value {
                Some(value) if same => value,
                _ => {
                    return Err(wrong(&field, Some(&reading), "the meter, scope and kind of the first line"));
                }
            };
            // A line that took no measurable time still uses energy.
            let most = MOST_WATTS * seconds.max(1e-3);
            joules.push(self.figure(&field, &value, 0.0..=most, "J in the time of the line")?);
        }
        Ok(joules)
    }
}

/// Fields of a CSV ledger's line; the columns were checked.
pub(crate) fn from_row(cells: &csv::StringRecord, meters: &[MeterRecord]) -> Map<String, Value> {
    let mut values: Map<String, Value> =
        COLUMNS.iter().zip(cells).map(|(column, cell)| (column.to_string(), value(cell))).collect();
    let energy = meters.iter().zip(cells.iter().skip(COLUMNS.len())).map(|(meter, cell)| {
        let mut reading = serde_json::to_value(meter).expect("a meter's record is a plain object");
        reading["joules"] = value(cell);
        reading
    });
    values.insert("energy".into(), Value::Array(energy.collect()));
    values
}

/// Checks that the columns are a ledger's, complete and in order.
pub(crate) fn check_columns(found: &csv::StringRecord, meters: &[MeterRecord]) -> Result<(), Wrong> {
    let of_meters = meters.iter().map(|meter| joules_column(&one_line(&meter.meter)));
    let expected: Vec<String> = COLUMNS.iter().map(ToString::to_string).chain(of_meters).collect();
    for (index, column) in expected.iter().enumerate() {
        match found.get(index) {
            Some(name) if name == column => {}
            name => {
                return Err(Wrong {
                    field: format!("column {}", index + 1),
                    found: name.map_or("nothing".into(), |name| format!("\"{name}\"")),
                    expected: format!("\"{column}\"; the name of a column says its unit"),
                });
            }
        }
    }
    match found.get(expected.len()) {
        None => Ok(()),
        Some(name) => Err(unknown(name)),
    }
}

/// A cell as its JSON value.
fn value(cell: &str) -> Value {
    match cell.trim() {
        "" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        text => match serde_json::from_str(text) {
            Ok(number @ Value::Number(_)) => number,
            _ => Value::String(text.into()),
        },
    }
}

fn unknown(name: &str) -> Wrong {
    Wrong {
        field: name.chars().take(80).collect(),
        found: "an unknown field".into(),
        expected: format!("one of {}, and joules of meters; units are fixed", COLUMNS.join(", ")),
    }
}

fn wrong(field: &str, found: Option<&Value>, expected: &str) -> Wrong {
    let found = found.map_or("nothing".into(), |value| value.to_string().chars().take(80).collect());
    Wrong { field: field.into(), found, expected: expected.into() }
}
