//! The loss of knowledge by quantization: Pith's recipes beside the types of llama.cpp and
//! ik_llama.cpp, on one model, calibration text and held-out text.
//!
//! Both tools cut the held-out text into the same windows and score the second half of each, so
//! their mean KL divergences are comparable. A rival's value at a size of file is read off the lower
//! convex hull of its types, linear in bytes and in the logarithm of the divergence.

mod hull;
mod llama;
mod ours;

use crate::document;
use anyhow::Context;
use clap::Args;
use hull::{Point, at};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Common numbers of bits per weight.
const TARGETS: [f64; 3] = [4.25, 3.4, 2.6];

/// `cargo xtask quality`
#[derive(Debug, Args)]
pub struct QualityArgs {
    /// The model: Hugging Face folder, or .gguf file
    #[arg(long)]
    model: PathBuf,
    /// Text to calibrate with
    #[arg(long)]
    calibration: PathBuf,
    /// Text to judge by
    #[arg(long)]
    text: PathBuf,
    /// Items to answer, JSON lines of task, prompt, answer
    #[arg(long)]
    tasks: Option<PathBuf>,
    /// Tokens of a window
    #[arg(long, default_value_t = 256)]
    context: usize,
    /// Folder with llama-imatrix, llama-quantize and llama-perplexity; none: Pith alone
    #[arg(long, requires = "gguf")]
    llama: Option<PathBuf>,
    /// Folder with the same programs of ik_llama.cpp, for the types that it alone has
    #[arg(long, requires = "llama")]
    ik: Option<PathBuf>,
    /// The model is quantized: measure what carrying it and rounding it again lose, without rivals
    #[arg(long, conflicts_with_all = ["llama", "ik", "recipe", "search_hours"])]
    carried: bool,
    /// Judge by the first windows of the text alone
    #[arg(long)]
    windows: Option<usize>,
    /// The model as an F16 .gguf
    #[arg(long)]
    gguf: Option<PathBuf>,
    /// Recipe files to try besides, such as those that `pith search` writes
    #[arg(long)]
    recipe: Vec<PathBuf>,
    /// Time limit of a search at each number of bits; without it, no search
    #[arg(long, value_name = "HOURS")]
    search_hours: Option<f64>,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// The pith program
    #[arg(long, default_value = "target/release/pith")]
    pith: PathBuf,
    /// Folder for files
    #[arg(long, default_value = "target/quality")]
    work: PathBuf,
    /// Page to write the table into
    #[arg(long, default_value = "docs/quality.md")]
    page: PathBuf,
}

/// One way to store the model, and its loss.
#[derive(Clone, Debug, Serialize)]
struct Row {
    tool: &'static str,
    name: String,
    bits: f64,
    file_bytes: u64,
    kl: f64,
    kl_error: Option<f64>,
    same_top: f64,
    /// The file's perplexity by that of the dense model.
    perplexity_ratio: f64,
    /// Share of right answers per task, in order.
    tasks: Vec<(String, f64)>,
    seconds: f64,
}

/// Measures all rows and writes the page's section.
pub fn quality(mut args: QualityArgs) -> anyhow::Result<()> {
    let name = args.model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    args.work = args.work.join(&name);
    std::fs::create_dir_all(&args.work).with_context(|| args.work.display().to_string())?;
    let mut rows = if args.carried { ours::measure_carried(&args)? } else { ours::measure(&args)? };
    write(&args, &name, &rows)?;
    if let Some(llama) = &args.llama {
        llama::measure(&args, llama, args.ik.as_deref(), |row| {
            rows.push(row);
            // A later failure loses none of the rows.
            write(&args, &name, &rows)
        })?;
    }
    print!("{}", page(&rows));
    Ok(())
}

fn write(args: &QualityArgs, name: &str, rows: &[Row]) -> anyhow::Result<()> {
    document::write_section(&args.page, name, name, &page(rows))?;
    let json = serde_json::to_string_pretty(rows)?;
    document::write(&args.page.with_extension("").join(format!("{name}.json")), &json)
}

fn page(rows: &[Row]) -> String {
    let mut text = String::new();
    let tasks: Vec<&str> =
        rows.first().map_or(Vec::new(), |row| row.tasks.iter().map(|(name, _)| &**name).collect());
    let _ = writeln!(
        text,
        "| | stored as | bits/weight | bytes | mean KL | same top % | perplexity × | {} s |",
        heads(&tasks)
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|---|{}---|", "---|".repeat(tasks.len()));
    for row in rows {
        let error = row.kl_error.map_or(String::new(), |error| format!(" ± {error:.6}"));
        let found = |name: &str| row.tasks.iter().find(|(task, _)| task == name);
        let shares = tasks
            .iter()
            .map(|name| found(name).map_or("–".into(), |(_, share)| format!("{:.1}", 100.0 * share)));
        let shares: String = shares.map(|share: String| format!(" {share} |")).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {:.3} | {} | {:.6}{error} | {:.2} | {:.4} |{shares} {:.0} |",
            row.tool,
            row.name,
            row.bits,
            row.file_bytes,
            row.kl,
            100.0 * row.same_top,
            row.perplexity_ratio,
            row.seconds
        );
    }
    text + &beside(rows)
}

/// Every row of Pith beside the hulls of the rivals at its bytes.
fn beside(rows: &[Row]) -> String {
    let rivals: Vec<(&str, Vec<Point>)> = [llama::NAME, llama::IK]
        .into_iter()
        .map(|tool| {
            let rows = rows.iter().filter(|row| row.tool == tool && row.kl > 0.0);
            (tool, rows.map(|row| Point { size: row.file_bytes as f64, kl: row.kl }).collect())
        })
        .filter(|(_, points): &(&str, Vec<Point>)| !points.is_empty())
        .collect();
    if rivals.is_empty() {
        return String::new();
    }
    let heads: String = rivals.iter().map(|(tool, _)| format!(" {tool} there | ratio |")).collect();
    let mut text =
        format!("\n| Pith | MB | mean KL |{heads}\n|---|---|---|{}\n", "---|---|".repeat(rivals.len()));
    for row in rows.iter().filter(|row| row.tool == ours::NAME && row.kl > 0.0) {
        let _ = write!(text, "| {} | {:.2} | {:.6} |", row.name, row.file_bytes as f64 / 1e6, row.kl);
        for (_, points) in &rivals {
            let _ = match at(points, row.file_bytes as f64) {
                Some(kl) => write!(text, " {kl:.6} | {:.2} |", row.kl / kl),
                None => write!(text, " – | – |"),
            };
        }
        text.push('\n');
    }
    text
}

fn heads(tasks: &[&str]) -> String {
    tasks.iter().map(|task| format!("{task} % |")).collect::<Vec<_>>().join(" ")
}

/// A path as an argument.
fn text_of(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Runs a program and returns its output: standard output, then standard error.
fn run(program: &Path, args: &[&str]) -> anyhow::Result<(String, String)> {
    let output = std::process::Command::new(program).args(args).output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "{} {} ended with {}: {}",
        program.display(),
        args.join(" "),
        output.status,
        errors.lines().last().unwrap_or_default()
    );
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), errors))
}
