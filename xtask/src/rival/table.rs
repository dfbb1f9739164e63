//! The report as Markdown.

use super::Conditions;
use super::record::{Cell, Figure, Run};
use pith_meter::statistics::MedianRange;
use std::fmt::Write as _;

/// Tables by test, the fastest settings, and the dropped runs.
pub fn render(conditions: &Conditions, cells: &[Cell], runs: &[Run], plot: &str) -> String {
    let mut text = format!("{}\n", conditions.sentence());
    let _ = write!(text, "\n{}", ceilings(runs));
    let mut tests: Vec<&str> = Vec::new();
    for cell in cells {
        if !tests.contains(&cell.test.as_str()) {
            tests.push(&cell.test);
        }
    }
    for test in tests {
        let rows: Vec<&Cell> = cells.iter().filter(|cell| cell.test == test).collect();
        text += &table(test, &rows);
    }
    let _ = writeln!(text, "\n![tokens per second]({plot})\n\n{}", settings(cells));
    let counted = runs.iter().filter(|run| run.round.is_some());
    let dropped = counted.clone().filter(|run| run.disturbed).count();
    let _ = writeln!(
        text,
        "{dropped} of {} runs were dropped: other programs kept more than {} of a core busy meanwhile.",
        counted.count(),
        conditions.foreign_limit
    );
    text
}

fn table(test: &str, rows: &[&Cell]) -> String {
    let prefill = test.starts_with("pp");
    let share = if prefill { "of the int8 peak" } else { "GB/s, of the probe" };
    let mut tools: Vec<&str> = Vec::new();
    for figure in rows.iter().flat_map(|cell| &cell.figures) {
        if !tools.contains(&figure.tool.as_str()) {
            tools.push(&figure.tool);
        }
    }
    let mut text =
        format!("\n**{test}**, tokens/s: median (least – most); {share}\n\n| shape | encoding | threads |");
    tools.iter().for_each(|tool| text += &format!(" {tool} | |"));
    text += " ratio |\n|---|---|---:|";
    tools.iter().for_each(|_| text += "---:|---:|");
    text += "---:|\n";
    for cell in rows {
        let _ = write!(text, "| {} | {} | {} |", cell.shape, cell.encoding, cell.threads);
        for tool in &tools {
            let figure = cell.figures.iter().find(|figure| figure.tool == *tool);
            let _ = write!(text, " {} | {} |", rate(figure), ceiling(figure));
        }
        let _ = writeln!(text, " {} |", cell.ratio.map_or("–".into(), |ratio| format!("**{ratio:.2}**")));
    }
    text
}

fn rate(figure: Option<&Figure>) -> String {
    match figure.and_then(|figure| figure.tokens_per_s) {
        Some(MedianRange { median, min, max }) => {
            format!("{} ({} – {})", short(median), short(min), short(max))
        }
        None => "–".into(),
    }
}

fn ceiling(figure: Option<&Figure>) -> String {
    let share = figure.and_then(|figure| figure.share).map(|share| format!("{:.0} %", 100.0 * share.median));
    let gb_per_s = figure.and_then(|figure| figure.gb_per_s).map(|rate| format!("{:.1}", rate.median));
    let both: Vec<String> = gb_per_s.into_iter().chain(share).collect();
    if both.is_empty() { "–".into() } else { both.join(", ") }
}

