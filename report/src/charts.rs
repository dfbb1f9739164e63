//! Charts of the page.

use crate::metrics::{kind_name, scope_name};
use crate::run::Run;
use crate::svg::{Anchor, Svg, WIDTH, shortened, ticks};
use crate::tables::{ByteUnit, layer_parts, shown, significant};
use crate::timeline::Bins;
use pith_meter::statistics::Ratio;
use pith_meter::{Kind, Scope};
use pith_runtime::Phase;
use serde::Serialize;
use std::ops::Range;

/// A chart of the page.
#[derive(Serialize)]
pub(crate) struct Chart {
    pub svg: String,
    pub title: String,
    /// Kinds of its figures, for the badges.
    pub kinds: Vec<&'static str>,
    /// Quantity and scope that the chart shows.
    pub note: String,
    /// Class and label of each colour.
    pub legend: Vec<(&'static str, String)>,
}

const SERIES: [&str; 8] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];

/// Colour class of a run, the same in all charts.
pub(crate) fn series(index: usize) -> &'static str {
    SERIES[index % SERIES.len()]
}

struct Bar {
    label: String,
    value: String,
    /// Class, length and label of each part.
    parts: Vec<(&'static str, f64, String)>,
    interval: Option<f64>,
}

/// Horizontal bars, each with its label and value above it.
fn bars(id: &str, title: &str, unit: &str, bars: &[Bar]) -> String {
    const PITCH: f64 = 40.0;
    let length = |bar: &Bar| bar.parts.iter().map(|part| part.1).sum::<f64>();
    let most = bars.iter().map(|bar| length(bar) + bar.interval.unwrap_or(0.0)).fold(0.0, f64::max);
    let (step, count) = ticks(most, 4);
    let (left, right) = (4.0, WIDTH - 10.0);
    let scale = (right - left) / (step * count as f64);
    let bottom = 6.0 + PITCH * bars.len() as f64;
    let mut svg = Svg::default();
    for tick in 0..=count {
        let x = left + scale * step * tick as f64;
        svg.line((x, 4.0), (x, bottom), if tick == 0 { "axis" } else { "grid" });
        let anchor = match tick {
            0 => Anchor::Start,
            tick if tick == count => Anchor::End,
            _ => Anchor::Middle,
        };
        svg.text(x, bottom + 14.0, anchor, "tick", &significant_tick(step * tick as f64, step));
    }
    svg.text(right, bottom + 29.0, Anchor::End, "unit", unit);
    for (index, bar) in bars.iter().enumerate() {
        let y = 6.0 + PITCH * index as f64;
        let room = 46_usize.saturating_sub(bar.value.chars().count());
        svg.text(left + 3.0, y + 12.0, Anchor::Start, "label halo", &shortened(&bar.label, room));
        svg.text(right, y + 12.0, Anchor::End, "value halo", &bar.value);
        let mut x = left;
        for (class, value, tip) in &bar.parts {
            svg.rect((x, y + 18.0), (value * scale, 13.0), class, tip);
            x += value * scale;
        }
        if let Some(half) = bar.interval.map(|half| half * scale).filter(|half| *half > 0.4) {
            let (from, to, middle) = ((x - half).max(left), x + half, y + 24.5);
            svg.line((from, middle), (to, middle), "whisker");
            svg.line((from, middle - 4.5), (from, middle + 4.5), "whisker");
            svg.line((to, middle - 4.5), (to, middle + 4.5), "whisker");
        }
    }
    let spoken: Vec<_> = bars.iter().map(|bar| format!("{}: {} {unit}", bar.label, bar.value)).collect();
    svg.finish(id, bottom + 34.0, title, &spoken.join("; "))
}

/// A tick's number, with as many decimals as its step has.
fn significant_tick(value: f64, step: f64) -> String {
    // A step of 2.5 has one digit more than its magnitude says.
    let power = step.log10().floor();
    let digits = if (step / 10f64.powf(power) - 2.5).abs() < 1e-6 { 1 } else { 0 };
    let decimals = (digits - power as i32).clamp(0, 12) as usize;
    format!("{value:.decimals$}")
}

fn ratio_bar(run: &Run<'_>, ratio: &Ratio, unit: &str) -> Bar {
    Bar {
        label: run.numbered(),
        value: shown(ratio),
        parts: vec![(series(run.number - 1), ratio.mean, format!("{}: {} {unit}", run.label, shown(ratio)))],
        interval: ratio.half_width,
    }
}

/// Tokens per second of one phase.
pub(crate) fn speed(runs: &[Run<'_>], phase: Phase) -> Option<Chart> {
    let summaries = runs.iter().filter_map(|run| {
        let summary = match phase {
            Phase::Prefill => run.prefill.as_ref(),
            Phase::Decode => run.decode.as_ref(),
        };
        Some((run, summary?.tokens_per_second?))
    });
    let all: Vec<Bar> = summaries.map(|(run, rate)| ratio_bar(run, &rate, "tokens/s")).collect();
    let (id, title) = match phase {
        Phase::Prefill => ("speed-prefill", "Prompt, tokens a second"),
        Phase::Decode => ("speed-decode", "Decode, tokens a second"),
    };
    (!all.is_empty()).then(|| Chart {
        svg: bars(id, title, "tokens/s", &all),
        title: title.into(),
        kinds: vec!["measured"],
        note: "Time of the model's passes; sampling and printing left out.".into(),
        legend: Vec::new(),
    })
}

/// Joules per decoded token, of one kind and scope: others would not be comparable.
pub(crate) fn energy(runs: &[Run<'_>], kind: Kind, scope: Scope) -> Option<Chart> {
    let mut all = Vec::new();
    for run in runs {
        let Some(summary) = &run.decode else { continue };
        let meters = || {
            summary.energy.iter().filter(|energy| (energy.meter.kind, energy.meter.scope) == (kind, scope))
        };
        for energy in meters() {
            let Some(each) = &energy.joules_per_token else { continue };
            let mut bar = ratio_bar(run, each, "J/token");
            if meters().count() > 1 {
                bar.label = format!("{}, {}", bar.label, energy.meter.meter);
            }
            all.push(bar);
        }
    }
    let (kind, scope) = (kind_name(kind), scope_name(scope));
    let title = format!("Decode, joules a token: {scope}");
    let note = match kind {
        "modelled" => {
            "Computed from time and bytes by the board's model; no sensor. What the model is off by is not known from a run, so there is no interval."
        }
        "calibrated" => {
            "A sensor's reading corrected by a fit to a better instrument. Gross: idle power is in it."
        }
        _ => "A sensor's reading. Gross: idle power is in it.",
    };
    (!all.is_empty()).then(|| Chart {
        svg: bars(&format!("energy-{kind}-{scope}"), &title, "J/token", &all),
        title: title.clone(),
        kinds: vec![kind],
        note: format!("Scope: {scope}. {note}"),
        legend: Vec::new(),
    })
}

/// Bytes per decoded token, stacked by category.
pub(crate) fn traffic(runs: &[Run<'_>]) -> Option<Chart> {
    let names = ["weights", "embedding", "KV read", "KV write", "activations"];
    let classes = ["k0", "k1", "k2", "k3", "k4"];
    let decoded: Vec<_> = runs
        .iter()
        .filter_map(|run| Some((run, run.decode.as_ref().filter(|summary| summary.tokens > 0)?)))
        .collect();
    let each = |bytes: u64, tokens: u64| bytes as f64 / tokens as f64;
    let most = decoded.iter().map(|(_, summary)| each(summary.traffic.total_bytes(), summary.tokens));
    let unit = ByteUnit::of(most.fold(0.0, f64::max));
    let all: Vec<Bar> = decoded
        .iter()
        .map(|(run, summary)| {
            let traffic = &summary.traffic;
            let bytes = [
                traffic.weight_bytes,
                traffic.embedding_bytes,
                traffic.kv_read_bytes,
                traffic.kv_write_bytes,
                traffic.activation_bytes,
            ];
            let parts = bytes.iter().zip(names).zip(classes).map(|((&bytes, name), class)| {
                let value = each(bytes, summary.tokens) / unit.bytes;
                (class, value, format!("{name}: {} {}", significant(value, 4), unit.name))
            });
            let value = significant(each(traffic.total_bytes(), summary.tokens) / unit.bytes, 4);
            Bar { label: run.numbered(), value, parts: parts.collect(), interval: None }
        })
        .collect();
    let title = "Bytes a decoded token, by kind";
    (!all.is_empty()).then(|| Chart {
        svg: bars("traffic-kinds", title, &format!("{}/token", unit.name), &all),
        title: title.into(),
        kinds: vec!["counted"],
        note: "What the runtime touched; what came from memory is less where a cache holds it.".into(),
        legend: classes.into_iter().zip(names.map(String::from)).collect(),
    })
}

/// Bytes of each layer, stacked by part.
pub(crate) fn layers(run: &Run<'_>) -> Option<Chart> {
    let records: Vec<_> =
        run.ledger.header.model.by_layer.iter().filter(|record| record.layer.is_some()).collect();
    let all: Vec<f64> =
        records.iter().map(|record| layer_parts(record).iter().map(|&bytes| bytes as f64).sum()).collect();
    let most = all.iter().copied().fold(0.0, f64::max);
    if records.is_empty() || most <= 0.0 {
        return None;
    }
    let unit = ByteUnit::of(most);
    let frame = Frame::new(0.0..records.len() as f64, most / unit.bytes, 150.0);
    let mut svg = Svg::default();
    frame.draw_rows(&mut svg);
    let width = (frame.x(1.0) - frame.x(0.0)) * if records.len() > 60 { 1.0 } else { 0.82 };
    for (index, record) in records.iter().enumerate() {
        let mut base = 0.0;
        let names = ["attention", "feed-forward", "others"];
        for ((bytes, class), name) in layer_parts(record).into_iter().zip(["k2", "k0", "k4"]).zip(names) {
            let value = bytes as f64 / unit.bytes;
            let tip = format!("layer {index}, {name}: {} {}", significant(value, 4), unit.name);
            let (top, bottom) = (frame.y(base + value), frame.y(base));
            svg.rect((frame.x(index as f64), top), (width, bottom - top), class, &tip);
            base += value;
        }
    }
    let step = (ticks(records.len() as f64, 6).0.ceil() as usize).max(1);
    for index in (0..records.len()).step_by(step) {
        let x = frame.x(index as f64) + width / 2.0;
        svg.text(x, frame.bottom + 14.0, Anchor::Middle, "tick", &index.to_string());
    }
    svg.text(WIDTH - 10.0, frame.bottom + 29.0, Anchor::End, "unit", "layer");
    svg.text(4.0, 11.0, Anchor::Start, "unit", unit.name);
    let title = format!("Bytes by layer: {}", run.numbered());
    let sum: f64 = all.iter().sum();
    let description = format!(
        "{} layers, {} {} together, the largest {} {}",
        records.len(),
        significant(sum / unit.bytes, 4),
        unit.name,
        significant(most / unit.bytes, 4),
        unit.name
    );
    Some(Chart {
        svg: svg.finish(&format!("layers-{}-drawing", run.number), frame.bottom + 34.0, &title, &description),
        title,
        kinds: vec!["counted"],
        note: format!("{description}. Every byte of a layer is read for every decoded token."),
        legend: vec![("k2", "attention".into()), ("k0", "feed-forward".into()), ("k4", "others".into())],
    })
}

/// Frame of a curve: linear axes, ticks on the left.
struct Frame {
    across: Range<f64>,
    most: f64,
    step: f64,
    rows: usize,
    left: f64,
    bottom: f64,
}

const TOP: f64 = 18.0;
const RIGHT: f64 = WIDTH - 10.0;

impl Frame {
    fn new(across: Range<f64>, most: f64, height: f64) -> Self {
        let (step, rows) = ticks(most, 4);
        Self { across, most: step * rows as f64, step, rows, left: 44.0, bottom: TOP + height }
    }

    fn x(&self, value: f64) -> f64 {
        let length = (self.across.end - self.across.start).max(f64::MIN_POSITIVE);
        self.left + (RIGHT - self.left) * ((value - self.across.start) / length)
    }

    fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - TOP) * (value / self.most)
    }

    fn draw_rows(&self, svg: &mut Svg) {
        for tick in 0..=self.rows {
            let value = self.step * tick as f64;
            let y = self.y(value);
            svg.line((self.left, y), (RIGHT, y), if tick == 0 { "axis" } else { "grid" });
            svg.text(self.left - 5.0, y + 3.5, Anchor::End, "tick", &significant_tick(value, self.step));
        }
    }

    fn draw_seconds(&self, svg: &mut Svg) {
        let (step, count) = ticks(self.across.end, 4);
        for tick in 0..=count {
            let value = step * tick as f64;
            if value <= self.across.end * 1.001 {
                let x = self.x(value);
                svg.line((x, self.bottom), (x, self.bottom + 4.0), "axis");
                svg.text(x, self.bottom + 15.0, Anchor::Middle, "tick", &significant_tick(value, step));
            }
        }
        svg.text(RIGHT, self.bottom + 30.0, Anchor::End, "unit", "seconds");
    }
}

/// A quantity over time, with the phases in the background.
struct Curve {
    class: &'static str,
    name: String,
    values: Vec<Option<f64>>,
}

fn over_time(id: &str, title: &str, unit: &str, bins: &Bins, curves: &[Curve]) -> Option<String> {
    let known = || curves.iter().flat_map(|curve| curve.values.iter().copied().flatten());
    known().next()?;
    let most = known().fold(0.0, f64::max);
    let frame = Frame::new(0.0..bins.end, most, 140.0);
    let mut svg = Svg::default();
    for (from, to, phase) in &bins.spans {
        let (class, name) = match phase {
            Phase::Prefill => ("prefill", "prefill"),
            Phase::Decode => ("decode", "decode"),
        };
        let (left, right) = (frame.x(*from), frame.x(*to));
        let tip = format!("{name}, {} s to {} s", significant(*from, 4), significant(*to, 4));
        svg.rect((left, TOP), (right - left, frame.bottom - TOP), class, &tip);
        if right - left > 44.0 {
            svg.text((left + right) / 2.0, TOP - 4.0, Anchor::Middle, "tick", name);
        }
    }
    frame.draw_rows(&mut svg);
    frame.draw_seconds(&mut svg);
    for bin in bins.bins.iter().filter(|bin| bin.throttled == Some(true)) {
        let (left, right) = (frame.x(bin.from), frame.x(bin.to));
        svg.rect((left, frame.bottom - 5.0), (right - left, 5.0), "throttle", "throttled");
    }
    svg.text(4.0, 11.0, Anchor::Start, "unit", unit);
    let mut spoken = Vec::new();
    for curve in curves {
        let points = bins.bins.iter().zip(&curve.values);
        let points: Vec<_> =
            points.map(|(bin, value)| value.map(|value| (frame.x(bin.middle()), frame.y(value)))).collect();
        svg.path(&points, curve.class);
        let range = curve.values.iter().copied().flatten();
        let (low, high) =
            range.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        if low <= high {
            spoken.push(format!(
                "{}: {} to {} {unit}",
                curve.name,
                significant(low, 4),
                significant(high, 4)
            ));
        }
    }
    Some(svg.finish(id, frame.bottom + 35.0, title, &spoken.join("; ")))
}

/// Power, speed and temperature over the time of a run.
pub(crate) fn timeline(run: &Run<'_>, bins: &Bins) -> Vec<Chart> {
    let mut charts = Vec::new();
    let mut add =
        |id: String, title: String, unit: &str, kind: &'static str, note: &str, curves: Vec<Curve>| {
            let title = format!("{title}: {}", run.numbered());
            if let Some(svg) = over_time(&id, &title, unit, bins, &curves) {
                let named = (curves.len() > 1).then_some(curves).into_iter().flatten();
                let mut legend: Vec<_> = named.map(|curve| (curve.class, curve.name)).collect();
                for (phase, name) in [(Phase::Prefill, "prefill"), (Phase::Decode, "decode")] {
                    if bins.spans.iter().any(|span| span.2 == phase) {
                        legend.push((name, name.into()));
                    }
                }
                if bins.bins.iter().any(|bin| bin.throttled == Some(true)) {
                    legend.push(("throttle", "throttled".into()));
                }
                charts.push(Chart { svg, title, kinds: vec![kind], note: note.into(), legend });
            }
        };
    let meters = &run.ledger.header.meters;
    for kind in [Kind::Measured, Kind::Calibrated, Kind::Modelled] {
        let own = meters.iter().enumerate().filter(|(_, meter)| meter.kind == kind);
        let curves: Vec<Curve> = own
            .enumerate()
            .map(|(number, (index, meter))| Curve {
                class: series(number),
                name: format!("{} ({})", meter.meter, scope_name(meter.scope)),
                values: bins.bins.iter().map(|bin| bin.watts(index)).collect(),
            })
            .collect();
        let names: Vec<_> = curves.iter().map(|curve| curve.name.as_str()).collect();
        let note = format!("Mean power while computing. Meter and scope: {}.", names.join(", "));
        add(
            format!("power-{}-{}", run.number, kind_name(kind)),
            "Power".into(),
            "W",
            kind_name(kind),
            &note,
            curves,
        );
    }
    let values = bins.bins.iter().map(|bin| bin.tokens_per_second()).collect();
    let curve = Curve { class: series(run.number - 1), name: "decode".into(), values };
    let note = "Decoded tokens a second of decoding; falls where heat holds the clock down.";
    add(format!("rate-{}", run.number), "Speed".into(), "tokens/s", "measured", note, vec![curve]);
    let values = bins.bins.iter().map(|bin| bin.celsius).collect();
    let curve = Curve { class: "s1", name: "temperature".into(), values };
    add(
        format!("heat-{}", run.number),
        "Temperature".into(),
        "°C",
        "measured",
        "After each token.",
        vec![curve],
    );
    charts
}

/// Tokens per second over bytes per token, with the memory's ceilings.
pub(crate) fn roofline(runs: &[Run<'_>]) -> Option<Chart> {
    let points: Vec<(&Run<'_>, f64, f64)> = runs
        .iter()
        .filter_map(|run| {
            let summary = run.decode.as_ref()?;
            let (bytes, rate) = (summary.memory_bytes_per_token()?, summary.tokens_per_second?.mean);
            (bytes > 0.0 && rate > 0.0).then_some((run, bytes, rate))
        })
        .collect();
    let (_, bytes, rate) = *points.first()?;
    let mut ceilings: Vec<(f64, Vec<usize>)> = Vec::new();
    for (run, ..) in &points {
        let Some(bandwidth) = &run.ledger.header.bandwidth else { continue };
        match ceilings.iter_mut().find(|(rate, _)| (rate / bandwidth.bytes_per_second - 1.0).abs() < 1e-3) {
            Some((_, numbers)) => numbers.push(run.number),
            None => ceilings.push((bandwidth.bytes_per_second, vec![run.number])),
        }
    }
    let start = (bytes..bytes, rate..rate);
    let (x, y) = points.iter().fold(start, |(x, y), (_, bytes, rate)| {
        (x.start.min(*bytes)..x.end.max(*bytes), y.start.min(*rate)..y.end.max(*rate))
    });
    // The ceilings above the points must be visible.
    let top = ceilings.iter().map(|(rate, _)| rate / x.start).fold(y.end, f64::max);
    let mut plot = LogPlot {
        names: Vec::new(),
        points: Vec::new(),
        x: x.start / 2.0..x.end * 2.0,
        y: y.start / 2.0..top.min(y.end * 50.0) * 2.0,
    };
    let mut svg = Svg::default();
    plot.points = points.iter().map(|(_, bytes, rate)| plot.at(*bytes, *rate)).collect();
    plot.axes(&mut svg);
    for (ceiling, _) in &ceilings {
        plot.diagonal(&mut svg, *ceiling, "ceiling", &format!("ceiling {}", rate_name(*ceiling)));
    }
    // From the middle outwards; a line is drawn only where its label does not overlap earlier ones.
    let middle = points.iter().map(|(_, bytes, rate)| (bytes * rate).ln()).sum::<f64>() / points.len() as f64;
    let factors = factors(plot.y.end / plot.y.start);
    let mut rates: Vec<f64> =
        (6..=13).flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power))).collect();
    rates.sort_by(|one, other| (one.ln() - middle).abs().total_cmp(&(other.ln() - middle).abs()));
    for rate in rates {
        if ceilings.iter().all(|(ceiling, _)| (ceiling / rate).ln().abs() > 0.25) {
            plot.diagonal(&mut svg, rate, "iso", &rate_name(rate));
        }
    }
    plot.marks(&mut svg, &points);
    let spoken: Vec<_> = points
        .iter()
        .map(|(run, bytes, rate)| {
            let unit = ByteUnit::of(*bytes);
            let bytes = significant(bytes / unit.bytes, 4);
            format!("{}: {bytes} {}/token, {} tokens/s", run.numbered(), unit.name, significant(*rate, 4))
        })
        .collect();
    let title = "Roofline: bytes a token against speed";
    let note = match ceilings.is_empty() {
        true => {
            "No ledger knows its machine's bandwidth: the ceiling is missing. Lines join points of equal memory rate."
        }
        false => {
            "The thick line is the memory's bandwidth, known as the table says: decoding from memory cannot be above it, from a cache it can. Thin lines join points of equal memory rate."
        }
    };
    Some(Chart {
        svg: svg.finish("roofline-drawing", LOG_BOTTOM + 36.0, title, &spoken.join("; ")),
        title: title.into(),
        kinds: vec!["counted", "measured"],
        note: note.into(),
        legend: points.iter().map(|(run, ..)| (series(run.number - 1), run.numbered())).collect(),
    })
}

