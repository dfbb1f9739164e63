//! A log of power over time, from an external meter or a recorded run.

use super::integrate::MAX_WATTS;
use crate::error::MeasureError;
use pith_meter::Joules;
use std::path::Path;

/// Samples further apart than this many typical periods leave a gap.
const GAP_PERIODS: f64 = 5.0;

/// Samples of power, by ascending time.
#[derive(Clone, Debug, PartialEq)]
pub struct PowerLog {
    seconds: Vec<f64>,
    watts: Vec<f64>,
    period_seconds: f64,
}

/// A column's quantity, with its factor to seconds, volts, amperes or watts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Column {
    Time(f64),
    Volts(f64),
    Amperes(f64),
    Watts(f64),
}

impl PowerLog {
    /// Reads comma-separated values: a line of headers, then one sample per line.
    ///
    /// A header names the quantity and its unit, as in `time_s`, `Voltage (V)`, `current [mA]`,
    /// `power/W`. Required are a time (s, ms or µs; seconds since 1970 to match the log with a run)
    /// and either power, or voltage and current. Other columns are ignored. A header without a
    /// unit, or with the unit of another quantity, is an error: milliwatts must not be read as
    /// watts.
    ///
    /// The meter may still be writing. Text after the last newline may be cut in the middle of a
    /// number and is ignored, so a complete log must end with a newline.
    pub fn read(path: &Path) -> Result<Self, MeasureError> {
        let content = |what: String| MeasureError::Content { path: path.to_path_buf(), what };
        let failed = |error: csv::Error| content(format!("{:?}", error.into_kind()));
        let mut bytes =
            std::fs::read(path).map_err(|source| MeasureError::File { path: path.to_path_buf(), source })?;
        let is_end = |byte: &u8| *byte == b'\n' || *byte == b'\r';
        bytes.truncate(bytes.iter().rposition(is_end).map_or(0, |index| index + 1));
        if bytes.is_empty() {
            return Err(content("found no whole line, expected one of headers".into()));
        }
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(&bytes[..]);
        let headers = reader.headers().map_err(failed)?.clone();
        let mut columns = Vec::new();
        for (index, header) in headers.iter().enumerate() {
            if let Some(column) = column(header).map_err(content)? {
                columns.push((index, column));
            }
        }
        let find = |wanted: fn(&Column) -> Option<f64>| {
            columns.iter().find_map(|(index, column)| Some((*index, wanted(column)?)))
        };
        let time = find(|column| if let Column::Time(factor) = column { Some(*factor) } else { None });
        let volts = find(|column| if let Column::Volts(factor) = column { Some(*factor) } else { None });
        let amperes = find(|column| if let Column::Amperes(factor) = column { Some(*factor) } else { None });
        let watts = find(|column| if let Column::Watts(factor) = column { Some(*factor) } else { None });
        let found = headers.iter().collect::<Vec<_>>().join(", ");
        let time = time
            .ok_or_else(|| content(format!("found columns {found}, expected one of time, such as time_s")))?;
        if watts.is_none() && (volts.is_none() || amperes.is_none()) {
            return Err(content(format!(
                "found columns {found}, expected power_w, or voltage_v and current_a (mV, mA and mW will do too)"
            )));
        }

        let mut log = Self { seconds: Vec::new(), watts: Vec::new(), period_seconds: 0.0 };
        for record in reader.records() {
            let record = record.map_err(failed)?;
            let line = record.position().map_or(0, csv::Position::line);
            let wrong = |found: &str, expected: String| MeasureError::Line {
                path: path.to_path_buf(),
                line,
                found: found.into(),
                expected,
            };
            let value = |(index, factor): (usize, f64)| {
                let text = record.get(index).unwrap_or_default();
                let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
                value.map(|value| value * factor).ok_or_else(|| {
                    wrong(
                        text,
                        format!("a number in the column \"{}\"", headers.get(index).unwrap_or_default()),
                    )
                })
            };
            let moment = value(time)?;
            let power = match (watts, volts, amperes) {
                (Some(watts), ..) => value(watts)?,
                (None, Some(volts), Some(amperes)) => value(volts)? * value(amperes)?,
                _ => unreachable!("checked above"),
            };
            if !(0.0..=MAX_WATTS).contains(&power) {
                return Err(wrong(&format!("{power} W"), format!("0 to {MAX_WATTS} W; is the unit right?")));
            }
            if let Some(&before) = log.seconds.last()
                && moment <= before
            {
                return Err(wrong(&format!("{moment} s"), format!("a time after {before} s")));
            }
            log.seconds.push(moment);
            log.watts.push(power);
        }
        if log.seconds.len() < 2 {
            return Err(content(format!("found {} samples, expected at least 2", log.seconds.len())));
        }
        let mut steps: Vec<f64> = log.seconds.windows(2).map(|pair| pair[1] - pair[0]).collect();
        steps.sort_by(f64::total_cmp);
        log.period_seconds = steps[steps.len() / 2];
        Ok(log)
    }

