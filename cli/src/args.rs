//! The command line.

use crate::calibrate::CalibrateArgs;
use crate::calibration::CalibrationArgs;
use crate::energy::EnergyArgs;
use crate::eval::EvalArgs;
use crate::export::ExportArgs;
use crate::ledger::LedgerArgs;
use crate::output;
use crate::quantize::QuantizeArgs;
use crate::report::ReportArgs;
use crate::search::SearchArgs;
use crate::speculate::ReplyArgs;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use pith_boards::parse_cpu_list;
use std::path::PathBuf;

/// Compresses language models and runs them on the CPUs people own, and says what every token costs.
#[derive(Debug, Parser)]
#[command(
    name = "pith",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a .pith file from a Hugging Face folder or a GGUF file
    Convert(ConvertArgs),
    /// Run a text through a model and keep what its matrices read, for quantizing it
    Calibrate(CalibrationArgs),
    /// Find which encoding each matrix gets, so that a budget keeps most of what the model knows
    Search(SearchArgs),
    /// Write a .pith file's weights back, decoded, for other tools to read
    Export(ExportArgs),
    /// Show what a .pith file or a checkpoint holds, or what this CPU can run
    Inspect(InspectArgs),
    /// Continue a prompt
    Run(RunArgs),
    /// Talk with a model
    Chat(ChatArgs),
    /// Measure prefill and decode speed
    Bench(BenchArgs),
    /// Show what board this is: cores, memory, sensors, heat
    Board(BoardArgs),
    /// Draw ledgers that `pith run --ledger` wrote as one page
    Report(ReportArgs),
    /// What a compressed model still knows: divergence from its original, answers to tasks
    Eval(EvalArgs),
    /// Perplexity of a text
    Perplexity(PerplexityArgs),
    /// Write the logits of a token sequence to a NumPy file
    Logits(LogitsArgs),
    /// Turn text into token ids
    Tokenize(TokenizeArgs),
    /// Turn token ids into text
    Detokenize(DetokenizeArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What `pith board` does beside showing
#[derive(Debug, Subcommand)]
pub enum BoardCommand {
    /// Measure memory, idle power and what a byte, an operation and a second cost; keep it as this machine's profile
    Calibrate(CalibrateArgs),
}

/// `pith convert`
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Hugging Face folder or .gguf file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub source: PathBuf,
    /// File to write
    #[arg(value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Encoding of the weight matrices: f32, f16, q8, q6, q5, q4, q4-g64, q4-nl, q3, q2, ternary, or keep (the
    /// source's own, of a GGUF or a quantized checkpoint, where Pith has it)
    #[arg(short, long, default_value = "q4")]
    pub encoding: String,
    /// Recipe: balanced, small, tiny, or a TOML file
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["encoding", "embedding", "head"])]
    pub recipe: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub quantize: QuantizeArgs,
    /// Encoding of the token embedding [default: q8, or --encoding where that is wider]
    #[arg(long)]
    pub embedding: Option<String>,
    /// Encoding of the head; two joined by + for one in two parts [default: as the embedding; large ones of 8 bits
    /// q4-g64+q4, of which decoding reads little more than the first part]
    #[arg(long)]
    pub head: Option<String>,
    /// Name of the model in the file [default: the source's]
    #[arg(long)]
    pub name: Option<String>,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// `pith inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// .pith file, Hugging Face folder or .gguf file
    #[arg(required_unless_present = "cpu", value_hint = ValueHint::AnyPath)]
    pub model: Option<PathBuf>,
    /// Show this machine and the kernels it can run
    #[arg(long, conflicts_with_all = ["model", "verify"])]
    pub cpu: bool,
    /// Read every byte and compare all checksums
    #[arg(long)]
    pub verify: bool,
    /// Say which weights would stay in memory, which would be read for every token, and how fast that can be
    #[arg(long, conflicts_with_all = ["cpu", "verify"])]
    pub plan: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub session: PlanArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// For whom a plan is made.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Memory to take, as in 600M or 2GiB [default: what is available]
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes, requires = "plan")]
    pub memory: Option<u64>,
    /// Longest sequence in tokens [default: the model's, at most 4096]
    #[arg(short, long, value_name = "TOKENS", requires = "plan")]
    pub context: Option<usize>,
    /// How keys and values are cached
    #[arg(long, value_enum, default_value_t = KvArg::F16, requires = "plan")]
    pub kv: KvArg,
}

