//! The report as a drawing: one bar per tool in each cell of the highest thread count.

use super::record::{Cell, Figure};
use super::table::short;
use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const LABEL_WIDTH: f64 = 210.0;
const BAR_WIDTH: f64 = 430.0;
const BAR_HEIGHT: f64 = 13.0;
const GAP: f64 = 8.0;
const HEAD: f64 = 30.0;
/// Distinct in grey and for colour-blind readers.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#999999", "#009e73", "#cc79a7", "#56b4e9"];

/// An SVG document; bars are scaled per test.
pub fn render(cells: &[Cell]) -> String {
    let threads = cells.iter().map(|cell| cell.threads).max().unwrap_or_default();
    let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.threads == threads).collect();
    let mut tests: Vec<&str> = Vec::new();
    let mut tools: Vec<&str> = Vec::new();
    for cell in &cells {
        if !tests.contains(&cell.test.as_str()) {
            tests.push(&cell.test);
        }
        for figure in &cell.figures {
            if !tools.contains(&figure.tool.as_str()) {
                tools.push(&figure.tool);
            }
        }
    }
    let mut body = legend(&tools);
    let mut top = HEAD;
    for test in tests {
        let title = format!("{test}, tokens/s, {threads} threads");
        let _ =
            writeln!(body, r#"<text x="8" y="{}" font-weight="bold">{}</text>"#, top + 16.0, escape(&title));
        top += HEAD;
        let rows: Vec<&Cell> = cells.iter().copied().filter(|cell| cell.test == test).collect();
        top = panel(&mut body, &rows, &tools, top) + GAP;
    }
    let head = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>
"##
    );
    head + &body + "</svg>\n"
}

fn legend(tools: &[&str]) -> String {
    let mut text = String::new();
    let mut left = 8.0;
    for (index, tool) in tools.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let _ = writeln!(
            text,
            r#"<rect x="{left}" y="8" width="12" height="12" fill="{colour}"/><text x="{}" y="18">{}</text>"#,
            left + 16.0,
            escape(tool)
        );
        left += 32.0 + 8.0 * tool.chars().count() as f64;
    }
    text
}

/// Draws from `top` down; returns the lower edge.
fn panel(body: &mut String, rows: &[&Cell], tools: &[&str], mut top: f64) -> f64 {
    let median = |figure: &Figure| figure.tokens_per_s.map(|spread| spread.median);
    let most = rows.iter().flat_map(|cell| &cell.figures).filter_map(median).fold(0.0, f64::max);
    for cell in rows {
        let ratio = cell.ratio.map_or(String::new(), |ratio| format!(", {ratio:.2} ×"));
        let label = format!("{} {}{ratio}", cell.shape, cell.encoding);
        let _ = writeln!(body, r#"<text x="24" y="{}">{}</text>"#, top + 11.0, escape(&label));
        for figure in &cell.figures {
            let Some(spread) = figure.tokens_per_s else { continue };
            let tool = tools.iter().position(|tool| *tool == figure.tool).unwrap_or_default();
            let length = BAR_WIDTH * spread.median / most;
            let colour = COLOURS[tool % COLOURS.len()];
            let _ = writeln!(
                body,
                r#"<rect x="{LABEL_WIDTH}" y="{top}" width="{length:.1}" height="{}" fill="{colour}"/><text x="{:.1}" y="{}">{}</text>"#,
                BAR_HEIGHT - 2.0,
                LABEL_WIDTH + length + 5.0,
                top + 10.0,
                short(spread.median)
            );
            top += BAR_HEIGHT;
        }
        top += GAP;
    }
    top
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::record::{cells, tests::run};
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let mut runs = vec![run("pith", 1, 50.0), run("a<b", 1, 25.0), run("pith", 1, 7.0)];
        runs[2].threads = 1;
        let svg = render(&cells(&runs));
        assert!(svg.contains(r#"width="430.0""#) && svg.contains(r#"width="215.0""#), "{svg}");
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"), "{svg}");
        assert!(svg.contains("2 threads") && !svg.contains(">7.0<"), "{svg}");
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
    }

    #[test]
    fn nothing_measured_is_an_empty_drawing() {
        assert!(render(&[]).ends_with("</svg>\n"));
    }
}