    /// The same log with `seconds` added to every time, for a meter whose clock starts with its
    /// record.
    pub fn shifted(mut self, seconds: f64) -> Self {
        self.seconds.iter_mut().for_each(|moment| *moment += seconds);
        self
    }

    /// Typical time between two samples.
    pub fn period_seconds(&self) -> f64 {
        self.period_seconds
    }

    /// First and last time.
    pub fn span_seconds(&self) -> [f64; 2] {
        [self.seconds[0], self.seconds[self.seconds.len() - 1]]
    }

    /// Energy between two times, by trapezoids. Fails if the log does not cover them or has a gap
    /// there.
    pub fn energy(&self, from: f64, to: f64) -> Result<Joules, String> {
        let [first, last] = self.span_seconds();
        if !(first <= from && from <= to && to <= last) {
            return Err(format!("the log holds {first} s to {last} s, and not all of {from} s to {to} s"));
        }
        // The last sample at or before `from`, and the first at or after `to`.
        let begin = self.seconds.partition_point(|&moment| moment <= from) - 1;
        let end =
            self.seconds.partition_point(|&moment| moment < to).max(begin + 1).min(self.seconds.len() - 1);
        let mut joules = 0.0;
        for index in begin..end {
            let (start, stop) = (self.seconds[index], self.seconds[index + 1]);
            if stop - start > GAP_PERIODS * self.period_seconds {
                return Err(format!("the log has no sample between {start} s and {stop} s"));
            }
            let at = |moment: f64| {
                let share = (moment - start) / (stop - start);
                self.watts[index] + share * (self.watts[index + 1] - self.watts[index])
            };
            let (low, high) = (start.max(from), stop.min(to));
            if high > low {
                joules += (at(low) + at(high)) / 2.0 * (high - low);
            }
        }
        Ok(Joules(joules))
    }
}