/// How a model is run.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// Threads [default: the big cores there are, as far as control groups leave them]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
    /// Run on these CPUs alone, as in 0-3,6 [default: the big cores]
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub cpus: Option<CpuList>,
    /// Longest sequence in tokens [default: the model's, at most 4096]
    #[arg(short, long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// Allow a --context longer than the model was made for
    #[arg(long)]
    pub beyond_model: bool,
    /// How keys and values are cached
    #[arg(long, value_enum, default_value_t = KvArg::F16)]
    pub kv: KvArg,
    /// Kernels by name (see `pith inspect --cpu`) [default: the fastest]
    #[arg(long, value_name = "NAME")]
    pub kernels: Option<String>,
    /// Prompt tokens worked on together [default: 128]
    #[arg(long, value_name = "TOKENS")]
    pub batch: Option<usize>,
    /// Memory to take, as in 600M or 2GiB; weights beyond it are read for every token [default: what is available]
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes)]
    pub memory: Option<u64>,
    /// Lock the weights in memory
    #[arg(long)]
    pub mlock: bool,
    /// Read the file into memory, in large pages, instead of mapping it: faster, and not shared with other processes
    #[arg(long, visible_alias = "no-mmap", conflicts_with = "memory")]
    pub huge_pages: bool,
}

/// What of a prompt is kept between calls.
#[derive(Debug, Args)]
pub struct PromptCacheArgs {
    /// Keep what was computed of the prompt in this file, and what it has of a prompt is not computed again
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub session: Option<PathBuf>,
    /// Only read the --session file
    #[arg(long, requires = "session")]
    pub session_ro: bool,
    /// Keep what was written too
    #[arg(long, requires = "session", conflicts_with = "session_ro")]
    pub session_all: bool,
}

/// Type of the cache.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KvArg {
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// Bytes, one scale for a head and position
    Q8,
    /// 4 bits, one scale for 32 numbers of a head and position
    Q4,
}

/// How the next token is chosen.
#[derive(Debug, Args)]
pub struct SamplerArgs {
    /// Most likely token every time (the same as --temperature 0)
    #[arg(long)]
    pub greedy: bool,
    /// 0 is greedy
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.8, value_name = "T")]
    pub temperature: f32,
    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, default_value_t = 40, value_name = "K")]
    pub top_k: usize,
    /// Keep the fewest tokens that have this probability together
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.95, value_name = "P")]
    pub top_p: f32,
    /// Drop tokens less likely than P times the most likely one
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.05, value_name = "P")]
    pub min_p: f32,
    /// Divide the logits of recent tokens by this; 1 is off
    #[arg(long, allow_negative_numbers = true, default_value_t = 1.0, value_name = "X")]
    pub repeat_penalty: f32,
    /// How many recent tokens the penalty looks at
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub repeat_last: usize,
    /// Compute every token's logit exactly; where a file's head is in two parts and the sampler looks at the 40 most
    /// likely tokens at most, the others' are rough otherwise
    #[arg(long)]
    pub exact_logits: bool,
    /// Seed of the sampler [default: from the clock]
    #[arg(short, long)]
    pub seed: Option<u64>,
}

/// `pith run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// The prompt [default: standard input]
    #[arg(short, long, conflicts_with = "file")]
    pub prompt: Option<String>,
    /// Take backslashes in --prompt as they are; otherwise \n, \t, \\ and \" stand for their characters
    #[arg(long)]
    pub no_escape: bool,
    /// Read the prompt from a file; - is standard input
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Most tokens to write
    #[arg(short = 'n', long, default_value_t = 256, value_name = "N")]
    pub max_tokens: usize,
    /// Stop at this text (may be given again)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Go on after the tokens that end a text
    #[arg(long)]
    pub ignore_eos: bool,
    /// Do not put the tokenizer's own tokens around the prompt
    #[arg(long)]
    pub no_special: bool,
    /// Print what was written without the prompt before it
    #[arg(long)]
    pub no_echo: bool,
    /// Print no statistics
    #[arg(long)]
    pub no_stats: bool,
    /// Print text and statistics as JSON at the end
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub ledger: LedgerArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cache: PromptCacheArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sampler: SamplerArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reply: ReplyArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub session: SessionArgs,
}

/// `pith chat`
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Jinja template instead of the file's own
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub template: Option<PathBuf>,
    /// Most tokens in a reply
    #[arg(short = 'n', long, default_value_t = 512, value_name = "N")]
    pub max_tokens: usize,
    /// Stop a reply at this text (may be given again)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Print statistics after every reply
    #[arg(long)]
    pub stats: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub ledger: LedgerArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cache: PromptCacheArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sampler: SamplerArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reply: ReplyArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub session: SessionArgs,
}

