//! SVG drawings for a page. The page's style sheet colours shapes by class.

use minijinja::HtmlEscape;
use std::fmt::Write;

/// Width of every drawing in units: one pixel each on a narrow phone.
pub(crate) const WIDTH: f64 = 360.0;

/// Alignment of a text relative to its position.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing under construction.
#[derive(Default)]
pub(crate) struct Svg {
    body: String,
}

/// Escapes text for element content or an attribute.
pub(crate) fn escaped(text: &str) -> String {
    // XML allows no control characters, not even escaped.
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    HtmlEscape(&clean).to_string()
}

impl Svg {
    /// Finishes the drawing, with a title and a description for screen readers.
    pub fn finish(self, id: &str, height: f64, title: &str, description: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\" \
             xmlns=\"http://www.w3.org/2000/svg\"><title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>{}</svg>",
            round(height),
            escaped(title),
            escaped(description),
            self.body
        )
    }

    /// Text on its base line.
    pub fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = write!(
            self.body,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
            round(x),
            round(y),
            escaped(text)
        );
    }

    /// A line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let _ = write!(
            self.body,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{class}\"/>",
            round(from.0),
            round(from.1),
            round(to.0),
            round(to.1)
        );
    }

    /// A rectangle with the tooltip `tip`.
    pub fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str, tip: &str) {
        let _ = write!(
            self.body,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"{class}\">{}</rect>",
            round(x),
            round(y),
            round(width.max(0.0)),
            round(height.max(0.0)),
            tooltip(tip)
        );
    }

    /// A numbered marker.
    pub fn mark(&mut self, (x, y): (f64, f64), number: usize, class: &str, tip: &str) {
        let (x, y) = (round(x), round(y));
        let _ = write!(
            self.body,
            "<g>{}<circle cx=\"{x}\" cy=\"{y}\" r=\"8.5\" class=\"mark {class}\"/><text x=\"{x}\" y=\"{}\" \
             text-anchor=\"middle\" class=\"number\">{number}</text></g>",
            tooltip(tip),
            round(y + 3.7)
        );
    }

    /// A polyline with a gap at every missing point; an isolated point becomes a dot.
    pub fn path(&mut self, points: &[Option<(f64, f64)>], class: &str) {
        for run in points.split(Option::is_none) {
            let run: Vec<(f64, f64)> = run.iter().copied().flatten().collect();
            match run[..] {
                [] => {}
                [(x, y)] => {
                    let (x, y) = (round(x), round(y));
                    let _ =
                        write!(self.body, "<circle cx=\"{x}\" cy=\"{y}\" r=\"2.5\" class=\"dot {class}\"/>");
                }
                _ => {
                    let steps: Vec<_> =
                        run.iter().map(|(x, y)| format!("{} {}", round(*x), round(*y))).collect();
                    let _ = write!(self.body, "<path d=\"M{}\" class=\"curve {class}\"/>", steps.join("L"));
                }
            }
        }
    }
}

fn tooltip(tip: &str) -> String {
    if tip.is_empty() { String::new() } else { format!("<title>{}</title>", escaped(tip)) }
}

/// Two decimals are finer than any screen.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Ticks of an axis from 0 to at least `most`: their distance, and their number without 0.
pub(crate) fn ticks(most: f64, count: usize) -> (f64, usize) {
    if !(most.is_finite() && most > 0.0) {
        return (1.0, 1);
    }
    let rough = most / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    (step, ((most / step) * 0.9999).ceil().max(1.0) as usize)
}

/// `text`, cut with an ellipsis if it has more than `most` characters.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values_in_round_steps() {
        for (most, expected) in [(0.2585, 0.1), (30.4, 10.0), (1.0, 0.25), (7e9, 2e9), (2.4, 1.0)] {
            let (step, count) = ticks(most, 4);
            assert!((step - expected).abs() < 1e-9 * expected, "{most}: {step}");
            assert!(step * count as f64 >= most * 0.999 && count <= 5);
        }
        assert_eq!(ticks(0.0, 4), (1.0, 1));
        assert_eq!(ticks(f64::NAN, 4), (1.0, 1));
    }

    #[test]
    fn text_cannot_leave_its_element() {
        let mut svg = Svg::default();
        svg.text(1.0, 2.0, Anchor::End, "label", "</text><script>alert('x')</script>\u{1}");
        let text = svg.finish("a", 10.0, "<b>", "\"&");
        assert!(!text.contains("<script") && !text.contains("<b>") && !text.contains('\u{1}'), "{text}");
        assert!(roxmltree::Document::parse(&text).is_ok());
    }
}
