//! The page shows the figures of the ledgers.

use crate::common::{Plan, costs, header, meter, parsed, plans, written};
use pith_meter::{Kind, Scope};
use pith_report::{LedgerFormat, ReportError, page};
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

const TOKENS: usize = 120;

fn document(text: &str) -> Document<'_> {
    Document::parse_with_options(text, ParsingOptions { allow_dtd: true, ..Default::default() }).unwrap()
}

struct Cell {
    text: String,
    value: Option<f64>,
    interval: Option<f64>,
}

/// Rows of a table, found by its id.
fn rows(document: &Document<'_>, id: &str) -> Vec<Vec<Cell>> {
    let name = format!("table-{id}");
    let table = document.descendants().find(|node| node.attribute("id") == Some(&name)).expect(id);
    assert_eq!(table.tag_name().name(), "table");
    let named = |node: &Node<'_, '_>, name: &str| node.tag_name().name() == name;
    let head = table.descendants().filter(|node| named(node, "th")).count();
    let body = table.descendants().filter(|node| named(node, "tr")).skip(1);
    body.map(|row| {
        let cells: Vec<Cell> = row
            .children()
            .filter(|node| named(node, "td"))
            .map(|cell| Cell {
                text: cell.text().unwrap_or_default().into(),
                value: cell.attribute("data-value").map(|value| value.parse().unwrap()),
                interval: cell.attribute("data-interval").map(|value| value.parse().unwrap()),
            })
            .collect();
        assert_eq!(cells.len(), head, "{id}");
        cells
    })
    .collect()
}

/// The page of the four runs, one of them from CSV and the others from JSON lines; and their lines
/// as plain JSON.
fn four() -> (String, Vec<Vec<Value>>) {
    let mut ledgers = Vec::new();
    let mut lines = Vec::new();
    for (index, plan) in plans().iter().enumerate() {
        let (header, costs) = (header(plan), costs(plan, TOKENS));
        let text = String::from_utf8(written(&header, &costs, LedgerFormat::Jsonl)).unwrap();
        lines.push(text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect());
        let format = if index == 1 { LedgerFormat::Csv } else { LedgerFormat::Jsonl };
        ledgers.push(parsed(&format!("run{index}"), &written(&header, &costs, format)).unwrap());
    }
    (page(&ledgers).unwrap(), lines)
}

fn sum(lines: &[Value], phase: &str, field: impl Fn(&Value) -> f64) -> f64 {
    lines.iter().filter(|line| line["phase"] == phase).map(field).sum()
}

fn of(name: &str) -> impl Fn(&Value) -> f64 {
    move |line: &Value| line[name].as_f64().unwrap()
}

#[track_caller]
fn same(cell: &Cell, expected: f64) {
    let value = cell.value.unwrap_or_else(|| panic!("missing, and should be {expected}"));
    assert!((value - expected).abs() <= 1e-9 * expected.abs(), "{value} is not {expected}");
}

/// Checks that a cell's text is its figure in units of `unit`, rounded.
#[track_caller]
fn reads(cell: &Cell, unit: f64) {
    let shown: f64 = cell.text.split(' ').next().unwrap().parse().unwrap();
    let value = cell.value.unwrap() / unit;
    assert!(
        (shown - value).abs() <= 6e-4 * value.abs() + cell.interval.unwrap_or(0.0) * 0.1,
        "{}: {value}",
        cell.text
    );
}

