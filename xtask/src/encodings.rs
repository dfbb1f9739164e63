//! The speed of each encoding: one checkpoint, every matrix in one encoding, decode and prefill in
//! alternating rounds.
//!
//! Where memory is the limit, a token costs its bytes: decode is compared in bytes per second,
//! prefill in tokens per second, each round with the baseline of the same round.

use crate::{document, program};
use anyhow::Context;
use clap::Args;
use pith_meter::statistics::MedianRange;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `cargo xtask encodings`
#[derive(Debug, Args)]
pub struct EncodingsArgs {
    /// The checkpoint, such as the random f16.gguf that `cargo xtask rival` keeps
    #[arg(long)]
    checkpoint: PathBuf,
    /// Encodings to compare
    #[arg(long, value_delimiter = ',', default_value = "q8,q6,q5,q4,q4-nl,q3,q2,ternary")]
    encodings: Vec<String>,
    /// Baseline encoding
    #[arg(long, default_value = "q4-g64")]
    baseline: String,
    /// Rounds in which every file is run once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Prompt tokens
    #[arg(long, default_value_t = 128)]
    prompt: usize,
    /// Decoded tokens
    #[arg(long, default_value_t = 32)]
    generate: usize,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Kernels that Pith is to use, by name
    #[arg(long, value_name = "NAME")]
    kernels: Option<String>,
    /// Name of this measurement: its file and its section of the page
    #[arg(long, default_value = "encodings")]
    name: String,
    /// Take the files of an earlier measurement that are in the folder
    #[arg(long)]
    reuse: bool,
    /// The pith program, built with --release
    #[arg(long, default_value = "target/release/pith")]
    pith: PathBuf,
    /// Folder for files, which stay
    #[arg(long, default_value = "target/encodings")]
    work: PathBuf,
    /// Page to write the table into
    #[arg(long, default_value = "docs/performance.md")]
    page: PathBuf,
}

/// The figures of one encoding.
#[derive(Debug, Serialize)]
struct Row {
    encoding: String,
    file_bytes: u64,
    /// Seconds of rounding to nearest; `None` where the file was there.
    convert_seconds: Option<f64>,
    /// One value per round: prefill in tokens, decode in 10⁹ bytes per second.
    prefill: Vec<f64>,
    decode: Vec<f64>,
}

/// Measures and writes the page's section.
pub fn encodings(args: EncodingsArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.work).with_context(|| args.work.display().to_string())?;
    let names =
        std::iter::once(&args.baseline).chain(args.encodings.iter().filter(|&name| *name != args.baseline));
    let mut rows = names.map(|name| convert(&args, name)).collect::<anyhow::Result<Vec<Row>>>()?;
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        let mut order: Vec<&mut Row> = rows.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        order.into_iter().try_for_each(|row| run(&args, row))?;
    }
    let text = page(&args, &rows);
    document::write_section(&args.page, &args.name, "What each encoding costs", &text)?;
    let json = serde_json::to_string_pretty(&rows)?;
    document::write(&args.page.with_extension("").join(&args.name).with_extension("json"), &json)?;
    print!("{text}");
    Ok(())
}

fn file(args: &EncodingsArgs, encoding: &str) -> PathBuf {
    args.work.join(format!("{encoding}.pith"))
}

fn convert(args: &EncodingsArgs, name: &str) -> anyhow::Result<Row> {
    eprintln!("{name}");
    let path = file(args, name);
    let convert_seconds = match args.reuse && path.exists() {
        true => None,
        false => Some(write(args, name, &path)?),
    };
    let file_bytes = std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
    let encoding = name.to_string();
    Ok(Row { encoding, file_bytes, convert_seconds, prefill: Vec::new(), decode: Vec::new() })
}

/// Writes the file, and returns the seconds that it took.
fn write(args: &EncodingsArgs, encoding: &str, path: &Path) -> anyhow::Result<f64> {
    let mut command = Command::new(&args.pith);
    command.arg("convert").arg(&args.checkpoint).arg(path);
    command.args(["-e", encoding, "--embedding", encoding, "--head", encoding, "--force", "--json"]);
    let said = program::run(command)?.said;
    said.pointer("/seconds").and_then(Value::as_f64).context("seconds")
}

fn run(args: &EncodingsArgs, row: &mut Row) -> anyhow::Result<()> {
    let mut command = Command::new(&args.pith);
    command.arg("bench").arg(file(args, &row.encoding));
    let (prompt, generate, threads) =
        (args.prompt.to_string(), args.generate.to_string(), args.threads.to_string());
    command.args(["-p", &prompt, "-n", &generate, "-t", &threads, "-r", "2", "--json"]);
    if let Some(kernels) = &args.kernels {
        command.args(["--kernels", kernels]);
    }
    let said = program::run(command)?.said;
    let number = |test: String, field: &str| {
        let tests = said.as_array()?;
        tests.iter().find(|line| line["test"] == test.as_str())?[field].as_f64()
    };
    row.prefill.push(number(format!("pp{prompt}"), "tokens_per_s").context("the prefill test")?);
    row.decode.push(number(format!("tg{generate}"), "gb_per_s").context("the decode test")?);
    Ok(())
}

fn page(args: &EncodingsArgs, rows: &[Row]) -> String {
    let kernels = args.kernels.as_ref().map_or(String::new(), |name| format!(", kernels {name}"));
    let mut text = format!(
        "{}, every matrix in one encoding, rounded to nearest{kernels}; {} threads, {} rounds in turns, medians (smallest to largest) of each round's ratio to \
         {}: decode of {} tokens in bytes a second, prefill of {} in tokens a second.\n\n",
        args.checkpoint.file_name().unwrap_or_default().display(),
        args.threads,
        args.rounds,
        args.baseline,
        args.generate,
        args.prompt
    );
    text.push_str("| encoding | bytes | decode, GB/s | of the baseline's | prefill, tokens/s | of the baseline's | conversion, s |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    let baseline = &rows[0];
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {} | {:.0} | {} | {} |",
            row.encoding,
            row.file_bytes,
            median(&row.decode),
            ratios(&row.decode, &baseline.decode),
            median(&row.prefill),
            ratios(&row.prefill, &baseline.prefill),
            row.convert_seconds.map_or("–".into(), |seconds| format!("{seconds:.0}")),
        );
    }
    text
}

/// The median of the rounds' ratios, with the extremes.
fn ratios(found: &[f64], baseline: &[f64]) -> String {
    match MedianRange::of(found.iter().zip(baseline).map(|(found, baseline)| found / baseline)) {
        Some(MedianRange { median, min, max }) => format!("{median:.2} ({min:.2} to {max:.2})"),
        None => "–".into(),
    }
}

fn median(values: &[f64]) -> f64 {
    MedianRange::of(values.iter().copied()).map_or(f64::NAN, |spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_compared_with_their_own_baseline() {
        assert_eq!(ratios(&[2.0, 8.0, 3.0], &[1.0, 8.0, 2.0]), "1.50 (1.00 to 2.00)");
        assert_eq!(ratios(&[], &[]), "–");
    }
}
