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
use serde::{Deserialize, Serialize};
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
    /// Measure the rows of these names alone; the others stay as the page's JSON has them
    #[arg(long = "row", value_name = "NAME")]
    rows: Vec<String>,
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
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    tool: String,
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
    let mut rows = Rows::open(&args, &name)?;
    if args.carried {
        ours::measure_carried(&args, &mut rows)?
    } else {
        ours::measure(&args, &mut rows)?
    };
    if let Some(llama) = &args.llama {
        llama::measure(&args, llama, args.ik.as_deref(), &mut rows)?;
    }
    rows.finish()
}

/// The rows of a section, written to the page with each new one: a later failure loses none.
struct Rows<'a> {
    /// The names to measure; empty: all.
    wanted: &'a [String],
    page: &'a Path,
    /// Of the section.
    name: &'a str,
    rows: Vec<Row>,
    measured: Vec<String>,
}

impl<'a> Rows<'a> {
    fn open(args: &'a QualityArgs, name: &'a str) -> anyhow::Result<Self> {
        let mut opened =
            Self { wanted: &args.rows, page: &args.page, name, rows: Vec::new(), measured: Vec::new() };
        if !opened.wanted.is_empty() {
            let path = opened.json();
            let read = || anyhow::Ok(serde_json::from_slice(&std::fs::read(&path)?)?);
            opened.rows = read().with_context(|| path.display().to_string())?;
        }
        Ok(opened)
    }

    fn json(&self) -> PathBuf {
        self.page.with_extension("").join(format!("{}.json", self.name))
    }

    /// Whether a row is to be measured.
    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted == name)
    }

    /// Adds a row after those of its tool, or in place of the one with its name.
    fn add(&mut self, row: Row) -> anyhow::Result<()> {
        self.measured.push(row.name.clone());
        let same = |other: &Row| (&other.tool, &other.name) == (&row.tool, &row.name);
        match self.rows.iter().position(same) {
            Some(at) => self.rows[at] = row,
            None => {
                let last = self.rows.iter().rposition(|other| other.tool == row.tool);
                self.rows.insert(last.map_or(self.rows.len(), |last| last + 1), row);
            }
        }
        document::write_section(self.page, self.name, self.name, &page(&self.rows))?;
        document::write(&self.json(), &serde_json::to_string_pretty(&self.rows)?)
    }

    /// Prints the table. Fails where no row had a wanted name.
    fn finish(self) -> anyhow::Result<()> {
        print!("{}", page(&self.rows));
        let missing = self.wanted.iter().find(|name| !self.measured.contains(name));
        anyhow::ensure!(missing.is_none(), "no row is called {}", missing.map_or("", |name| name));
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tool: &str, name: &str, kl: f64) -> Row {
        Row {
            tool: tool.into(),
            name: name.into(),
            bits: 4.0,
            file_bytes: 1000,
            kl,
            kl_error: None,
            same_top: 0.9,
            perplexity_ratio: 1.1,
            tasks: Vec::new(),
            seconds: 1.0,
        }
    }

    #[test]
    fn rows_measured_again_keep_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("page.md");
        std::fs::write(&page, "<!-- begin model -->\n<!-- end model -->\n").unwrap();
        let open =
            |wanted| Rows { wanted, page: &page, name: "model", rows: Vec::new(), measured: Vec::new() };
        let mut first = open(&[]);
        assert!(first.wants("b"));
        for row in [row("Pith", "a", 0.5), row("Pith", "b", 0.25), row("llama.cpp", "a", 0.75)] {
            first.add(row).unwrap();
        }
        let wanted = ["b".to_string(), "c".to_string()];
        let mut again = open(&wanted);
        again.rows = serde_json::from_slice(&std::fs::read(again.json()).unwrap()).unwrap();
        assert!(again.wants("b") && !again.wants("a"));
        again.add(row("Pith", "b", 0.125)).unwrap();
        let found: Vec<_> = again.rows.iter().map(|row| (&*row.tool, &*row.name, row.kl)).collect();
        assert_eq!(found, [("Pith", "a", 0.5), ("Pith", "b", 0.125), ("llama.cpp", "a", 0.75)]);
        again.add(row("Pith", "d", 0.5)).unwrap();
        assert_eq!(again.rows[2].name, "d");
        assert!(again.finish().unwrap_err().to_string().contains("no row is called c"));
        assert!(std::fs::read_to_string(&page).unwrap().contains("| Pith | b | 4.000 | 1000 | 0.125000 |"));
    }
}
