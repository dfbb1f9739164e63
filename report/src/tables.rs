//! Every figure of the page as a table. The text is rounded; `value` holds the computed figure.

use crate::header::LayerBytes;
use crate::metrics::{kind_name, scope_name};
use crate::run::Run;
use crate::statistics::Summary;
use crate::timeline::Bins;
use pith_meter::Kind;
use pith_meter::statistics::Ratio;
use serde::Serialize;

/// A table of the page.
#[derive(Serialize)]
pub(crate) struct Table {
    pub id: String,
    pub caption: String,
    /// Kinds of its figures, for the badge; several where columns differ.
    pub kinds: Vec<&'static str>,
    pub columns: Vec<String>,
    /// Which columns hold figures, aligned right; filled in by [`Table::aligned`].
    pub figures: Vec<bool>,
    pub rows: Vec<Vec<Cell>>,
    /// Whether it is open at first or folded behind its caption.
    pub open: bool,
}

impl Table {
    /// Sets the columns that hold figures: at least one cell is a figure, none is text.
    pub fn aligned(mut self) -> Self {
        let is = |row: &Vec<Cell>, column: usize, class| row[column].class == class;
        let figures = |column: usize| {
            self.rows.iter().any(|row| is(row, column, "number"))
                && !self.rows.iter().any(|row| is(row, column, "text"))
        };
        self.figures = (0..self.columns.len()).map(figures).collect();
        self
    }
}

/// A cell of a table.
#[derive(Serialize)]
pub(crate) struct Cell {
    pub text: String,
    /// The figure before rounding; empty for text.
    pub value: String,
    /// Half-width of its interval before rounding, where there is one.
    pub interval: String,
    pub class: &'static str,
}

/// Unit of a byte column: the largest in which the column's maximum is at least 1.
#[derive(Clone, Copy)]
pub(crate) struct ByteUnit {
    pub bytes: f64,
    pub name: &'static str,
}

impl ByteUnit {
    pub fn of(most: f64) -> Self {
        let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
        let (bytes, name) = units.into_iter().find(|(bytes, _)| most >= *bytes).unwrap_or((1.0, "B"));
        Self { bytes, name }
    }

    fn cell(self, bytes: Option<f64>) -> Cell {
        bytes.map_or_else(missing, |bytes| number(bytes, significant(bytes / self.bytes, 4)))
    }
}

pub(crate) fn text(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), value: String::new(), interval: String::new(), class: "text" }
}

pub(crate) fn missing() -> Cell {
    Cell { text: "missing".into(), value: String::new(), interval: String::new(), class: "missing" }
}

fn known(found: Option<impl Into<String>>) -> Cell {
    found.map_or_else(missing, text)
}

fn number(value: f64, text: String) -> Cell {
    Cell { text, value: value.to_string(), interval: String::new(), class: "number" }
}

fn figure(value: Option<f64>) -> Cell {
    value.map_or_else(missing, |value| number(value, significant(value, 4)))
}

fn count(value: u64) -> Cell {
    number(value as f64, value.to_string())
}

fn ratio(ratio: Option<Ratio>) -> Cell {
    let Some(ratio) = ratio else { return missing() };
    let interval = ratio.half_width.map(|half| half.to_string()).unwrap_or_default();
    Cell { interval, ..number(ratio.mean, shown(&ratio)) }
}

fn yes_no(value: Option<bool>) -> Cell {
    known(value.map(|value| if value { "yes" } else { "no" }))
}

/// A mean with as many decimals as its interval justifies.
pub(crate) fn shown(ratio: &Ratio) -> String {
    match ratio.half_width {
        Some(half) if half > 0.0 && half.is_finite() => {
            let decimals = (1 - half.log10().floor() as i32).clamp(0, 9) as usize;
            format!("{:.decimals$} ± {half:.decimals$}", ratio.mean)
        }
        Some(_) => format!("{} ± 0", significant(ratio.mean, 4)),
        None => format!("{} (no interval)", significant(ratio.mean, 4)),
    }
}

