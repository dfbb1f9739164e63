//! `pith eval`

mod kl;
mod tasks;

use crate::args::{CpuList, KvArg, SessionArgs};
use crate::output;
use clap::{Args, Subcommand, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};
use pith_boards::parse_cpu_list;
use pith_eval::{About, Scored};
use pith_format::{Progress, Unit};
use std::path::{Path, PathBuf};

/// `pith eval`
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: EvalCommand,
}

/// What is evaluated.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// How far a compressed model's probabilities are from its original's, on a text
    Kl(KlArgs),
    /// How many questions of a file a model answers right
    Tasks(TasksArgs),
}

/// `pith eval kl`
#[derive(Debug, Args)]
pub struct KlArgs {
    /// .pith file of the original; where it is not run, --reference, the compressed one may stand here alone
    #[arg(value_name = "DENSE", value_hint = ValueHint::FilePath)]
    pub first: PathBuf,
    /// .pith file of the compressed model; none where the original is only kept, --save-reference
    #[arg(value_name = "COMPRESSED", value_hint = ValueHint::FilePath)]
    pub second: Option<PathBuf>,
    /// The text, UTF-8
    #[arg(long, required_unless_present = "reference", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub text: Option<PathBuf>,
    /// Compare with what --save-reference kept of the original, which is not run then
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub reference: Option<PathBuf>,
    /// Keep what is needed of the original for further comparisons
    #[arg(long, value_name = "FILE", conflicts_with = "reference", value_hint = ValueHint::FilePath)]
    pub save_reference: Option<PathBuf>,
    /// Tokens of a window; the text is cut into such [default: 512, or the model's where that is less]
    #[arg(short, long, value_name = "TOKENS", conflicts_with = "reference")]
    pub context: Option<usize>,
    /// Take only the first tokens of the text
    #[arg(long, value_name = "N", conflicts_with = "reference")]
    pub tokens: Option<usize>,
    /// Tokens of a window that are scored
    #[arg(long, value_enum, default_value_t = ScoreArg::SecondHalf, conflicts_with = "reference")]
    pub score: ScoreArg,
    /// Begin windows with the text alone, also where the model has a token that texts begin with
    #[arg(long, conflicts_with = "reference")]
    pub no_bos: bool,
    /// Tokens of the vocabulary whose logits are kept at a position; the others count as one [default: all of
    /// vocabularies up to 2048, otherwise 256]
    #[arg(long, value_name = "N", conflicts_with = "reference")]
    pub keep: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub session: RunArgs,
}

/// `pith eval tasks`
#[derive(Debug, Args)]
pub struct TasksArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// The items: JSON lines with task, prompt, answer
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Ask the items of this task alone (may be given again)
    #[arg(long, value_name = "NAME")]
    pub task: Vec<String>,
    /// Ask no more than the first N items of each task
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Ask this model too, and compare the answers item by item
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub against: Option<PathBuf>,
    /// Longest prompt and answer in tokens [default: the model's, at most 4096]
    #[arg(short, long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// Begin prompts with their text alone, also where the model has a token that texts begin with
    #[arg(long)]
    pub no_bos: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub session: RunArgs,
}

/// How models are run.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Threads [default: the big cores there are]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
    /// Run on these CPUs alone, as in 0-3,6 [default: the big cores]
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub cpus: Option<CpuList>,
    /// How keys and values are cached
    #[arg(long, value_enum, default_value_t = KvArg::F16)]
    pub kv: KvArg,
    /// Kernels by name (see `pith inspect --cpu`) [default: the fastest]
    #[arg(long, value_name = "NAME")]
    pub kernels: Option<String>,
    /// Tokens worked on together [default: 128]
    #[arg(long, value_name = "TOKENS")]
    pub batch: Option<usize>,
    /// Allow a --context longer than the model was made for
    #[arg(long)]
    pub beyond_model: bool,
    /// Memory to take, as in 600M or 2GiB; weights beyond it are read for every window [default: what is available]
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes)]
    pub memory: Option<u64>,
}

/// Which tokens of a window are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ScoreArg {
    /// Those that have half a window before them, as llama.cpp does
    SecondHalf,
    /// All but the first
    All,
}

/// Evaluates.
pub fn eval(args: EvalArgs) -> anyhow::Result<()> {
    match args.command {
        EvalCommand::Kl(args) => kl::kl(args),
        EvalCommand::Tasks(args) => tasks::tasks(args),
    }
}

impl From<ScoreArg> for Scored {
    fn from(score: ScoreArg) -> Self {
        match score {
            ScoreArg::SecondHalf => Scored::SecondHalf,
            ScoreArg::All => Scored::All,
        }
    }
}

impl RunArgs {
    /// The options of a session with room for `context` tokens.
    fn session(&self, context: Option<usize>) -> SessionArgs {
        SessionArgs {
            threads: self.threads,
            cpus: self.cpus.clone(),
            context,
            beyond_model: self.beyond_model,
            kv: self.kv,
            kernels: self.kernels.clone(),
            batch: self.batch,
            memory: self.memory,
            mlock: false,
            huge_pages: false,
        }
    }
}

fn cpus(text: &str) -> Result<CpuList, String> {
    parse_cpu_list(text).map(CpuList)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("\"{text}\" is not a number from 1 on")),
    }
}

/// Shows how far it is, on standard error.
struct Bar(ProgressBar);

impl Bar {
    fn new(hidden: bool, what: String) -> Self {
        let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::no_length() };
        let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {eta} {wide_msg}");
        bar.set_style(style.expect("a template of known fields"));
        bar.set_message(what);
        Self(bar)
    }
}

impl Progress for Bar {
    fn begin(&self, _step: &str, total: u64, _unit: Unit) {
        self.0.set_length(total);
    }

    fn advance(&self, count: u64) {
        self.0.inc(count);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What is said of a model beside its figures.
fn about_json(path: Option<&Path>, about: &About) -> serde_json::Value {
    let mut json = serde_json::to_value(about).expect("names and numbers");
    json["file"] = path.map(|path| path.display().to_string()).into();
    json
}