#[test]
fn the_page_s_numbers_are_the_ledgers_() {
    let (text, ledgers) = four();
    let document = document(&text);
    let (speed, traffic) = (rows(&document, "speed"), rows(&document, "traffic"));
    let roofline = rows(&document, "roofline");
    assert_eq!((speed.len(), traffic.len(), roofline.len()), (4, 4, 4));
    for (index, lines) in ledgers.iter().enumerate() {
        let [prompt, tokens] = ["prefill", "decode"].map(|phase| sum(lines, phase, of("tokens")));
        let seconds = sum(lines, "decode", of("seconds"));
        same(&speed[index][0], (index + 1) as f64);
        same(&speed[index][2], prompt);
        same(&speed[index][3], prompt / sum(lines, "prefill", of("seconds")));
        same(&speed[index][4], tokens);
        same(&speed[index][5], tokens / seconds);
        reads(&speed[index][5], 1.0);
        assert!(speed[index][5].interval.unwrap() > 0.0);
        let fields =
            ["weight_bytes", "embedding_bytes", "kv_read_bytes", "kv_write_bytes", "activation_bytes"];
        let bytes = fields.map(|field| sum(lines, "decode", of(field)));
        let most: f64 =
            ledgers.iter().map(|lines| sum(lines, "decode", of("weight_bytes")) / tokens).fold(0.0, f64::max);
        let unit = if most >= 1e9 { 1e9 } else { 1e6 };
        for (cell, bytes) in traffic[index][2..7].iter().zip(bytes) {
            same(cell, bytes / tokens);
            reads(cell, unit);
        }
        same(&traffic[index][7], bytes.iter().sum::<f64>() / tokens);
        let moved: f64 = bytes[..4].iter().sum();
        same(&roofline[index][2], moved / tokens);
        same(&roofline[index][3], tokens / seconds);
        same(&roofline[index][4], moved / seconds);
        if index < 2 {
            same(&roofline[index][5], 14.5e9);
            same(&roofline[index][6], 100.0 * moved / seconds / 14.5e9);
            assert_eq!((speed[index][7].text.as_str(), speed[index][8].value), ("yes", Some(78.0)));
        } else {
            assert_eq!(
                (roofline[index][5].text.as_str(), roofline[index][6].text.as_str()),
                ("missing", "missing")
            );
            assert_eq!(
                (speed[index][7].text.as_str(), speed[index][8].text.as_str()),
                ("missing", "missing")
            );
        }
    }
}

#[test]
fn energy_is_the_ledgers_and_kinds_stay_apart() {
    let (text, ledgers) = four();
    let document = document(&text);
    let measured = rows(&document, "energy-measured");
    let modelled = rows(&document, "energy-modelled");
    assert_eq!((measured.len(), modelled.len()), (2, 3));
    assert!(!text.contains("id=\"table-energy-calibrated\""));
    let runs = measured
        .iter()
        .map(|row| (0, row))
        .chain(modelled.iter().map(|row| (if row[0].value == Some(3.0) { 0 } else { 1 }, row)));
    for (meter, row) in runs {
        let lines = &ledgers[row[0].value.unwrap() as usize - 1];
        let joules = |line: &Value| line["energy"][meter]["joules"].as_f64().unwrap();
        let (decode, tokens) = (sum(lines, "decode", joules), sum(lines, "decode", of("tokens")));
        assert_eq!(row[2].text, lines[0]["energy"][meter]["meter"].as_str().unwrap());
        assert_eq!(row[3].text, "board");
        same(&row[4], sum(lines, "prefill", joules) / sum(lines, "prefill", of("tokens")));
        same(&row[5], decode / tokens);
        reads(&row[5], 1.0);
        same(&row[6], tokens / decode);
        same(&row[7], decode / sum(lines, "decode", of("seconds")));
        assert_eq!(row[8].text, format!("{TOKENS} of {TOKENS}"));
    }
    // The run without a meter is named and has no row.
    assert!(text.contains("figures are missing: 4 wren"), "said that run 4 has no meter");
}

#[test]
fn tables_of_the_file_and_of_time_add_up() {
    let (text, ledgers) = four();
    let document = document(&text);
    for (index, plan) in plans().iter().enumerate() {
        let header = header(plan);
        let total = |id: &str, column: usize| -> f64 {
            rows(&document, &format!("{id}-{}", index + 1)).iter().map(|row| row[column].value.unwrap()).sum()
        };
        let roles: u64 = header.model.by_role.iter().map(|record| record.bytes).sum();
        assert_eq!(total("roles", 3), roles as f64);
        let layers: u64 = header
            .model
            .by_layer
            .iter()
            .map(|record| record.attention_bytes + record.ffn_bytes + record.other_bytes)
            .sum();
        assert_eq!(total("layers", 4), layers as f64);
        let time = rows(&document, &format!("timeline-{}", index + 1));
        let last = ledgers[index].last().unwrap();
        same(&time.last().unwrap()[1], of("start_seconds")(last) + of("seconds")(last));
        assert_eq!(time[0].len(), 6 + plan.meters.len());
        assert!(time.iter().any(|row| row[2].text == "prefill"));
        assert_eq!(time.last().unwrap()[2].text, "decode");
        let hottest = time.iter().filter_map(|row| row[4].value).fold(f64::MIN, f64::max);
        assert_eq!(hottest, if plan.warm { 78.0 } else { f64::MIN });
    }
}

