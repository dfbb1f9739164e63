//! `pith calibrate`

use crate::args::CpuList;
use crate::{interrupt, output, session};
use anyhow::Context;
use clap::{Args, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};
use pith_converter::statistics::{
    CalibrationProgress, CalibrationText, Statistics, StatisticsOptions, StatisticsReport, TextOptions,
};
use pith_converter::{ConvertOptions, Recipe, convert};
use pith_format::{Encoding, ReplaceOptions};
use pith_runtime::{Model, SessionOptions};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// `pith calibrate`
#[derive(Debug, Args)]
pub struct CalibrationArgs {
    /// .pith file of f16 or f32 weights, Hugging Face folder or .gguf file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub model: PathBuf,
    /// Text to run, plain or .jsonl with a field "text" [default: what the model writes by itself]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub text: Option<PathBuf>,
    /// Most tokens [default: all of --text, 4096 of what the model writes]
    #[arg(long, value_name = "N")]
    pub tokens: Option<usize>,
    /// Tokens of a window, which the text is cut into [default: 512, or the model's context]
    #[arg(short, long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// Also keep what GPTQ needs: the mean product of every two columns
    #[arg(long)]
    pub hessians: bool,
    /// File to write [default: MODEL.calibration.safetensors beside the model]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Memory to take, as in 600M or 2GiB; hidden states beyond it go to a temporary file [default: what is available]
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes)]
    pub memory: Option<u64>,
    /// Take a file that is quantized already
    #[arg(long)]
    pub any_encoding: bool,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    /// Threads [default: the big cores there are, as far as control groups leave them]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
    /// Run on these CPUs alone, as in 0-3,6 [default: the big cores]
    #[arg(long, value_name = "LIST", value_parser = crate::args::cpus)]
    pub cpus: Option<CpuList>,
    /// Kernels by name (see `pith inspect --cpu`) [default: the fastest]
    #[arg(long, value_name = "NAME")]
    pub kernels: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Calibrates and reports.
pub fn calibrate(args: CalibrationArgs) -> anyhow::Result<()> {
    let output = args.output.clone().unwrap_or_else(|| default_output(&args.model));
    let inputs: Vec<PathBuf> =
        [Some(&args.model), args.text.as_ref()].into_iter().flatten().cloned().collect();
    ReplaceOptions { force: args.force, inputs: &inputs }.check(&output)?;
    let cores = session::choose(args.threads, args.cpus.as_ref())?;
    let bar = if args.quiet || args.json { ProgressBar::hidden() } else { ProgressBar::no_length() };
    let (_folder, model) = open(&args.model, &output, &bar)?;
    // Only now: a conversion ends at once.
    interrupt::listen()?;
    let style = "{msg:16} {bar:32} {human_pos}/{human_len} tokens {per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(style).expect("a template of known fields"));
    let run = SessionOptions {
        threads: cores.threads,
        cpus: cores.cpus,
        kernels: args.kernels.clone(),
        ..SessionOptions::default()
    };
    let wanted = TextOptions { tokens: args.tokens, window: args.context };
    let progress = Bar(&bar);
    let text = match &args.text {
        Some(path) => CalibrationText::read(path, &model, wanted)?,
        None => CalibrationText::generate(&model, wanted, run.clone(), &progress)?,
    };
    let options = StatisticsOptions {
        hessians: args.hessians,
        any_encoding: args.any_encoding,
        force: args.force,
        memory: session::memory(args.memory),
        session: run,
    };
    let result = Statistics::collect(&model, &text, &options, &output, &progress);
    bar.finish_and_clear();
    let report = result?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    if args.json {
        output::print(&format!("{:#}\n", to_json(&output, &report)))?;
    } else if !args.quiet {
        output::print(&to_text(&output, &report))?;
    }
    Ok(())
}