fn rate_name(rate: f64) -> String {
    let unit = ByteUnit::of(rate * 1.0001);
    format!("{} {}/s", plain(rate / unit.bytes), unit.name)
}

/// A plot with two logarithmic axes.
struct LogPlot {
    /// Ends of the labels already drawn.
    names: Vec<(f64, f64)>,
    /// Positions of the points.
    points: Vec<(f64, f64)>,
    x: Range<f64>,
    y: Range<f64>,
}

const LOG_LEFT: f64 = 46.0;
const LOG_BOTTOM: f64 = 272.0;

impl LogPlot {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let part =
            |value: f64, range: &Range<f64>| (value / range.start).ln() / (range.end / range.start).ln();
        (LOG_LEFT + (RIGHT - LOG_LEFT) * part(x, &self.x), LOG_BOTTOM - (LOG_BOTTOM - TOP) * part(y, &self.y))
    }

    fn axes(&self, svg: &mut Svg) {
        for value in decades(&self.y) {
            let (_, y) = self.at(self.x.start, value);
            svg.line((LOG_LEFT, y), (RIGHT, y), "grid");
            svg.text(LOG_LEFT - 5.0, y + 3.5, Anchor::End, "tick", &plain(value));
        }
        for value in decades(&self.x) {
            let (x, _) = self.at(value, self.y.start);
            svg.line((x, TOP), (x, LOG_BOTTOM), "grid");
            let unit = ByteUnit::of(value * 1.0001);
            svg.text(
                x,
                LOG_BOTTOM + 15.0,
                Anchor::Middle,
                "tick",
                &format!("{} {}", plain(value / unit.bytes), unit.name),
            );
        }
        svg.line((LOG_LEFT, LOG_BOTTOM), (RIGHT, LOG_BOTTOM), "axis");
        svg.line((LOG_LEFT, TOP), (LOG_LEFT, LOG_BOTTOM), "axis");
        svg.text(RIGHT, LOG_BOTTOM + 31.0, Anchor::End, "unit", "bytes a token (counted)");
        svg.text(4.0, 11.0, Anchor::Start, "unit", "tokens/s (measured)");
    }

    /// Line of constant `rate` in bytes per second, from the left or upper edge to the right or
    /// lower one. A thin line is drawn only where its label has room.
    fn diagonal(&mut self, svg: &mut Svg, rate: f64, class: &str, name: &str) {
        let from = self.x.start.max(rate / self.y.end);
        let to = self.x.end.min(rate / self.y.start);
        if from >= to {
            return;
        }
        let (start, end) = (self.at(from, rate / from), self.at(to, rate / to));
        if class == "ceiling" {
            svg.line(start, end, class);
            svg.text(start.0 + 28.0, start.1 + 9.0, Anchor::Start, "value halo", name);
            return;
        }
        // Above the end of the line, where points are rare.
        let at = (end.0 - 4.0, (end.1 - 6.0).min(LOG_BOTTOM - 5.0));
        let is_free =
            self.names.iter().all(|other| (at.0 - other.0).abs() > 56.0 || (at.1 - other.1).abs() > 16.0);
        let hides = |point: &(f64, f64)| {
            (at.0 - 70.0..at.0 + 12.0).contains(&point.0) && (point.1 - at.1).abs() < 22.0
        };
        if is_free && end.0 - start.0 > 60.0 && !self.points.iter().any(hides) {
            svg.line(start, end, class);
            svg.text(at.0, at.1, Anchor::End, "tick halo", name);
            self.names.push(at);
        }
    }

    /// A dot at every point, with its run's number beside it where there is room.
    fn marks(&self, svg: &mut Svg, points: &[(&Run<'_>, f64, f64)]) {
        let mut taken: Vec<(f64, f64)> = Vec::new();
        for ((run, bytes, rate), &(x, y)) in points.iter().zip(&self.points) {
            let free = |at: &(f64, f64)| {
                let far = |other: &(f64, f64), least: f64| (at.0 - other.0).hypot(at.1 - other.1) > least;
                taken.iter().all(|other| far(other, 18.0)) && self.points.iter().all(|other| far(other, 11.0))
            };
            let around = (1..=4).flat_map(|ring| {
                let radius = 14.0 + 9.0 * f64::from(ring - 1);
                (0..8).map(move |turn| {
                    let angle = std::f64::consts::FRAC_PI_4 * f64::from(turn) - std::f64::consts::FRAC_PI_2;
                    (x + radius * angle.cos(), y + radius * angle.sin())
                })
            });
            let mut around =
                around.filter(|at| at.0 > LOG_LEFT + 9.0 && at.0 < RIGHT - 9.0 && at.1 < LOG_BOTTOM - 9.0);
            let at = around.find(|at| free(at)).unwrap_or((x, y));
            let class = series(run.number - 1);
            svg.line((x, y), at, "leader");
            svg.path(&[Some((x, y))], class);
            let unit = ByteUnit::of(*bytes);
            let tip = format!(
                "{}: {} {}/token, {} tokens/s",
                run.label,
                significant(bytes / unit.bytes, 4),
                unit.name,
                significant(*rate, 4)
            );
            svg.mark(at, run.number, class, &tip);
            taken.push(at);
        }
    }
}

/// Multiples of the powers of ten that serve as ticks, for a range of this ratio.
fn factors(ratio: f64) -> &'static [f64] {
    if ratio > 60.0 { &[1.0] } else { &[1.0, 2.0, 5.0] }
}

/// 1, 2 and 5 times the powers of ten within a range; only the powers where the range is wide.
fn decades(range: &Range<f64>) -> Vec<f64> {
    let factors = factors(range.end / range.start);
    let powers = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let all = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
    all.filter(|value| range.contains(value)).collect()
}

/// A round number without trailing zeros.
fn plain(value: f64) -> String {
    let text = significant(value, 3);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_numbers_keep_their_zeros() {
        let rates = [1e6, 5e7, 1e8, 2e9, 1e10, 2e10, 1.45e10, 1e11].map(rate_name);
        let expected =
            ["1 MB/s", "50 MB/s", "100 MB/s", "2 GB/s", "10 GB/s", "20 GB/s", "14.5 GB/s", "100 GB/s"];
        assert_eq!(rates, expected);
        assert_eq!(decades(&(20.0..900.0)), [20.0, 50.0, 100.0, 200.0, 500.0]);
        assert_eq!(decades(&(0.5..2000.0)), [1.0, 10.0, 100.0, 1000.0]);
    }
}
