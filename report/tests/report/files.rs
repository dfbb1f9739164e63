//! Reading written ledgers: whole, truncated and damaged.

use crate::common::{costs, header, parsed, plans, written};
use pith_report::{LedgerFormat, LedgerWriter, MAX_LINE_BYTES, ReportError};
use pith_runtime::Phase;
use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

const FORMATS: [LedgerFormat; 2] = [LedgerFormat::Jsonl, LedgerFormat::Csv];

#[test]
fn both_forms_give_back_what_was_written() {
    for plan in plans() {
        let (header, costs) = (header(&plan), costs(&plan, 30));
        let [lines, table] = FORMATS.map(|format| parsed("x", &written(&header, &costs, format)).unwrap());
        assert_eq!((lines.format, table.format), (LedgerFormat::Jsonl, LedgerFormat::Csv));
        assert_eq!(lines.entries, table.entries);
        assert_eq!((&lines.header, &table.header), (&header, &header));
        assert!(lines.warnings.is_empty() && table.warnings.is_empty(), "{:?}", table.warnings);
        assert_eq!(lines.entries.len(), costs.len());
        for (entry, cost) in lines.entries.iter().zip(&costs) {
            assert_eq!((entry.phase, entry.tokens), (cost.phase, cost.tokens as u64));
            assert!((entry.start_seconds - cost.start.as_secs_f64()).abs() < 1e-12);
            assert!((entry.seconds - cost.elapsed.as_secs_f64()).abs() < 1e-12);
            assert_eq!((entry.traffic, entry.conditions), (cost.traffic, cost.conditions));
            assert_eq!(entry.joules.len(), cost.energy.len());
            for (found, reading) in entry.joules.iter().zip(&cost.energy) {
                // Reading decimals can be off by one unit in the last place.
                let joules = reading.joules.unwrap().0;
                assert!((found.unwrap() - joules).abs() <= 4.0 * f64::EPSILON * joules);
            }
        }
    }
}

/// At any moment the file holds whole lines, for a concurrent reader or after a kill.
#[test]
fn lines_are_written_whole_and_no_later_than_asked() {
    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let plan = &plans()[0];
    let (header, costs) = (header(plan), costs(plan, 40));
    for format in FORMATS {
        let file = Shared::default();
        let lines = || file.0.borrow().iter().filter(|&&byte| byte == b'\n').count();
        let mut writer = LedgerWriter::new(file.clone(), format, &header).unwrap();
        let head = lines();
        for cost in &costs {
            writer.write(cost).unwrap();
            assert_eq!(file.0.borrow().last(), Some(&b'\n'));
        }
        writer.flush().unwrap();
        assert_eq!(lines(), head + costs.len());
        std::thread::sleep(Duration::from_millis(110));
        writer.write(&costs[0]).unwrap();
        assert_eq!(lines(), head + costs.len() + 1, "after a pause a line is written at once");
        writer.write(&costs[1]).unwrap();
        drop(writer);
        assert_eq!(lines(), head + costs.len() + 2, "what waits is written in the end");
    }
}

#[test]
fn a_missing_figure_stays_missing() {
    let plan = &plans()[0];
    let (header, mut costs) = (header(plan), costs(plan, 8));
    costs[3].energy[0].joules = None;
    costs[3].conditions = Default::default();
    for format in FORMATS {
        let ledger = parsed("x", &written(&header, &costs, format)).unwrap();
        assert_eq!((ledger.entries[3].joules[0], ledger.entries[2].joules[0].is_some()), (None, true));
        assert_eq!(ledger.entries[3].conditions, Default::default());
        assert!(ledger.warnings.is_empty());
    }
}

