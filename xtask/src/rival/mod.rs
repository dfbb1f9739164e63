//! `cargo xtask rival`: Pith beside other runtimes of the same weights.
//!
//! ```text
//! shape, checkpoint, gguf, vocabulary   one random checkpoint for all
//! files, head            Pith's and the rivals' files, and the head that each reads
//! tool, dialect, parse   calls of the benchmarks, and their answers
//! rounds                 trial of settings, then alternating rounds, each run with probes and load
//! record                 runs and their evaluation
//! table, plot            presentation
//! ```

mod checkpoint;
mod dialect;
mod files;
mod gguf;
mod head;
mod load;
mod parse;
mod plot;
mod record;
mod rounds;
mod shape;
mod table;
mod tool;
mod vocabulary;

use crate::document;
use anyhow::Context;
use clap::Args;
use files::{Files, Pairing};
use pith_bench::Test;
use pith_kernels::probe;
use rounds::Bench;
use serde::Serialize;
use shape::Shape;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// `cargo xtask rival`
#[derive(Debug, Args)]
pub struct RivalArgs {
    /// A rival's llama-bench; may be repeated. llama-quantize is looked for beside it
    #[arg(long, value_name = "[NAME=]PATH", required = true)]
    llama_bench: Vec<String>,
    /// Further arguments of a tool in place of the known ones; repeated for one tool, the fastest
    /// set is measured
    #[arg(long, value_name = "NAME=ARGUMENTS", allow_hyphen_values = true)]
    args: Vec<String>,
    /// Models
    #[arg(long, value_delimiter = ',', default_value = "135m,0.5b,1.2b")]
    shapes: Vec<String>,
    /// Pith's encodings; the rivals' are known or given as q4=Q4_0,IQ4_XS (then repeat the option):
    /// the first, or several with / between, for decoding, all for prompts. A rivals' type alone, such
    /// as Q4_K_M, is their own file, which Pith carries
    #[arg(long, default_values = ["q4", "q8"], value_name = "NAME[=FORMATS]")]
    encodings: Vec<String>,
    /// Embedding and head in the layers' encoding too, as by llama-quantize's option of this name
    #[arg(long)]
    pure: bool,
    /// Tests to time: ppN or tgN, after a context with @DEPTH
    #[arg(long, value_delimiter = ',', default_value = "pp512,tg128,tg128@2048")]
    tests: Vec<Test>,
    /// Thread counts
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Rounds in which every tool runs once
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Runs of every setting before the fastest is chosen
    #[arg(long, default_value_t = 1)]
    tries: usize,
    /// Cores that other programs may keep busy during a run that counts
    #[arg(long, default_value_t = 0.15, value_name = "CORES")]
    foreign: f64,
    /// How often a disturbed run is repeated before it is given up
    #[arg(long, default_value_t = 2)]
    repeats: usize,
    /// Kernels that Pith is to use, by name
    #[arg(long, value_name = "NAME")]
    kernels: Option<String>,
    /// The pith command [default: built here]
    #[arg(long, value_name = "PATH")]
    pith: Option<PathBuf>,
    /// Where models are kept between calls
    #[arg(long, default_value = "target/rival", value_name = "FOLDER")]
    work_dir: PathBuf,
    /// Remove a shape's files when it is done
    #[arg(long)]
    tidy: bool,
    /// Where results go; the text goes into FOLDER.md
    #[arg(long, default_value = "docs/performance", value_name = "FOLDER")]
    out: PathBuf,
    /// Name of this measurement: its files and its section of the text
    #[arg(long, default_value = "rival")]
    name: String,
    /// Heading of the section, where it is new
    #[arg(long, default_value = "Beside other runtimes", value_name = "TEXT")]
    title: String,
}

/// The conditions of the runs.
#[derive(Debug, Serialize)]
pub struct Conditions {
    pub processor: String,
    pub cores: usize,
    pub rounds: usize,
    pub foreign_limit: f64,
    pub kernels: Option<String>,
    pub pure: bool,
    pub int8_instruction: Option<String>,
}