/// The meaning of a header; `None` for other columns.
fn column(header: &str) -> Result<Option<Column>, String> {
    let plain = header.trim().trim_end_matches([')', ']']);
    let (name, unit) = match plain.rfind(['(', '[', '/', '_', ' ']) {
        Some(index) => (&plain[..index], plain[index..].trim_start_matches(['(', '[', '/', '_', ' '])),
        None => (plain, ""),
    };
    let name = name.trim_end_matches(['(', '[', '/', '_', ' ']).to_lowercase();
    let whole = plain.to_lowercase();
    let is = |names: &[&str]| names.contains(&name.as_str()) || names.contains(&whole.as_str());
    let wrong = |expected: &str| {
        Err(format!(
            "the column \"{header}\" has the unit \"{unit}\", expected {expected} (as in {whole}_{})",
            expected.split(',').next().unwrap_or_default()
        ))
    };
    if is(&["time", "timestamp", "elapsed", "t", "unix"]) {
        return match unit {
            "s" | "sec" | "seconds" => Ok(Some(Column::Time(1.0))),
            "ms" => Ok(Some(Column::Time(1e-3))),
            "us" | "µs" | "μs" => Ok(Some(Column::Time(1e-6))),
            _ => wrong("s, ms or µs"),
        };
    }
    if is(&["voltage", "volt", "volts", "u", "vbus"]) {
        return match unit {
            "V" | "v" => Ok(Some(Column::Volts(1.0))),
            "mV" | "mv" => Ok(Some(Column::Volts(1e-3))),
            _ => wrong("V or mV"),
        };
    }
    if is(&["current", "amperage", "i", "ibus"]) {
        return match unit {
            "A" | "a" => Ok(Some(Column::Amperes(1.0))),
            "mA" | "ma" => Ok(Some(Column::Amperes(1e-3))),
            _ => wrong("A or mA"),
        };
    }
    if is(&["power", "p", "watt", "watts"]) {
        return match unit {
            "W" | "w" => Ok(Some(Column::Watts(1.0))),
            "mW" | "mw" => Ok(Some(Column::Watts(1e-3))),
            _ => wrong("W or mW"),
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PowerLog, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        PowerLog::read(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn units_stand_in_the_header() {
        let log = read("time_s,power_w\n0,2\n1,4\n2,4\n").unwrap();
        assert_eq!(log.energy(0.0, 2.0), Ok(Joules(7.0)));
        let same =
            read("Voltage (V), sample, Current [mA], time/ms\n2,a,1000,0\n2,b,2000,1000\n2,c,2000,2000\n");
        assert_eq!(same.unwrap(), log);
        let joules = log.shifted(100.0).energy(100.5, 101.0).unwrap();
        assert!((joules.0 - 1.75).abs() < 1e-12, "{joules:?}");
    }

    #[test]
    fn a_wrong_unit_is_named() {
        let error = read("time_s,power_mV\n0,2\n1,4\n").unwrap_err();
        assert!(error.contains("power_mV") && error.contains("W or mW"), "{error}");
        assert!(read("time,power_w\n0,2\n1,4\n").unwrap_err().contains("s, ms or"));
        assert!(read("time_s,voltage_v\n0,2\n1,4\n").unwrap_err().contains("voltage_v and current_a"));
        assert!(read("power_w\n2\n4\n").unwrap_err().contains("time"));
    }

    #[test]
    fn lines_that_make_no_sense_are_named() {
        let error = read("time_s,power_w\n0,2\n1,lots\n").unwrap_err();
        assert!(error.contains("line 3") && error.contains("lots"), "{error}");
        assert!(read("time_s,power_w\n1,2\n0,4\n").unwrap_err().contains("after 1 s"));
        assert!(read("time_s,power_w\n0,2\n1,-4\n").unwrap_err().contains("-4 W"));
        assert!(read("time_s,power_w\n0,2\n1,5000000\n").unwrap_err().contains("is the unit right"));
        assert!(read("time_s,power_w\n0,2\n1\n").unwrap_err().contains("line 3"));
        assert!(read("time_s,power_w\n0,2\n").unwrap_err().contains("found 1 samples"));
        assert!(
            PowerLog::read(Path::new("/nowhere/log.csv"))
                .unwrap_err()
                .to_string()
                .contains("/nowhere/log.csv")
        );
    }

    #[test]
    fn a_line_without_its_end_is_still_being_written() {
        let whole = read("time_s,power_w\n1716.4,4.87\n1717.4,4.87\n").unwrap();
        for half in ["1", "1718.4", "1718.4,", "1718.4,4", "1718.4,4.87"] {
            let log = read(&format!("time_s,power_w\n1716.4,4.87\n1717.4,4.87\n{half}")).unwrap();
            assert_eq!(log, whole, "{half}");
        }
        assert_eq!(read("time_s,power_w\r\n1716.4,4.87\r\n1717.4,4.87\r\n1718.4,4").unwrap(), whole);
        assert!(read("time_s,power_w\n0,2\n1,2").unwrap_err().contains("found 1 samples"));
        assert!(read("time_s,pow").unwrap_err().contains("no whole line"));
    }

    #[test]
    fn what_the_log_does_not_hold_is_not_made_up() {
        let log = read("time_s,power_w\n0,2\n1,2\n2,2\n3,2\n4,2\n20,2\n21,2\n").unwrap();
        assert_eq!(log.energy(1.5, 3.5), Ok(Joules(4.0)));
        assert_eq!(log.energy(2.0, 2.0), Ok(Joules(0.0)));
        assert!(log.energy(3.0, 5.0).unwrap_err().contains("between 4 s and 20 s"));
        assert!(log.energy(20.0, 22.0).unwrap_err().contains("not all"));
        assert!(log.energy(-1.0, 1.0).is_err() && log.energy(f64::NAN, 1.0).is_err());
    }
}