/// Wherever a run is killed, reading gives the beginning of what was written, or an error.
#[test]
fn a_file_cut_anywhere_is_never_misread() {
    let plan = &plans()[0];
    let (header, costs) = (header(plan), costs(plan, 6));
    for format in FORMATS {
        let bytes = written(&header, &costs, format);
        let whole = parsed("x", &bytes).unwrap();
        for length in 0..bytes.len() {
            match parsed("x", &bytes[..length]) {
                Ok(part) => {
                    assert_eq!(part.entries[..], whole.entries[..part.entries.len()], "cut at {length}");
                    let is_end_of_line = bytes[length - 1] == b'\n' || bytes[length] == b'\n';
                    assert!(part.warnings.len() == 1 || is_end_of_line, "cut at {length}");
                }
                Err(error) => {
                    let lines = bytes[..length].iter().filter(|&&byte| byte == b'\n').count();
                    assert!(lines <= 2, "cut at {length}: {error}");
                }
            }
        }
        let mut zeros = bytes.clone();
        zeros.extend([0; 40]);
        assert_eq!(parsed("x", &zeros).unwrap().entries, whole.entries, "a tail of zeros after a crash");
    }
}

/// Replaces `from` by `to` in line `line` (from 1) of a sound ledger.
fn damaged(format: LedgerFormat, line: usize, from: &str, to: &str) -> Vec<u8> {
    let plan = &plans()[0];
    let text = String::from_utf8(written(&header(plan), &costs(plan, 6), format)).unwrap();
    let mut lines: Vec<String> = text.lines().map(Into::into).collect();
    assert!(lines[line - 1].contains(from), "{from} in {}", lines[line - 1]);
    lines[line - 1] = lines[line - 1].replacen(from, to, 1);
    (lines.join("\n") + "\n").into_bytes()
}