/// `models/atlas.calibration.safetensors` of `models/atlas`, `models/atlas.pith` and `models/atlas.gguf`.
fn default_output(model: &Path) -> PathBuf {
    // A folder given as `.` has a name too.
    let model =
        if model.file_name().is_none() { model.canonicalize().unwrap_or(model.into()) } else { model.into() };
    let is_file = model.extension().is_some_and(|extension| extension == "pith" || extension == "gguf");
    let name = if is_file { model.file_stem() } else { model.file_name() };
    let name = name.unwrap_or_default().to_string_lossy();
    model.with_file_name(format!("{name}.calibration.safetensors"))
}

/// The model; of a checkpoint an f16 file that is gone when the program ends, and the folder that it is in where it has to
/// stay there.
fn open(path: &Path, output: &Path, bar: &ProgressBar) -> anyhow::Result<(Option<TempDir>, Arc<Model>)> {
    if !path.is_dir() && path.extension().is_none_or(|extension| extension != "gguf") {
        return Ok((None, Arc::new(Model::open(path)?)));
    }
    bar.set_style(ProgressStyle::with_template("converting {spinner}").expect("a template of known fields"));
    bar.enable_steady_tick(Duration::from_millis(200));
    let beside = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = tempfile::Builder::new().prefix(".pith-calibrate-").tempdir_in(beside);
    let folder = folder.with_context(|| format!("a temporary folder in {}", beside.display()))?;
    let file = folder.path().join("model.pith");
    let encoding = Encoding::F16;
    let recipe = Recipe { embedding: Some(encoding), head: Some(encoding.into()), ..Recipe::new(encoding) };
    let report = convert(path, &file, &ConvertOptions { recipe, ..ConvertOptions::default() }, &())?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    let model = Model::open(&file)?;
    bar.disable_steady_tick();
    if cfg!(not(unix)) {
        return Ok((Some(folder), Arc::new(model)));
    }
    // Open, it can be read until the program ends, however that is.
    folder.close().with_context(|| format!("removing the temporary folder in {}", beside.display()))?;
    Ok((None, Arc::new(model)))
}

struct Bar<'a>(&'a ProgressBar);

impl CalibrationProgress for Bar<'_> {
    fn begin(&self, step: &str, tokens: u64) {
        self.0.set_message(step.to_string());
        self.0.reset();
        self.0.set_length(tokens);
    }

    fn advance(&self, tokens: u64) {
        self.0.inc(tokens);
    }

    fn is_interrupted(&self) -> bool {
        interrupt::pressed()
    }
}

fn to_text(output: &Path, report: &StatisticsReport) -> String {
    let info = &report.info;
    let products = match info.hessians {
        true => format!(", {:.1} s of it products of columns", report.product_time.as_secs_f64()),
        false => String::new(),
    };
    format!(
        "{}: {} of {} tokens in {} sequences through {} layers of {} in {:.1} s{products}{}\n",
        output.display(),
        output::bytes(report.file_bytes),
        info.tokens,
        info.sequences,
        info.layers,
        info.model,
        report.elapsed.as_secs_f64(),
        if report.spilled { "; hidden states were kept in a temporary file" } else { "" },
    )
}

fn to_json(output: &Path, report: &StatisticsReport) -> serde_json::Value {
    let info = &report.info;
    json!({
        "output": output.display().to_string(),
        "model": info.model,
        "source_checksum": info.source_checksum,
        "text": info.text,
        "text_checksum": info.text_checksum,
        "tokens": info.tokens,
        "sequences": info.sequences,
        "context": info.context,
        "hessians": info.hessians,
        "file_bytes": report.file_bytes,
        "memory_bytes": report.memory_bytes,
        "spilled": report.spilled,
        "seconds": report.elapsed.as_secs_f64(),
        "product_seconds": info.hessians.then_some(report.product_time.as_secs_f64()),
        "warnings": report.warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_lies_beside_the_model() {
        let of = |model: &str| default_output(Path::new(model)).display().to_string();
        let expected = "a/b.1.calibration.safetensors";
        assert_eq!([of("a/b.1.pith"), of("a/b.1.gguf"), of("a/b.1")], [expected; 3]);
        assert!(of(".").ends_with("cli.calibration.safetensors"), "{}", of("."));
    }
}
