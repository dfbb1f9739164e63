//! `pith convert`

use crate::args::ConvertArgs;
use crate::output::{self, Table};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use pith_converter::{ConvertOptions, Progress, Recipe, Report, convert as run_conversion};
use pith_format::Encoding;
use serde_json::json;

/// Converts and reports.
pub fn convert(args: ConvertArgs) -> anyhow::Result<()> {
    let options = ConvertOptions {
        recipe: recipe(&args)?,
        name: args.name.clone(),
        force: args.force,
        ..ConvertOptions::default()
    };
    let bar = if args.quiet || args.json { ProgressBar::hidden() } else { ProgressBar::no_length() };
    bar.set_style(bar_style());
    let result = run_conversion(&args.source, &args.output, &options, &Bar(&bar));
    bar.finish_and_clear();
    let report = result?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    if args.json {
        output::print(&format!("{:#}\n", to_json(&args, &report)))?;
    } else if !args.quiet {
        output::print(&to_text(&args, &report))?;
    }
    Ok(())
}

fn recipe(args: &ConvertArgs) -> anyhow::Result<Recipe> {
    let encoding = |name: &str, option: &str| name.parse::<Encoding>().with_context(|| option.to_string());
    let mut recipe = match args.encoding.as_str() {
        "keep" => Recipe { keep: true, ..Recipe::default() },
        name => Recipe::new(
            name.parse::<Encoding>().with_context(|| "--encoding takes an encoding, or keep".to_string())?,
        ),
    };
    recipe.embedding = args.embedding.as_deref().map(|name| encoding(name, "--embedding")).transpose()?;
    recipe.head = args.head.as_deref().map(|head| head.parse().context("--head")).transpose()?;
    Ok(recipe)
}

/// How the progress over bytes of tensors looks.
pub fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}")
        .expect("a template of known fields")
}

/// Shows progress on the terminal.
pub struct Bar<'a>(pub &'a ProgressBar);

impl Progress for Bar<'_> {
    fn begin(&self, total_bytes: u64) {
        self.0.set_length(total_bytes);
    }

    fn tensor(&self, name: &str) {
        self.0.set_message(name.to_string());
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
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