#[test]
fn wrong_fields_are_named_with_their_line() {
    let line = [
        ("\"tokens\":1,", "\"tokens\":\"one\",", "line 3, tokens: found \"one\""),
        ("\"tokens\":1,", "\"tokens\":-1,", "line 3, tokens: found -1"),
        ("\"tokens\":1,", "\"tokens\":1.5,", "line 3, tokens: found 1.5"),
        ("\"tokens\":1,", "\"tokens\":1e300,", "line 3, tokens: found 1e+300"),
        ("\"tokens\":1,", "", "line 3, tokens: found nothing"),
        ("\"weight_bytes\":", "\"weight_kb\":", "line 3, weight_kb: found an unknown field"),
        ("\"weight_bytes\":", "\"weight_bytes\":999999999", "line 3, weight_bytes"),
        ("\"seconds\":0.", "\"seconds\":-0.", "line 3, seconds: found -0."),
        ("\"seconds\":0.", "\"seconds\":1e99,\"x\":0.", "line 3, x: found an unknown field"),
        ("\"phase\":\"decode\"", "\"phase\":\"idle\"", "line 3, phase: found \"idle\""),
        ("\"start_seconds\":0.", "\"start_seconds\":0.000", "line 3, start_seconds"),
        ("\"scope\":\"board\"", "\"scope\":\"rail\"", "line 3, energy, pmic, sum"),
        ("\"throttled\":false", "\"throttled\":0", "line 3, throttled: found 0"),
        ("\"temperature_celsius\":", "\"temperature_celsius\":\"hot\",\"frequency_hz\":", "line 3"),
        ("{", "[", "line 3: not a line of JSON"),
    ];
    for (from, to, expected) in line {
        let error = parsed("run.jsonl", &damaged(LedgerFormat::Jsonl, 3, from, to)).unwrap_err().to_string();
        assert!(error.starts_with("run.jsonl, ") && error.contains(expected), "{to}: {error}");
    }
    // Line 2 holds the columns.
    let table = [
        (2, ",seconds,", ",milliseconds,", "line 2, column 5: found \"milliseconds\", expected \"seconds\""),
        (2, "joules[bytes]", "millijoules[bytes]", "line 2, column 15"),
        (2, "joules[bytes]", "joules[bytes],watts", "line 2, watts: found an unknown field"),
        (4, "decode,1,", "decode,1,1,", "line 4: found 16 cells, expected 15"),
        (4, "decode,1,", "decode,x,", "line 4, tokens: found \"x\""),
        (4, "decode,1,", "decode,,", "line 4, tokens: found null"),
        (4, "false", "maybe", "line 4, throttled: found \"maybe\""),
    ];
    for (line, from, to, expected) in table {
        let error = parsed("run.csv", &damaged(LedgerFormat::Csv, line, from, to)).unwrap_err().to_string();
        assert!(error.starts_with("run.csv, ") && error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn clocks_that_go_back_are_refused() {
    let plan = &plans()[0];
    let (header, mut costs) = (header(plan), costs(plan, 6));
    costs.swap(3, 4);
    let error = parsed("x", &written(&header, &costs, LedgerFormat::Jsonl)).unwrap_err();
    // After the first line. The swapped costs are on lines 5 and 6.
    assert!(
        matches!(&error, ReportError::Field { line: 6, field, .. } if field == "start_seconds"),
        "{error}"
    );
    assert!(error.to_string().contains("clocks do not go back"));
}

#[test]
fn a_sensor_s_nonsense_is_left_out_and_said() {
    let cases = [
        ("\"temperature_celsius\":", "\"temperature_celsius\":1000", "temperature_celsius"),
        ("\"frequency_hz\":2400000000", "\"frequency_hz\":2400", "frequency_hz"),
        ("\"joules\":0.", "\"joules\":-0.", "energy, pmic, sum"),
        ("\"joules\":0.", "\"joules\":90000000.", "energy, pmic, sum"),
    ];
    for (from, to, field) in cases {
        let ledger = parsed("x", &damaged(LedgerFormat::Jsonl, 4, from, to)).unwrap();
        let [warning] = &ledger.warnings[..] else { panic!("{to}: {:?}", ledger.warnings) };
        assert_eq!((warning.line, warning.field.as_str(), warning.lines), (4, field, 1), "{warning}");
        let entry = &ledger.entries[2];
        let missing = match field {
            "temperature_celsius" => entry.conditions.temperature_celsius.is_none(),
            "frequency_hz" => entry.conditions.frequency_hz.is_none(),
            _ => entry.joules[0].is_none() && entry.joules[1].is_some(),
        };
        assert!(missing, "{to}: {entry:?}");
    }
}

#[test]
fn other_files_are_no_ledgers() {
    let error = |bytes: &[u8]| parsed("x", bytes).unwrap_err();
    for bytes in [&b""[..], b"\n", b"hello\n", b"{}\n", b"a,b\n1,2\n", b"# x\n", b"\x89PNG\n"] {
        let error = error(bytes);
        assert!(matches!(error, ReportError::NotALedger { .. } | ReportError::Line { .. }), "{error}");
    }
    let text = error(b"{\"pith_ledger\":99}\n");
    assert!(matches!(text, ReportError::Schema { found: 99, .. }), "{text}");
    let text = error(b"{\"pith_ledger\":\"new\"}\n").to_string();
    assert!(text.contains("line 1, pith_ledger: found \"new\""), "{text}");
    let text = error(&damaged(LedgerFormat::Jsonl, 1, "\"threads\":4", "\"threads\":\"4\"")).to_string();
    assert!(text.contains("line 1, run.threads"), "{text}");
    let plan = &plans()[0];
    let text = error(&written(&header(plan), &[], LedgerFormat::Jsonl));
    assert!(matches!(text, ReportError::Empty { .. }), "{text}");
    let text = pith_report::LedgerFile::read("/nowhere/x.jsonl".as_ref()).unwrap_err().to_string();
    assert!(text.starts_with("/nowhere/x.jsonl: "), "{text}");
    let mut long = written(&header(plan), &costs(plan, 1), LedgerFormat::Jsonl);
    long.resize(long.len() + MAX_LINE_BYTES as usize + 1, b' ');
    assert!(error(&long).to_string().contains("longer than"));
}

#[test]
fn a_bandwidth_that_cannot_be_is_left_out() {
    let bytes = damaged(LedgerFormat::Csv, 1, "\"bytes_per_second\":", "\"bytes_per_second\":-");
    let ledger = parsed("x", &bytes).unwrap();
    assert_eq!((&ledger.header.bandwidth, ledger.warnings.len()), (&None, 1));
    assert!(ledger.entries.iter().any(|entry| entry.phase == Phase::Decode));
}
