//! `pith convert`

use crate::args::ConvertArgs;
use crate::output::{self, Table};
use crate::{interrupt, quantize, session};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use pith_converter::statistics::CalibrationProgress;
use pith_converter::{ConvertOptions, Progress, Recipe, Report, convert as run_conversion};
use pith_format::Encoding;
use serde_json::json;

/// Converts and reports.
pub fn convert(args: ConvertArgs) -> anyhow::Result<()> {
    let options = ConvertOptions {
        recipe: recipe(&args)?,
        name: args.name.clone(),
        force: args.force,
        calibration: args.quantize.calibration.clone(),
        memory: session::memory(args.quantize.memory),
        ..ConvertOptions::default()
    };
    let bar = Bar::new(args.quiet || args.json);
    let result = if args.quantize.is_plain(&options.recipe) {
        run_conversion(&args.source, &args.output, &options, &bar)
            .map(|report| (report, None))
            .map_err(Into::into)
    } else {
        quantize::write(&args, options, &bar)
    };
    bar.finish();
    let (report, divergence) = result?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    if args.json {
        let mut json = to_json(&args, &report);
        if let Some(divergence) = &divergence {
            json["divergence"] = serde_json::to_value(divergence)?;
        }
        output::print(&format!("{json:#}\n"))?;
    } else if !args.quiet {
        let divergence = divergence.as_ref().map(quantize::to_text).unwrap_or_default();
        output::print(&(to_text(&args, &report) + &divergence))?;
    }
    Ok(())
}

fn recipe(args: &ConvertArgs) -> anyhow::Result<Recipe> {
    let encoding = |name: &str, option: &str| name.parse::<Encoding>().with_context(|| option.to_string());
    let mut recipe = match (&args.recipe, args.encoding.as_str()) {
        (Some(recipe), _) => Recipe::find(recipe)?,
        (None, "keep") => Recipe { keep: true, ..Recipe::default() },
        (None, name) => Recipe::new(
            name.parse::<Encoding>().with_context(|| "--encoding takes an encoding, or keep".to_string())?,
        ),
    };
    if args.recipe.is_none() {
        recipe.embedding = args.embedding.as_deref().map(|name| encoding(name, "--embedding")).transpose()?;
        recipe.head = args.head.as_deref().map(|head| head.parse().context("--head")).transpose()?;
    }
    args.quantize.change(&mut recipe)?;
    Ok(recipe)
}

/// Shows each step of a conversion, and of what goes before it.
pub struct Bar(ProgressBar);

impl Bar {
    /// Shows nothing where it is `hidden`.
    pub fn new(hidden: bool) -> Self {
        Self(if hidden { ProgressBar::hidden() } else { ProgressBar::no_length() })
    }

    /// Takes it from the screen.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }

    /// What is being done.
    pub fn message(&self, text: &str) {
        self.0.set_message(text.to_string());
    }

    /// Begins anew, with `total` before it.
    pub fn start(&self, template: &str, total: u64) {
        self.0.set_style(ProgressStyle::with_template(template).expect("a template of known fields"));
        self.0.reset();
        self.0.set_length(total);
    }
}

impl Progress for Bar {
    fn begin(&self, total_bytes: u64) {
        self.start("{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}", total_bytes);
    }

    fn tensor(&self, name: &str) {
        self.0.set_message(name.to_string());
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn is_interrupted(&self) -> bool {
        interrupt::pressed()
    }
}

impl CalibrationProgress for Bar {
    fn begin(&self, step: &str, tokens: u64) {
        self.start("{msg:16} {bar:32} {human_pos}/{human_len} tokens {per_sec} {eta}", tokens);
        self.0.set_message(step.to_string());
    }

    fn advance(&self, tokens: u64) {
        self.0.inc(tokens);
    }

    fn is_interrupted(&self) -> bool {
        interrupt::pressed()
    }
}

impl pith_format::Progress for Bar {
    fn begin(&self, step: &str, windows: u64, _unit: pith_format::Unit) {
        self.start("{msg:16} {bar:32} {pos}/{len} windows {eta}", windows);
        self.0.set_message(step.to_string());
    }

    fn advance(&self, count: u64) {
        self.0.inc(count);
    }
}

fn to_text(args: &ConvertArgs, report: &Report) -> String {
    let mut table = Table::new(&["encoding", "tensors", "bytes"]);
    for (encoding, total) in report.by_encoding() {
        let name = encoding.map_or("vectors, tokenizer", Encoding::name);
        table.push(vec![name.into(), total.tensor_count.into(), output::bytes(total.bytes).into()]);
    }
    format!(
        "{}{}: {} ({}), {} from {} of weights in {:.1} s\n",
        table.render(crate::args::TableFormat::Table),
        args.output.display(),
        report.name,
        report.family,
        output::bytes(report.file_bytes),
        output::bytes(report.source_bytes),
        report.elapsed.as_secs_f64(),
    )
}

fn to_json(args: &ConvertArgs, report: &Report) -> serde_json::Value {
    let encodings: Vec<_> = report
        .by_encoding()
        .into_iter()
        .map(|(encoding, total)| {
            json!({"encoding": encoding.map(Encoding::name), "tensors": total.tensor_count, "bytes": total.bytes})
        })
        .collect();
    json!({
        "output": args.output.display().to_string(),
        "name": report.name,
        "family": report.family,
        "source_bytes": report.source_bytes,
        "file_bytes": report.file_bytes,
        "seconds": report.elapsed.as_secs_f64(),
        "encodings": encodings,
        "warnings": report.warnings,
    })
}
