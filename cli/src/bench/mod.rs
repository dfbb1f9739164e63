//! `pith bench`

mod energy;

use crate::options::sampler::HeadArgs;
use crate::options::session::{PassArgs, PlaceArgs, open_or_load};
use crate::output::{self, Table, TableFormat, rounded};
use crate::placement;
use clap::{Args, ValueHint};
use energy::EnergyArgs;
use pith_boards::{Choice, Watch};
use pith_runtime::{Model, RuntimeError, Session, SessionOptions, Traffic};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// A measurement takes no notice of what else is in memory.
const MEMORY_HELP: &str = "Most memory to use, as in 600M or 2GiB; weights beyond it are read from the disk again for \
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
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = TableFormat::Table)]
    pub output: TableFormat,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
}

const COLUMNS: [&str; 17] = [
    "model",
    "file_bytes",
    "kernels",
    "threads",
    "kv",
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

/// One thing to time.
#[derive(Clone, Copy)]
struct Test {
    /// Tokens already in the context.
    pub depth: usize,
    /// Tokens fed.
    pub tokens: usize,
    /// In one prompt, or one by one.
    pub prefill: bool,
}

impl Test {
    /// Short name, as other programs have it.
    pub fn name(&self) -> String {
        let kind = if self.prefill { "pp" } else { "tg" };
        let depth = if self.depth > 0 { format!(" @ d{}", self.depth) } else { String::new() };
        format!("{kind}{}{depth}", self.tokens)
    }

    /// Fills the context of a session up to the test's depth; returns the tokens to feed.
    pub fn prepare(&self, model: &Model, session: &mut Session) -> Result<Vec<u32>, RuntimeError> {
        // Any tokens will do: the work does not depend on them.
        let vocab_len = model.config().vocab_len as u64;
        let mut tokens: Vec<u32> =
            (0..self.depth + self.tokens).map(|index| (index as u64 * 7919 % vocab_len) as u32).collect();
        let fed = tokens.split_off(self.depth);
        session.reset();
        if !tokens.is_empty() {
            session.prefill(&tokens)?;
        }
        Ok(fed)
    }

    /// Feeds the tokens once, from the test's depth on; returns the bytes counted.
    pub fn run(&self, session: &mut Session, fed: &[u32]) -> Result<Traffic, RuntimeError> {
        session.truncate(self.depth);
        let mut traffic = Traffic::default();
        if self.prefill {
            session.prefill(fed)?;
            traffic += session.last_traffic();
        } else {
            for &token in fed {
                session.step(token)?;
                traffic += session.last_traffic();
            }
        }
        Ok(traffic)
    }
}

/// Runs every test of every model with every number of threads.
pub fn bench(args: BenchArgs) -> anyhow::Result<()> {
    anyhow::ensure!(args.repetitions > 0, "--repetitions is 0, expected at least 1");
    let format = if args.json { TableFormat::Json } else { args.output };
    let tests = tests(&args);
    anyhow::ensure!(!tests.is_empty(), "nothing to measure: --prompt and --generate are 0");
    if args.energy.energy {
        return energy::bench_energy(&args, format, &tests);
    }
    // Before the first session, which may keep this thread on some CPUs.
    let choices = choices(&args)?;
    let mut table = Table::new(&COLUMNS);
    for path in &args.models {
        let model = open(&args, path)?;
        for cores in &choices {
            let mut session = session(&args, &model, &tests, cores)?;
            for test in &tests {
                eprintln!("{}: {}, {} threads", path.display(), test.name(), session.threads());
                table.push(measure(&args, &model, &mut session, test)?);
            }
        }
    }
    output::print(&table.render(format))?;
    Ok(())
}

/// Opens one of the models.
fn open(args: &BenchArgs, path: &Path) -> anyhow::Result<Arc<Model>> {
    Ok(Arc::new(open_or_load(path, args.pass.huge_pages)?))
}

/// Threads and CPUs for each number of threads asked for.
fn choices(args: &BenchArgs) -> anyhow::Result<Vec<Choice>> {
    let threads: Vec<Option<usize>> =
        if args.threads.is_empty() { vec![None] } else { args.threads.iter().copied().map(Some).collect() };
    threads.iter().map(|&threads| args.place.choose(threads)).collect()
}

/// A session with room for the longest of the tests.
fn session(args: &BenchArgs, model: &Arc<Model>, tests: &[Test], cores: &Choice) -> anyhow::Result<Session> {
    let options = SessionOptions {
        context_len: tests.iter().map(|test| test.depth + test.tokens).max(),
        beyond_model: true,
        kv_type: args.pass.cache.kv.into(),
        batch: args.pass.batch,
        memory: args.pass.memory.bytes,
        lock: args.pass.mlock,
        two_stage_logits: args.head.two_stage_logits,
        ..args.place.session(cores)
    };
    let session = Session::new(Arc::clone(model), options)?;
    if let Some(summary) = session.placement().and_then(placement::summary) {
        eprintln!("{summary}");
    }
    Ok(session)
}

fn tests(args: &BenchArgs) -> Vec<Test> {
    let counts = [(true, &args.prompt), (false, &args.generate)];
    let each_depth = args
        .depth
        .iter()
        .flat_map(|&depth| counts.iter().map(move |&(prefill, counts)| (depth, prefill, counts)));
    each_depth
        .flat_map(|(depth, prefill, counts)| {
            counts.iter().map(move |&tokens| Test { depth, tokens, prefill })
        })
        .filter(|test| test.tokens > 0)
        .collect()
}

fn measure(
    args: &BenchArgs,
    model: &Model,
    session: &mut Session,
    test: &Test,
) -> anyhow::Result<Vec<Value>> {
    let fed = test.prepare(model, session)?;
    let mut rates = Vec::with_capacity(args.repetitions);
    let mut traffic = Traffic::default();
    let mut watch = Watch::begin(Path::new("/"));
    for run in 0..=args.repetitions {
        let started = Instant::now();
        traffic = test.run(session, &fed)?;
        let seconds = started.elapsed().as_secs_f64();
        // Between runs, so that no file is read in a timed stretch.
        watch.look();
        if run > 0 {
            rates.push(test.tokens as f64 / seconds);
        }
    }
    let heat = watch.finish();
    if let Some(warning) = heat.warning() {
        eprintln!("{}: {warning}", test.name());
    }
    rates.sort_by(f64::total_cmp);
    let median = median(&rates);
    let each = |bytes: u64| bytes as f64 / test.tokens as f64;
    let kv = each(traffic.kv_read_bytes + traffic.kv_write_bytes);
    let moved = each(traffic.weight_bytes + traffic.embedding_bytes) + kv;
    Ok(vec![
        short_name(model).into(),
        model.index().file_bytes().into(),
        session.kernels().into(),
        session.threads().into(),
        format!("{:?}", args.pass.cache.kv).to_lowercase().into(),
        test.name().into(),
        rounded(median, 2),
        rounded(rates[0], 2),
        rounded(rates[rates.len() - 1], 2),
        args.repetitions.into(),
        rounded(each(traffic.weight_bytes), 1),
        rounded(kv, 1),
        rounded(moved, 1),
        rounded(moved * median / 1e9, 3),
        heat.hottest_celsius.map_or(Value::Null, |celsius| rounded(celsius, 1)),
        heat.lowest_hz.map_or(Value::Null, |hz| rounded(hz as f64 / 1e9, 2)),
        heat.throttled.into(),
    ])
}

/// The model's name and recipe, for a row of a table.
fn short_name(model: &Model) -> String {
    format!(
        "{} {}",
        model.config().name,
        model.metadata().provenance.recipe.split(',').next().unwrap_or_default()
    )
}

/// Of sorted values.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }
}