/// Three digits or more.
pub fn short(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// The probes, over all undisturbed runs.
fn ceilings(runs: &[Run]) -> String {
    let mut threads: Vec<usize> = runs.iter().map(|run| run.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    let mut text = String::from(
        "| threads | memory read, GB/s: median (least – most) | int8 peak, GOP/s |\n|---:|---:|---:|\n",
    );
    for threads in threads {
        let of = || runs.iter().filter(|run| run.threads == threads && !run.disturbed);
        let read = MedianRange::of(of().map(|run| run.probe_bytes_per_s / 1e9));
        let peak = MedianRange::of(of().filter_map(|run| run.peak_ops_per_s).map(|rate| rate / 1e9));
        let cell = |spread: Option<MedianRange>, decimals: usize| match spread {
            Some(MedianRange { median, min, max }) => {
                format!("{median:.decimals$} ({min:.decimals$} – {max:.decimals$})")
            }
            None => "–".into(),
        };
        let _ = writeln!(text, "| {threads} | {} | {} |", cell(read, 1), cell(peak, 0));
    }
    text
}

/// File, settings and head of each tool.
fn settings(cells: &[Cell]) -> String {
    let mut text =
        String::from("| tool | file and settings | head: encoding, bits, logits | in |\n|---|---|---|---|\n");
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for cell in cells {
        for figure in &cell.figures {
            let setting = match figure.setting.as_str() {
                "" => String::new(),
                setting => format!(" `{setting}`"),
            };
            let key = format!("| {} | {}{setting} | {} |", figure.tool, figure.format, figure.head);
            let place = format!("{} {} {}", cell.shape, cell.encoding, cell.test);
            match lines.iter_mut().find(|(other, _)| *other == key) {
                Some((_, places)) if places.contains(&place) => {}
                Some((_, places)) => places.push(place),
                None => lines.push((key, vec![place])),
            }
        }
    }
    lines.sort();
    for (key, places) in lines {
        let _ = writeln!(text, "{key} {} |", places.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::record::{cells, tests::run};
    use super::*;

    fn conditions() -> Conditions {
        Conditions {
            processor: "A CPU".into(),
            cores: 2,
            rounds: 7,
            foreign_limit: 0.15,
            kernels: None,
            pure: false,
            int8_instruction: Some("vpdpbusd".into()),
        }
    }

    #[test]
    fn a_table_shows_medians_spreads_shares_and_ratios() {
        let mut runs = vec![run("pith", 1, 50.0), run("pith", 2, 52.0), run("llama.cpp", 1, 40.0)];
        runs.push(run("llama.cpp", 2, 4.0));
        runs[3].disturbed = true;
        let text = render(&conditions(), &cells(&runs), &runs, "performance/rival.svg");
        let row = "| 1.2b | q4 | 2 | 51.0 (50.0 – 52.0) | 40.8, 102 % | 40.0 (40.0 – 40.0) | 32.0, 80 % | **1.27** |";
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains("| llama.cpp | Q4_0 `-fa on` | Q6_K, 6.6 bits, exact | 1.2b q4 tg128 |"),
            "{text}"
        );
        assert!(text.contains("| pith | q4 | q8, 8.5 bits, exact | 1.2b q4 tg128 |"), "{text}");
        assert!(text.contains("1 of 4 runs were dropped"), "{text}");
        assert!(text.contains("| 2 | 40.0 (40.0 – 40.0) | 1800 (1800 – 1800) |"), "{text}");
        assert!(text.contains("](performance/rival.svg)"), "{text}");
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let mut runs = vec![run("pith", 1, 50.0), run("llama.cpp", 1, 40.0)];
        runs[1].disturbed = true;
        let text = render(&conditions(), &cells(&runs), &runs, "x.svg");
        assert!(text.contains("| 50.0 (50.0 – 50.0) | 40.0, 100 % | – | – | – |"), "{text}");
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_head() {
        let mut runs = vec![run("pith", 1, 50.0), run("a", 1, 40.0), run("b", 1, 40.0)];
        let mut prefill = run("pith", 1, 500.0);
        (prefill.test, prefill.bytes_per_token, prefill.ops_per_token) = ("pp512".into(), None, Some(2e9));
        runs.push(prefill);
        let text = render(&conditions(), &cells(&runs), &runs, "x.svg");
        for block in text.split("\n\n").filter(|block| block.starts_with('|')) {
            let counts: Vec<usize> = block.lines().map(|line| line.matches('|').count()).collect();
            assert!(counts.iter().all(|count| *count == counts[0]), "{block}");
        }
    }
}