impl Conditions {
    fn sentence(&self) -> String {
        let kernels =
            self.kernels.as_ref().map_or(String::new(), |name| format!(" Pith was held to `{name}`."));
        let pure = if self.pure { " Embedding and head are in the layers' encoding too." } else { "" };
        let loop_of = self.int8_instruction.as_ref().map_or(String::new(), |name| format!(" ({name})"));
        format!(
            "Measured on {}, {} cores, {} rounds in which the tools take turns.{kernels}{pure} The probe reads memory with as \
             many threads just before each run; the int8 peak is a loop on registers alone{loop_of}, held against the \
             products with the layers' weights. The ratio is Pith's median by the best rival's.",
            self.processor, self.cores, self.rounds
        )
    }
}

/// The full report, for programs.
#[derive(Serialize)]
struct Report<'a> {
    conditions: &'a Conditions,
    cells: &'a [record::Cell],
    runs: &'a [record::Run],
}

/// Prepares files, measures and writes the report.
pub fn rival(args: RivalArgs) -> anyhow::Result<()> {
    let shapes: Vec<&Shape> = args.shapes.iter().map(|name| Shape::named(name)).collect::<Result<_, _>>()?;
    let pairings: Vec<Pairing> =
        args.encodings.iter().map(|text| Pairing::parse(text)).collect::<Result<_, _>>()?;
    anyhow::ensure!(args.rounds > 0, "--rounds is 0, expected at least 1");
    anyhow::ensure!(args.tries > 0, "--tries is 0, expected at least 1");
    anyhow::ensure!(!args.threads.contains(&0), "--threads holds 0, expected at least 1");
    anyhow::ensure!(args.foreign >= 0.0, "--foreign is {}, expected 0 or more", args.foreign);
    let plain = args.name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    anyhow::ensure!(plain && !args.name.is_empty(), "--name is {:?}, expected letters, digits, -", args.name);
    let pith = match &args.pith {
        Some(path) => path.clone(),
        None => build_pith()?,
    };
    let tools = tool::tools(pith, &args.llama_bench, &args.args, args.kernels.as_deref())?;
    let conditions = conditions(&args);
    let mut bench = Bench::new(&tools, args.foreign, args.repeats);
    for shape in shapes {
        let files = Files::prepare(&args.work_dir, shape, &pairings, &tools, args.pure)?;
        let cells = bench.cells(shape, &files, &pairings, &args.tests, &args.threads);
        let chosen = bench.choose(&cells, args.tries)?;
        for round in 1..=args.rounds {
            bench.round(&cells, &chosen, round)?;
            write(&args, &conditions, &bench)?;
        }
        if args.tidy {
            files.remove(&pairings)?;
        }
    }
    print!("{}", write(&args, &conditions, &bench)?);
    Ok(())
}

/// Writes the results so far; returns the text.
fn write(args: &RivalArgs, conditions: &Conditions, bench: &Bench<'_>) -> anyhow::Result<String> {
    let cells = record::cells(bench.runs());
    let file = |ending: &str| args.out.join(format!("{}.{ending}", args.name));
    let folder = args.out.file_name().map(|name| name.to_string_lossy()).context("--out names no folder")?;
    let plot = format!("{folder}/{}.svg", args.name);
    let text = table::render(conditions, &cells, bench.runs(), &plot);
    let report = Report { conditions, cells: &cells, runs: bench.runs() };
    let json = serde_json::to_string_pretty(&report).context("the report is no JSON")?;
    document::write(&file("json"), &(json + "\n"))?;
    document::write(&file("svg"), &plot::render(&cells))?;
    document::write_section(&args.out.with_extension("md"), &args.name, &args.title, &text)?;
    Ok(text)
}

fn conditions(args: &RivalArgs) -> Conditions {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let instruction = probe::int8_peak(1, Duration::from_millis(1)).map(|peak| peak.instruction.to_string());
    Conditions {
        processor: named.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_string(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        rounds: args.rounds,
        foreign_limit: args.foreign,
        kernels: args.kernels.clone(),
        pure: args.pure,
        int8_instruction: instruction,
    }
}

/// Builds the command in the release profile; it lies beside this program.
fn build_pith() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(["build", "--release", "--quiet", "--package", "pith"]).status();
    let status = built.context("cannot start cargo: name the command with --pith")?;
    anyhow::ensure!(status.success(), "cargo build --release --package pith ended with {status}");
    let own = std::env::current_exe().context("cannot find this program")?;
    let target = own.parent().and_then(Path::parent).context("this program lies in no target folder")?;
    let pith = target.join("release").join(format!("pith{}", std::env::consts::EXE_SUFFIX));
    anyhow::ensure!(pith.is_file(), "no {}: name the command with --pith", pith.display());
    Ok(pith)
}