/// Form of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// Aligned columns
    Table,
    /// A Markdown table
    Md,
    /// Comma-separated values
    Csv,
    /// A JSON array
    Json,
}

/// `pith bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// .pith files
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub models: Vec<PathBuf>,
    /// Prompt tokens of a prefill test; several separated by commas, 0 for none
    #[arg(short = 'p', long, default_value = "512", value_delimiter = ',', value_name = "N")]
    pub prompt: Vec<usize>,
    /// Tokens of a decode test; several separated by commas, 0 for none
    #[arg(short = 'n', long, default_value = "128", value_delimiter = ',', value_name = "N")]
    pub generate: Vec<usize>,
    /// Tokens in the context before a test; several separated by commas
    #[arg(short = 'd', long, default_value = "0", value_delimiter = ',', value_name = "N")]
    pub depth: Vec<usize>,
    /// Runs of each test, after one that does not count
    #[arg(short, long, default_value_t = 5, value_name = "N")]
    pub repetitions: usize,
    /// Thread counts, separated by commas [default: the big cores there are]
    #[arg(short, long, value_delimiter = ',', value_name = "N")]
    pub threads: Vec<usize>,
    /// Run on these CPUs alone, as in 0-3,6 [default: the big cores]
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub cpus: Option<CpuList>,
    /// How keys and values are cached
    #[arg(long, value_enum, default_value_t = KvArg::F16)]
    pub kv: KvArg,
    /// Kernels by name [default: the fastest]
    #[arg(long, value_name = "NAME")]
    pub kernels: Option<String>,
    /// Prompt tokens worked on together [default: 128]
    #[arg(long, value_name = "TOKENS")]
    pub batch: Option<usize>,
    /// Memory to take, as in 600M or 2GiB; weights beyond it are read for every token [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes)]
    pub memory: Option<u64>,
    /// Read the file into memory, in large pages, instead of mapping it: faster, and not shared with other processes
    #[arg(long, visible_alias = "no-mmap", conflicts_with = "memory")]
    pub huge_pages: bool,
    /// Compute every token's logit exactly, where a file's head is in two parts
    #[arg(long)]
    pub exact_logits: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub energy: EnergyArgs,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = TableFormat::Table)]
    pub output: TableFormat,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
}

/// `pith board`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BoardArgs {
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: Option<BoardCommand>,
    /// Take this profile, by name or from a file, and detect none
    #[arg(long, value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub profile: Option<String>,
    /// Look at the machine whose /proc and /sys lie in this folder
    #[arg(long, value_name = "DIR", default_value = "/", hide = true, value_hint = ValueHint::DirPath)]
    pub root: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Numbers of CPUs.
#[derive(Clone, Debug)]
pub struct CpuList(pub Vec<usize>);

pub fn cpus(text: &str) -> Result<CpuList, String> {
    parse_cpu_list(text).map(CpuList)
}

/// `pith perplexity`
#[derive(Debug, Args)]
pub struct PerplexityArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// The text, UTF-8
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Read only the first bytes of it
    #[arg(long, value_name = "N")]
    pub bytes: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub session: SessionArgs,
}

/// `pith logits`
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// Token ids, separated by spaces or commas
    #[arg(long)]
    pub tokens: String,
    /// NumPy file to write: float32, tokens × vocabulary
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Feed the tokens one by one and not as one prompt
    #[arg(long)]
    pub one_by_one: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub session: SessionArgs,
}

/// `pith tokenize`
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// .pith file, Hugging Face folder, tokenizer.json, tokenizer.model or .gguf file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub source: PathBuf,
    /// The text
    #[arg(short, long, required_unless_present = "file", conflicts_with = "file")]
    pub text: Option<String>,
    /// Read the text from a file; - is standard input
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Do not put the tokenizer's own tokens around the text
    #[arg(long)]
    pub no_special: bool,
    /// Print ids, and the bytes each stands for, as JSON
    #[arg(long)]
    pub json: bool,
}

/// `pith detokenize`
#[derive(Debug, Args)]
pub struct DetokenizeArgs {
    /// .pith file, Hugging Face folder, tokenizer.json, tokenizer.model or .gguf file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub source: PathBuf,
    /// Token ids, separated by spaces or commas [default: standard input]
    #[arg(long)]
    pub tokens: Option<String>,
    /// Leave special tokens out of the text
    #[arg(long)]
    pub skip_special: bool,
}
