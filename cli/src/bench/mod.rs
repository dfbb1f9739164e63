//! `pith bench`

mod energy;

use crate::options::sampler::HeadArgs;
use crate::options::session::{PassArgs, PlaceArgs};
use crate::output::{self, Table, TableFormat, rounded};
use crate::placement;
use clap::{Args, ValueHint};
use energy::EnergyArgs;
use pith_bench::{Head, Test, WallTime, Workload, speed};
use pith_boards::{Choice, Watch};
use pith_runtime::{Model, Session, SessionOptions};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A benchmark ignores the memory that other programs take.
const MEMORY_HELP: &str = "Memory limit, as in 600M or 2GiB; weights beyond it are read from disk again for \
                           every pass [default: no limit]";

/// `pith bench`
#[derive(Debug, Args)]
#[command(mut_arg("memory", |arg| arg.help(MEMORY_HELP)))]
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
    /// Runs of each test, after one warm-up run
    #[arg(short, long, default_value_t = 5, value_name = "N")]
    pub repetitions: usize,
    /// Thread counts, separated by commas [default: the big cores]
    #[arg(short, long, value_delimiter = ',', value_name = "N")]
    pub threads: Vec<usize>,
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub pass: PassArgs,
    #[command(flatten)]
    pub head: HeadArgs,
    #[command(flatten)]
    pub energy: EnergyArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = TableFormat::Table)]
    pub output: TableFormat,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
}

const COLUMNS: [&str; 21] = [
    "model",
    "file_bytes",
    "pages",
    "kernels",
    "threads",
    "kv",
    "head",
    "head_bits",
    "logits",
    "test",
    "tokens_per_s",
    "min",
    "max",
    "runs",
    "weight_bytes_per_token",
    "kv_bytes_per_token",
    "bytes_per_token",
    "gb_per_s",
    "hottest_celsius",
    "lowest_ghz",
    "throttled",
];

/// Runs every test of every model with every number of threads.
pub fn bench(args: BenchArgs) -> anyhow::Result<()> {
    anyhow::ensure!(args.repetitions > 0, "--repetitions is 0, expected at least 1");
    let format = if args.json { TableFormat::Json } else { args.output };
    let tests = Test::all(&args.prompt, &args.generate, &args.depth);
    anyhow::ensure!(!tests.is_empty(), "nothing to measure: --prompt and --generate are 0");
    if args.energy.energy {
        return energy::bench_energy(&args, format, &tests);
    }
    // Before the first session, which may restrict this thread to some CPUs.
    let choices = choices(&args)?;
    let mut table = Table::new(&COLUMNS);
    for path in &args.models {
        let model = open(&args, path, &choices[0])?;
        for cores in &choices {
            let mut session = session(&args, &model, &tests, cores)?;
            for &test in &tests {
                eprintln!("{}: {}, {} threads", path.display(), title(test), session.threads());
                table.push(measure(&args, &model, &mut session, test)?);
            }
        }
    }
    output::print(&table.render(format))?;
    Ok(())
}

/// Opens one of the models.
fn open(args: &BenchArgs, path: &Path, cores: &Choice) -> anyhow::Result<Arc<Model>> {
    let tests = Test::all(&args.prompt, &args.generate, &args.depth);
    Ok(Arc::new(args.pass.open(path, &options(args, &tests, cores))?))
}

/// Threads and CPUs for each requested number of threads.
fn choices(args: &BenchArgs) -> anyhow::Result<Vec<Choice>> {
    let threads: Vec<Option<usize>> =
        if args.threads.is_empty() { vec![None] } else { args.threads.iter().copied().map(Some).collect() };
    threads.iter().map(|&threads| args.place.choose(threads)).collect()
}

/// Options with a context for the longest of the tests.
fn options(args: &BenchArgs, tests: &[Test], cores: &Choice) -> SessionOptions {
    SessionOptions {
        context_len: tests.iter().map(Test::context_len).max(),
        beyond_model: true,
        kv_type: args.pass.cache.kv.into(),
        batch: args.pass.batch,
        memory: args.pass.memory.bytes,
        lock: args.pass.mlock,
        two_stage_logits: args.head.two_stage_logits,
        ..args.place.session(cores)
    }
}

/// A session for these tests.
fn session(args: &BenchArgs, model: &Arc<Model>, tests: &[Test], cores: &Choice) -> anyhow::Result<Session> {
    let session = Session::new(Arc::clone(model), options(args, tests, cores))?;
    if let Some(summary) = session.placement().and_then(placement::summary) {
        eprintln!("{summary}");
    }
    Ok(session)
}

fn measure(args: &BenchArgs, model: &Model, session: &mut Session, test: Test) -> anyhow::Result<Vec<Value>> {
    let mut workload = Workload::prepare(title(test), model, session, test)?;
    let mut watch = Watch::begin(Path::new("/"));
    let look = || {
        watch.look();
    };
    let speed = speed(&mut workload, args.repetitions, &mut WallTime::new(), look)?;
    let heat = watch.finish();
    if let Some(warning) = heat.warning() {
        eprintln!("{}: {warning}", title(test));
    }
    let session = workload.session();
    let head = Head::of(model.index());
    let rates = speed.tokens_per_s;
    Ok(vec![
        short_name(model).into(),
        model.index().file_bytes().into(),
        model.pages().name().into(),
        session.kernels().into(),
        session.threads().into(),
        format!("{:?}", args.pass.cache.kv).to_lowercase().into(),
        head.as_ref().map_or(Value::Null, |head| head.encoding.as_str().into()),
        head.as_ref().map_or(Value::Null, |head| rounded(head.bits_per_weight, 2)),
        if session.has_two_stage_logits() { "two-stage" } else { "exact" }.into(),
        title(test).into(),
        rounded(rates.median, 2),
        rounded(rates.min, 2),
        rounded(rates.max, 2),
        speed.runs.into(),
        rounded(speed.weight_bytes_per_token(), 1),
        rounded(speed.kv_bytes_per_token(), 1),
        rounded(speed.bytes_per_token(), 1),
        rounded(speed.bytes_per_s() / 1e9, 3),
        heat.hottest_celsius.map_or(Value::Null, |celsius| rounded(celsius, 1)),
        heat.lowest_hz.map_or(Value::Null, |hz| rounded(hz as f64 / 1e9, 2)),
        heat.throttled.into(),
    ])
}

/// `tg128 @ d2048`: the format of llama-bench.
fn title(test: Test) -> String {
    let depth = if test.depth > 0 { format!(" @ d{}", test.depth) } else { String::new() };
    format!("{}{depth}", Test { depth: 0, ..test })
}

/// The model's name and recipe, for a row of a table.
fn short_name(model: &Model) -> String {
    format!(
        "{} {}",
        model.config().name,
        model.metadata().provenance.recipe.split(',').next().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_named_as_llama_bench_names_them() {
        let names = Test::all(&[512], &[128], &[0, 64]).into_iter().map(title).collect::<Vec<_>>();
        assert_eq!(names, ["pp512", "tg128", "pp512 @ d64", "tg128 @ d64"]);
    }
}