#[test]
fn the_page_needs_nothing_else_and_names_its_drawings() {
    let (text, _) = four();
    std::fs::write(format!("{}/report.html", env!("CARGO_TARGET_TMPDIR")), &text).unwrap();
    let document = document(&text);
    let mut ids = std::collections::HashSet::new();
    for node in document.descendants().filter(Node::is_element) {
        assert!(!["script", "link", "img", "iframe", "image", "use"].contains(&node.tag_name().name()));
        for attribute in node.attributes() {
            match attribute.name() {
                "href" => assert!(attribute.value().starts_with('#')),
                "id" => assert!(ids.insert(attribute.value()), "twice: {}", attribute.value()),
                name => {
                    assert!(!["src", "style", "srcset"].contains(&name) && !name.starts_with("on"), "{name}")
                }
            }
        }
    }
    for node in document.descendants().filter(Node::is_element) {
        if let Some(href) = node.attribute("href") {
            assert!(ids.contains(&href[1..]), "{href}");
        }
        if node.tag_name().name() == "svg" {
            let named: Vec<_> = node.attribute("aria-labelledby").unwrap().split(' ').collect();
            assert!(named.len() == 2 && named.iter().all(|id| ids.contains(id)), "{named:?}");
            let has =
                |name| node.children().any(|child| child.tag_name().name() == name && child.text().is_some());
            assert!(has("title") && has("desc"));
        }
    }
    // Each chart states the kind of its figures.
    let figures = document.descendants().filter(|node| node.tag_name().name() == "figure");
    let mut count = 0;
    for figure in figures {
        count += 1;
        let badges = figure
            .descendants()
            .filter(|node| node.attribute("class").is_some_and(|class| class.starts_with("badge ")));
        assert!(badges.count() >= 1);
    }
    assert!(count > 15, "{count}");
    assert!(
        !text.contains("url(") && !text.contains("@import") && text.contains("prefers-color-scheme: dark")
    );
    assert!(!text.contains("NaN") && !text.contains("inf\""));
}

#[test]
fn names_from_files_are_text_and_never_markup() {
    let hostile = "</title></svg><script>alert(1)</script>&\"'\u{7}";
    let mut plan: Plan = plans().remove(0);
    plan.name = hostile;
    plan.encoding = hostile;
    plan.meters = vec![meter(hostile, Scope::Wall, Kind::Calibrated)];
    let mut header = header(&plan);
    header.machine.board = Some(hostile.into());
    header.model.by_role[0].role = hostile.into();
    let bytes = written(&header, &costs(&plan, 30), LedgerFormat::Csv);
    let text = page(&[parsed(hostile, &bytes).unwrap()]).unwrap();
    assert!(!text.contains("<script"));
    let clean: String = text.chars().filter(|c| *c != '\u{7}').collect();
    assert_eq!(rows(&document(&clean), "energy-calibrated")[0][3].text, "wall");
}

#[test]
fn short_and_empty_runs_say_what_they_lack() {
    assert!(matches!(page(&[]), Err(ReportError::NoLedgers)));
    let plan = &plans()[3];
    // A prompt alone, then one more token.
    for tokens in [0, 1] {
        let mut costs = costs(plan, 1);
        costs.truncate(1 + tokens);
        let text =
            page(&[parsed("x", &written(&header(plan), &costs, LedgerFormat::Jsonl)).unwrap()]).unwrap();
        let document = document(&text);
        let speed = &rows(&document, "speed")[0];
        assert_eq!(speed[5].interval, None);
        assert_eq!(speed[5].text == "missing", tokens == 0, "{}", speed[5].text);
        assert!(text.contains("No run had a meter: every figure of energy is missing."));
        assert!(!text.contains("J/token"));
    }
}

#[test]
fn work_that_took_no_time_divides_nothing_by_it() {
    let plan = &plans()[0];
    let mut costs = costs(plan, 30);
    costs.iter_mut().for_each(|cost| (cost.elapsed, cost.start) = Default::default());
    costs.iter_mut().flat_map(|cost| &mut cost.energy).for_each(|reading| reading.joules = None);
    let text = page(&[parsed("x", &written(&header(plan), &costs, LedgerFormat::Jsonl)).unwrap()]).unwrap();
    assert_eq!(rows(&document(&text), "speed")[0][5].text, "missing");
    assert_eq!(rows(&document(&text), "energy-measured")[0][5].text, "missing");
    assert!(!text.contains("NaN"));
}
