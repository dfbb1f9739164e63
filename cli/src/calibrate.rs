//! `pith calibrate`

use crate::checkpoint::is_checkpoint;
use crate::options::session::{CoreArgs, MemoryArgs};
use crate::progress::Bar;
use crate::{interrupt, output};
use anyhow::Context;
use clap::{Args, ValueHint};
use pith_converter::statistics::{
    CalibrationText, Statistics, StatisticsOptions, StatisticsReport, TextOptions,
};
use pith_converter::{ConvertOptions, Recipe, convert, input_files};
use pith_format::{Encoding, ReplaceOptions};
use pith_runtime::Model;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Only hidden states can go to disk; weights stay in memory.
const MEMORY_HELP: &str = "Memory limit, as in 600M or 2GiB; hidden states beyond it go to a temporary file \
                           [default: available memory]";

/// `pith calibrate`
#[derive(Debug, Args)]
#[command(mut_arg("memory", |arg| arg.help(MEMORY_HELP)))]
pub struct CalibrateArgs {
    /// .pith file of f16 or f32 weights, Hugging Face folder or .gguf file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub model: PathBuf,
    /// Text to run, plain or .jsonl with a field "text" [default: text that the model generates]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub text: Option<PathBuf>,
    /// Maximum number of tokens [default: all of --text, 4096 to 16384 of generated text]
    #[arg(long, value_name = "N")]
    pub tokens: Option<usize>,
    /// Tokens per window of the text [default: 512, or the model's context if that is less]
    #[arg(short, long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// Also collect Hessians, which GPTQ needs: the mean product of every two input columns
    #[arg(long)]
    pub hessians: bool,
    /// File to write [default: MODEL.calibration.safetensors beside the model]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Accept a file that is quantized already
    #[arg(long)]
    pub any_encoding: bool,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub cores: CoreArgs,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Calibrates and reports.
pub fn calibrate(args: CalibrateArgs) -> anyhow::Result<()> {
    let output = args.output.clone().unwrap_or_else(|| default_output(&args.model));
    let mut inputs = match is_checkpoint(&args.model) {
        true => input_files(&args.model)?,
        false => vec![args.model.clone()],
    };
    inputs.extend(args.text.clone());
    ReplaceOptions { force: args.force, inputs: &inputs }.check(&output)?;
    let run = args.cores.session()?;
    let bar = Bar::new(args.quiet || args.json);
    let (_folder, model) = open(&args.model, &output, &bar)?;
    // Not earlier: Ctrl-C may end a conversion at once.
    interrupt::listen_to_the_end()?;
    let wanted = TextOptions { tokens: args.tokens, window: args.context };
    let text = match &args.text {
        Some(path) => CalibrationText::read(path, &model, wanted)?,
        None => CalibrationText::generate(&model, wanted, run.clone(), &bar)?,
    };
    let options = StatisticsOptions {
        hessians: args.hessians,
        any_encoding: args.any_encoding,
        force: args.force,
        memory: args.memory.limit(),
        session: run,
    };
    let result = Statistics::collect(&model, &text, &options, &output, &bar);
    bar.finish();
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

/// `models/atlas.calibration.safetensors` for `models/atlas`, `models/atlas.pith` and
/// `models/atlas.gguf`.
fn default_output(model: &Path) -> PathBuf {
    // A folder given as `.` also has a name.
    let model =
        if model.file_name().is_none() { model.canonicalize().unwrap_or(model.into()) } else { model.into() };
    let is_file = model.extension().is_some_and(|extension| extension == "pith" || extension == "gguf");
    let name = if is_file { model.file_stem() } else { model.file_name() };
    let name = name.unwrap_or_default().to_string_lossy();
    model.with_file_name(format!("{name}.calibration.safetensors"))
}

/// Opens the model. A checkpoint is converted to a temporary f16 file. Returns that file's folder
/// on systems where an open file must keep its name.
fn open(path: &Path, output: &Path, bar: &Bar) -> anyhow::Result<(Option<TempDir>, Arc<Model>)> {
    if !is_checkpoint(path) {
        return Ok((None, Arc::new(Model::open(path)?)));
    }
    bar.spin("converting");
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
    if cfg!(not(unix)) {
        return Ok((Some(folder), Arc::new(model)));
    }
    // The open file remains readable until the program ends, however it ends.
    folder.close().with_context(|| format!("removing the temporary folder in {}", beside.display()))?;
    Ok((None, Arc::new(model)))
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
