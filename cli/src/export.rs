//! `pith export`

use crate::options::session::open_model;
use crate::output;
use crate::progress::Bar;
use clap::{Args, ValueEnum, ValueHint};
use pith_converter::{ExportOptions, ExportType, export as run_export};
use serde_json::json;
use std::path::PathBuf;

/// `pith export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// Format to write
    #[arg(long, value_enum, default_value_t = ExportForm::Safetensors)]
    pub to: ExportForm,
    /// Folder to make
    #[arg(short, long, value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
    /// Folder of the original checkpoint: gives names, config.json and tokenizer files
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub like: Option<PathBuf>,
    /// Type of the weights; f32 keeps every decoded value, the others round
    #[arg(long, value_enum, default_value_t = DtypeArg::F16)]
    pub dtype: DtypeArg,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Formats of checkpoints.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ExportForm {
    /// A Hugging Face folder
    Safetensors,
}

/// Types of exported weights.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DtypeArg {
    /// 16-bit floats
    F16,
    /// 16-bit floats with the range of f32
    Bf16,
    /// 32-bit floats
    F32,
}

/// Writes the folder and reports.
pub fn export(args: ExportArgs) -> anyhow::Result<()> {
    let ExportForm::Safetensors = args.to;
    let dtype = match args.dtype {
        DtypeArg::F16 => ExportType::F16,
        DtypeArg::Bf16 => ExportType::Bf16,
        DtypeArg::F32 => ExportType::F32,
    };
    let options = ExportOptions { like: args.like.clone(), dtype, ..ExportOptions::default() };
    let model = open_model(&args.model)?;
    let bar = Bar::new(args.quiet || args.json);
    let result = run_export(model.index(), model.bytes(), &args.output, &options, &bar);
    bar.finish();
    let report = result?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    if args.json {
        let json = json!({
            "output": args.output.display().to_string(),
            "tensors": report.tensor_count,
            "tensor_bytes": report.tensor_bytes,
            "dtype": dtype.name(),
            "files": report.files,
            "warnings": report.warnings,
        });
        output::print(&format!("{json:#}\n"))?;
    } else if !args.quiet {
        output::print(&format!(
            "{}: {} tensors, {} of {}, in {}\n",
            args.output.display(),
            report.tensor_count,
            output::bytes(report.tensor_bytes),
            dtype.name(),
            report.files.join(", "),
        ))?;
    }
    Ok(())
}