/// Rounded to `digits` significant digits.
pub(crate) fn significant(value: f64, digits: i32) -> String {
    if !value.is_finite() {
        return "missing".into();
    }
    if value == 0.0 {
        return "0".into();
    }
    let decimals = (digits - 1 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    format!("{value:.decimals$}")
}

fn table(id: &str, caption: &str, kinds: &[&'static str], columns: &[&str], open: bool) -> Table {
    Table {
        id: id.into(),
        caption: caption.into(),
        kinds: kinds.to_vec(),
        columns: columns.iter().map(ToString::to_string).collect(),
        figures: Vec::new(),
        rows: Vec::new(),
        open,
    }
}

/// Model and settings of each run.
pub(crate) fn runs(runs: &[Run<'_>]) -> Table {
    let columns =
        ["№", "run", "model", "encoding", "file", "board", "processor", "kernels", "threads", "KV", "begun"];
    let mut table = table("runs", "Runs", &[], &columns, true);
    for run in runs {
        let header = &run.ledger.header;
        let unit = ByteUnit::of(header.model.file_bytes as f64);
        table.rows.push(vec![
            count(run.number as u64),
            text(&run.label),
            text(&header.model.name),
            known(header.model.main_encoding()),
            Cell {
                text: format!(
                    "{} {}",
                    significant(header.model.file_bytes as f64 / unit.bytes, 4),
                    unit.name
                ),
                ..count(header.model.file_bytes)
            },
            known(header.machine.board.as_deref()),
            known(header.machine.processor.as_deref()),
            text(&header.run.kernels),
            count(header.run.threads),
            text(&header.run.kv),
            known(header.started.as_deref()),
        ]);
    }
    table.aligned()
}

/// Tokens per second.
pub(crate) fn speed(runs: &[Run<'_>]) -> Table {
    let columns = [
        "№",
        "run",
        "prompt tokens",
        "prompt, tokens/s",
        "decoded tokens",
        "decode, tokens/s ± 95 % CI",
        "windows",
        "throttled",
        "hottest, °C",
    ];
    let mut table = table("speed", "Speed", &["measured"], &columns, true);
    for run in runs {
        let rate = |summary: &Option<Summary>| summary.as_ref().and_then(|summary| summary.tokens_per_second);
        let tokens = |summary: &Option<Summary>| {
            summary.as_ref().map_or_else(missing, |summary| count(summary.tokens))
        };
        let both = || [&run.prefill, &run.decode].into_iter().flatten();
        let throttled = both().filter_map(|summary| summary.throttled).reduce(|one, other| one || other);
        let hottest = both().filter_map(|summary| summary.hottest_celsius).reduce(f64::max);
        table.rows.push(vec![
            count(run.number as u64),
            text(&run.label),
            tokens(&run.prefill),
            figure(rate(&run.prefill).map(|rate| rate.mean)),
            tokens(&run.decode),
            ratio(rate(&run.decode)),
            count(rate(&run.decode).map_or(0, |rate| rate.windows as u64)),
            yes_no(throttled),
            figure(hottest),
        ]);
    }
    table.aligned()
}

/// Bytes per decoded token, by category.
pub(crate) fn traffic(runs: &[Run<'_>]) -> Table {
    let decoded = || runs.iter().filter_map(|run| Some((run, run.decode.as_ref()?)));
    let each =
        |bytes: u64, summary: &Summary| (summary.tokens > 0).then(|| bytes as f64 / summary.tokens as f64);
    let most = decoded().filter_map(|(_, summary)| each(summary.traffic.total_bytes(), summary));
    let unit = ByteUnit::of(most.fold(0.0, f64::max));
    let columns = ["№", "run", "weights", "embedding", "KV read", "KV write", "activations", "all"];
    let caption = format!("Bytes a decoded token, {}", unit.name);
    let mut table = table("traffic", &caption, &["counted"], &columns, true);
    for (run, summary) in decoded() {
        let traffic = &summary.traffic;
        let bytes = [
            traffic.weight_bytes,
            traffic.embedding_bytes,
            traffic.kv_read_bytes,
            traffic.kv_write_bytes,
            traffic.activation_bytes,
            traffic.total_bytes(),
        ];
        let cells = bytes.map(|bytes| unit.cell(each(bytes, summary)));
        table.rows.push([count(run.number as u64), text(&run.label)].into_iter().chain(cells).collect());
    }
    table.aligned()
}

/// Figures of the roofline.
pub(crate) fn roofline(runs: &[Run<'_>]) -> Table {
    let decoded = || runs.iter().filter_map(|run| Some((run, run.decode.as_ref()?)));
    let most = decoded().filter_map(|(_, summary)| summary.memory_bytes_per_token());
    let unit = ByteUnit::of(most.fold(0.0, f64::max));
    let bytes = format!("counted {}/token, weights and KV", unit.name);
    let columns = [
        "№",
        "run",
        &bytes,
        "measured tokens/s",
        "GB/s (counted bytes, measured time)",
        "memory's ceiling, GB/s",
        "% of the ceiling",
        "how known",
    ];
    let mut table = table("roofline", "Decoding against memory", &["counted", "measured"], &columns, true);
    for (run, summary) in decoded() {
        let rate = summary.memory_bytes_per_second();
        let bandwidth = run.ledger.header.bandwidth.as_ref();
        let ceiling = bandwidth.map(|bandwidth| bandwidth.bytes_per_second);
        let scaled = |value: Option<f64>| {
            value.map_or_else(missing, |value| number(value, significant(value / 1e9, 4)))
        };
        let percent = rate.zip(ceiling).map(|(rate, ceiling)| 100.0 * rate / ceiling);
        let source = bandwidth.map(|bandwidth| match bandwidth.threads {
            Some(threads) => format!("{}, {threads} threads", bandwidth.source),
            None => bandwidth.source.clone(),
        });
        table.rows.push(vec![
            count(run.number as u64),
            text(&run.label),
            unit.cell(summary.memory_bytes_per_token()),
            figure(summary.tokens_per_second.map(|rate| rate.mean)),
            scaled(rate),
            scaled(ceiling),
            percent.map_or_else(missing, |percent| number(percent, format!("{percent:.1}"))),
            known(source),
        ]);
    }
    table.aligned()
}

/// Energy of one kind: kinds never share a table.
pub(crate) fn energy(runs: &[Run<'_>], kind: Kind) -> Table {
    let columns = [
        "№",
        "run",
        "meter",
        "scope",
        "prompt, J/token",
        "decode, J/token ± 95 % CI",
        "decode, tokens/J",
        "decode, mean W",
        "lines with a figure",
        "caution",
    ];
    let name = kind_name(kind);
    let mut table = table(&format!("energy-{name}"), &format!("Energy, {name}"), &[name], &columns, true);
    for run in runs {
        for (index, meter) in run.ledger.header.meters.iter().enumerate() {
            if meter.kind != kind {
                continue;
            }
            let prefill = run.prefill.as_ref().map(|summary| &summary.energy[index]);
            let decode = run.decode.as_ref().map(|summary| (summary, &summary.energy[index]));
            let each = decode.and_then(|(_, energy)| energy.joules_per_token);
            let per_joule = each.filter(|each| each.mean > 0.0).map(|each| 1.0 / each.mean);
            let lines = decode.map(|(summary, energy)| format!("{} of {}", energy.lines, summary.lines));
            let caution = decode.and_then(|(_, energy)| energy.caution.clone()).unwrap_or_default();
            table.rows.push(vec![
                count(run.number as u64),
                text(&run.label),
                text(&meter.meter),
                text(scope_name(meter.scope)),
                figure(prefill.and_then(|energy| energy.joules_per_token).map(|each| each.mean)),
                ratio(each),
                figure(per_joule),
                figure(decode.and_then(|(summary, energy)| {
                    let whole = energy.lines == summary.lines && summary.seconds > 0.0;
                    energy.joules.filter(|_| whole).map(|joules| joules / summary.seconds)
                })),
                known(lines),
                text(caution),
            ]);
        }
    }
    table.aligned()
}

/// Content of the file by role and encoding.
pub(crate) fn roles(run: &Run<'_>) -> Table {
    let records = &run.ledger.header.model.by_role;
    let unit = ByteUnit::of(records.iter().map(|record| record.bytes as f64).fold(0.0, f64::max));
    let caption = format!("File by role, {}", unit.name);
    let columns = ["role", "encoding", "tensors", "bytes"];
    let mut table = table(&format!("roles-{}", run.number), &caption, &["counted"], &columns, false);
    for record in records {
        table.rows.push(vec![
            text(&record.role),
            text(record.encoding.as_deref().unwrap_or("–")),
            count(record.tensors),
            unit.cell(Some(record.bytes as f64)),
        ]);
    }
    table.aligned()
}

/// Bytes of a layer's parts, in the order of the chart.
pub(crate) fn layer_parts(layer: &LayerBytes) -> [u64; 3] {
    [layer.attention_bytes, layer.ffn_bytes, layer.other_bytes]
}

/// Content of the file by layer.
pub(crate) fn layers(run: &Run<'_>) -> Table {
    let records = &run.ledger.header.model.by_layer;
    let all = |record: &LayerBytes| layer_parts(record).iter().map(|&bytes| bytes as f64).sum::<f64>();
    let unit = ByteUnit::of(records.iter().map(all).fold(0.0, f64::max));
    let caption = format!("File by layer, {}", unit.name);
    let columns = ["layer", "attention", "feed-forward", "others", "all"];
    let mut table = table(&format!("layers-{}", run.number), &caption, &["counted"], &columns, false);
    for record in records {
        let name = record.layer.map_or_else(|| text("none"), count);
        let parts = layer_parts(record).map(|bytes| unit.cell(Some(bytes as f64)));
        let sum = unit.cell(Some(all(record)));
        table.rows.push([name].into_iter().chain(parts).chain([sum]).collect());
    }
    table.aligned()
}

/// Figures behind the charts over time.
pub(crate) fn timeline(run: &Run<'_>, bins: &Bins) -> Table {
    let meters = &run.ledger.header.meters;
    let mut table = table(
        &format!("timeline-{}", run.number),
        "Over time",
        &["measured"],
        &["from, s", "to, s", "phase", "decode, tokens/s", "°C", "throttled"],
        false,
    );
    for meter in meters {
        table.columns.push(format!(
            "W, {} ({}, {})",
            meter.meter,
            scope_name(meter.scope),
            kind_name(meter.kind)
        ));
    }
    for bin in &bins.bins {
        let mut row = vec![
            number(bin.from, significant(bin.from, 4)),
            number(bin.to, significant(bin.to, 4)),
            text(bin.phase()),
            figure(bin.tokens_per_second()),
            figure(bin.celsius),
            yes_no(bin.throttled),
        ];
        row.extend((0..meters.len()).map(|meter| figure(bin.watts(meter))));
        table.rows.push(row);
    }
    table.aligned()
}
