//! A table of measurements.

use super::fit::Observation;
use crate::error::MeasureError;
use std::path::Path;

/// Column names, each with its factor to the first one's unit.
const BYTES: [(&str, f64); 3] = [("bytes_per_token", 1.0), ("mb_per_token", 1e6), ("gb_per_token", 1e9)];
const SECONDS: [(&str, f64); 2] = [("seconds_per_token", 1.0), ("ms_per_token", 1e-3)];
const RATE: [(&str, f64); 1] = [("tokens_per_s", 1.0)];
const JOULES: [(&str, f64); 2] = [("joules_per_token", 1.0), ("mj_per_token", 1e-3)];
const OPERATIONS: [(&str, f64); 1] = [("operations_per_token", 1.0)];
const LABELS: [&str; 4] = ["name", "label", "model", "encoding"];

/// Reads comma-separated values, one token's cost per line; lines that begin with `#` are skipped.
///
/// Columns: `bytes_per_token` (or `mb_`, `gb_per_token`, of 10⁶ and 10⁹), `seconds_per_token` (or
/// `ms_per_token`, or `tokens_per_s`), `joules_per_token` (or `mj_per_token`), and optionally
/// `operations_per_token` and `name`. Other columns are ignored.
pub fn read_table(path: &Path) -> Result<Vec<Observation>, MeasureError> {
    let content = |what: String| MeasureError::Content { path: path.to_path_buf(), what };
    let failed = |error: csv::Error| match error.into_kind() {
        csv::ErrorKind::Io(source) => MeasureError::File { path: path.to_path_buf(), source },
        other => content(format!("{other:?}")),
    };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .flexible(true)
        .comment(Some(b'#'))
        .from_path(path)
        .map_err(failed)?;
    let headers = reader.headers().map_err(failed)?.clone();
    let place = |name: &str| headers.iter().position(|header| header.eq_ignore_ascii_case(name));
    let find = |known: &[(&str, f64)]| {
        known.iter().find_map(|(name, factor)| place(name).map(|index| (index, *factor)))
    };
    let found = headers.iter().collect::<Vec<_>>().join(", ");
    let needed = |columns: &[(&str, f64)]| {
        find(columns).ok_or_else(|| content(format!("found columns {found}, expected {}", columns[0].0)))
    };
    let (bytes, joules, operations) = (needed(&BYTES)?, needed(&JOULES)?, find(&OPERATIONS));
    let (seconds, rate) = (find(&SECONDS), find(&RATE));
    if seconds.is_none() && rate.is_none() {
        return Err(content(format!("found columns {found}, expected seconds_per_token or tokens_per_s")));
    }
    let label = LABELS.iter().find_map(|name| place(name));

    let mut observations = Vec::new();
    for record in reader.records() {
        let record = record.map_err(failed)?;
        let line = record.position().map_or(0, csv::Position::line);
        let value = |(index, factor): (usize, f64)| {
            let text = record.get(index).unwrap_or_default();
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
            value.map(|value| value * factor).ok_or_else(|| MeasureError::Line {
                path: path.to_path_buf(),
                line,
                found: text.into(),
                expected: format!(
                    "a number from 0 on in the column \"{}\"",
                    headers.get(index).unwrap_or_default()
                ),
            })
        };
        let seconds = match (seconds, rate) {
            (Some(seconds), _) => value(seconds)?,
            (None, Some(rate)) => 1.0 / value(rate)?,
            _ => unreachable!("checked above"),
        };
        observations.push(Observation {
            label: label.and_then(|index| record.get(index)).map_or(format!("line {line}"), str::to_string),
            bytes: value(bytes)?,
            operations: operations.map(value).transpose()?,
            seconds,
            joules: value(joules)?,
        });
    }
    if observations.is_empty() {
        return Err(content("found no measurement, expected a line for each".into()));
    }
    Ok(observations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Observation>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_table(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn units_are_those_of_the_headers() {
        let all = read("# a board\nname,gb_per_token,tokens_per_s,mj_per_token\nq4, 0.5, 20, 250\n").unwrap();
        let [one] = &all[..] else { panic!("{all:?}") };
        assert_eq!((one.label.as_str(), one.bytes, one.seconds, one.operations), ("q4", 5e8, 0.05, None));
        assert!((one.joules - 0.25).abs() < 1e-12);
    }

    #[test]
    fn missing_columns_and_wrong_values_are_named() {
        assert!(read("name,tokens_per_s\nq4,20\n").unwrap_err().contains("bytes_per_token"));
        assert!(read("bytes_per_token,joules_per_token\n1,1\n").unwrap_err().contains("tokens_per_s"));
        let error = read("bytes_per_token,tokens_per_s,joules_per_token\n1,2,0.5\n1,-2,0.5\n").unwrap_err();
        assert!(error.contains("line 3") && error.contains("-2"), "{error}");
        assert!(
            read("bytes_per_token,tokens_per_s,joules_per_token\n").unwrap_err().contains("no measurement")
        );
    }
}
