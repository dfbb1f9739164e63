//! `pith search`

use crate::interrupt;
use crate::machine::detect;
use crate::options::session::{CoreArgs, MemoryArgs};
use crate::output::{self, Table, TableFormat};
use crate::progress::Bar;
use anyhow::Context;
use clap::{ArgGroup, Args, ValueHint};
use pith_boards::profile::{Evidence, Profile};
use pith_converter::input_files;
use pith_format::refuse_inputs;
use pith_search::{
    Budget, Choice, DEFAULT_GENERATIONS, EnergyRule, Outcome, Row, SearchOptions, search as run_search,
};
use serde_json::Value;
use std::iter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `pith search`
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// Hugging Face folder or .gguf file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub model: PathBuf,
    #[command(flatten)]
    pub budget: BudgetArgs,
    /// Text to calibrate and measure with, plain or .jsonl with a field "text"; keep the text that
    /// judges the result out of it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub text: PathBuf,
    /// Text to measure on [default: a part of --text]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub search_text: Option<PathBuf>,
    /// File to write [default: MODEL.search.pith beside the model]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Encodings to choose from
    #[arg(long, value_delimiter = ',', default_value = "q2,q3,q4-nl,q4-a,q5-a,q6-a", value_name = "LIST")]
    pub encodings: Vec<Choice>,
    /// Tokens to measure divergence on [default: 4096, fewer where --hours requires it]
    #[arg(long, value_name = "N")]
    pub eval_tokens: Option<usize>,
    /// Maximum number of tokens to calibrate with [default: all of --text, fewer where --hours
    /// requires it]
    #[arg(long, value_name = "N")]
    pub calibration_tokens: Option<usize>,
    /// Tokens per window
    #[arg(short, long, default_value_t = 256, value_name = "TOKENS")]
    pub context: usize,
    /// Time limit of the whole search; it measures fewer tokens and choices to keep the limit
    #[arg(long, default_value_t = 3.0, value_name = "HOURS")]
    pub hours: f64,
    /// Maximum number of generations of the evolution
    #[arg(long, default_value_t = DEFAULT_GENERATIONS, value_name = "N")]
    pub generations: usize,
    /// Seed of the evolution
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Round files once, without a second rounding with inputs from the first rounded model
    #[arg(long)]
    pub no_refine: bool,
    /// Search over a quantized model: its codes are decoded and rounded again
    #[arg(long)]
    pub requantize: bool,
    /// Folder for measurements; the same command continues from there [default: OUTPUT.search]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub work: Option<PathBuf>,
    /// Write the tables of results, as .json (with each matrix's encoding) or .csv
    #[arg(long, value_name = "FILE", value_parser = table_path, value_hint = ValueHint::FilePath)]
    pub frontier: Option<PathBuf>,
    /// File for the recipe, TOML [default: the output's name with .toml]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub recipe_out: Option<PathBuf>,
    #[command(flatten)]
    pub memory: MemoryArgs,
    #[command(flatten)]
    pub cores: CoreArgs,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// The limit: one of these.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group(ArgGroup::new("limit").required(true).multiple(false).args(["budget", "bytes_per_token",
    "bits_per_weight", "joules_per_token"])))]
pub struct BudgetArgs {
    /// Limit of the file's size, as in 350MB or 1.5GiB
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes)]
    pub budget: Option<u64>,
    /// Limit of weight bytes read per decoded token
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes)]
    pub bytes_per_token: Option<u64>,
    /// Limit of bits per weight, averaged over all matrices
    #[arg(long, value_name = "BITS")]
    pub bits_per_weight: Option<f64>,
    /// Limit of joules per decoded token, by a board's energy model
    #[arg(long, value_name = "J")]
    pub joules_per_token: Option<f64>,
    /// The board, by name or from a file [default: this machine's]
    #[arg(long, value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub profile: Option<String>,
    /// Speed at which the board reads weights, in 10⁹ bytes per second [default: the profile's
    /// largest published figure]
    #[arg(long, value_name = "GB/S")]
    pub gb_per_s: Option<f64>,
}

/// Runs a search and reports its result.
pub fn search(args: SearchArgs) -> anyhow::Result<ExitCode> {
    let output = args.output.clone().unwrap_or_else(|| default_output(&args.model));
    let recipe_path = args.recipe_out.clone().unwrap_or_else(|| output.with_extension("toml"));
    let inputs = inputs(&args);
    for path in iter::once(&recipe_path).chain(&args.frontier) {
        refuse_inputs(path, &inputs)?;
    }
    let options = options(&args, &output)?;
    interrupt::listen_to_the_end()?;
    let bar = Bar::new(args.quiet || args.json);
    let result = run_search(&args.model, &output, &options, &bar);
    bar.finish();
    let outcome = match result {
        Err(error) if error.is_interruption() => {
            eprintln!("{error}");
            return Ok(ExitCode::from(interrupt::exit_code()));
        }
        result => result?,
    };
    let place = || recipe_path.display().to_string();
    output::replace(&recipe_path, outcome.recipe.to_toml().as_bytes()).with_context(place)?;
    if let Some(path) = &args.frontier {
        let text = match is_json(path) {
            true => format!("{:#}\n", outcome.to_json()),
            false => outcome.to_csv(),
        };
        output::replace(path, text.as_bytes()).with_context(|| path.display().to_string())?;
    }
    for note in &outcome.notes {
        eprintln!("note: {note}");
    }
    if args.json {
        output::print(&format!("{:#}\n", outcome.to_json()))?;
    } else if !args.quiet {
        output::print(&to_text(&outcome, &recipe_path, &options.work))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that a search reads.
fn inputs(args: &SearchArgs) -> Vec<PathBuf> {
    // A model that cannot be read is reported by the search.
    let mut inputs = input_files(&args.model).unwrap_or_else(|_| vec![args.model.clone()]);
    inputs.push(args.text.clone());
    inputs.extend(args.search_text.clone());
    inputs
}

fn options(args: &SearchArgs, output: &Path) -> anyhow::Result<SearchOptions> {
    let work = args.work.clone().unwrap_or_else(|| {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        output.with_file_name(format!("{}.search", name.trim_end_matches(".pith")))
    });
    Ok(SearchOptions {
        budget: budget(&args.budget)?,
        choices: args.encodings.clone(),
        text: args.text.clone(),
        search_text: args.search_text.clone(),
        eval_tokens: args.eval_tokens,
        calibration_tokens: args.calibration_tokens,
        context_len: args.context,
        hours: args.hours,
        generations: args.generations,
        seed: args.seed,
        refine: !args.no_refine,
        requantize: args.requantize,
        session: args.cores.session()?,
        memory: args.memory.limit(),
        work,
        force: args.force,
    })
}

fn budget(args: &BudgetArgs) -> anyhow::Result<Budget> {
    let of_energy = args.profile.is_some() || args.gb_per_s.is_some();
    anyhow::ensure!(
        args.joules_per_token.is_some() || !of_energy,
        "--profile and --gb-per-s are for --joules-per-token"
    );
    Ok(match (args.budget, args.bytes_per_token, args.bits_per_weight, args.joules_per_token) {
        (Some(bytes), ..) => Budget::FileBytes(bytes),
        (_, Some(bytes), ..) => Budget::BytesPerToken(bytes),
        (_, _, Some(bits), _) => Budget::BitsPerWeight(bits),
        (.., Some(joules)) => Budget::JoulesPerToken { joules, rule: energy_rule(args)? },
        _ => anyhow::bail!("give --budget, --bytes-per-token, --bits-per-weight or --joules-per-token"),
    })
}

/// Takes the time of a token as the time to read its weights.
fn energy_rule(args: &BudgetArgs) -> anyhow::Result<EnergyRule> {
    let profile: Profile = detect(&Evidence::read(Path::new("/"))?, args.profile.as_deref())?.profile;
    let name = &profile.name;
    let model = profile.energy_model.as_ref().with_context(|| {
        format!(
            "the profile {name} has no model of energy: give --profile one that has, or make one with `pith board \
             calibrate`"
        )
    })?;
    let published = profile.bandwidth.iter().map(|figure| figure.gb_per_s[1]).max_by(f64::total_cmp);
    if let Some(rate) = args.gb_per_s {
        anyhow::ensure!(rate.is_finite() && rate > 0.0, "--gb-per-s is {rate}, expected a number above 0");
    }
    let bytes_per_s = args.gb_per_s.or(published).map(|gb_per_s| 1e9 * gb_per_s);
    let joules_per_byte = model.joules_per_byte_read(bytes_per_s).with_context(|| {
        format!(
            "the profile {name} does not say how fast the board reads memory, which the watts it draws are multiplied \
             by: give --gb-per-s (`pith bench` shows it)"
        )
    })?;
    Ok(EnergyRule {
        joules_per_byte,
        joules_per_operation: model.joules_per_operation.map_or(0.0, |estimate| estimate.value()),
    })
}

/// `models/atlas.search.pith` for `models/atlas` and `models/atlas.gguf`.
fn default_output(model: &Path) -> PathBuf {
    let model =
        if model.file_name().is_none() { model.canonicalize().unwrap_or(model.into()) } else { model.into() };
    let is_file = model.extension().is_some_and(|extension| extension == "gguf");
    let name = if is_file { model.file_stem() } else { model.file_name() };
    model.with_file_name(format!("{}.search.pith", name.unwrap_or_default().to_string_lossy()))
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

fn table_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match is_json(&path) || path.extension().is_some_and(|extension| extension == "csv") {
        true => Ok(path),
        false => Err(format!("\"{text}\" ends in neither .json nor .csv")),
    }
}

fn to_text(outcome: &Outcome, recipe: &Path, work: &Path) -> String {
    let deviation = 100.0 * (outcome.predicted_bytes as f64 / outcome.file_bytes as f64 - 1.0);
    format!(
        "predicted for other limits, by the sum of sensitivities:\n{}\nmeasured on {} tokens (perplexity of the dense model {:.4}):\n{}\n\
         {}: {} bytes, predicted {} ({deviation:+.3} %); {}\nits recipe: {}\n\
         {} measurements, {} of them from an earlier run, in {:.1} s; they are kept in {}\n",
        table(&outcome.frontier),
        outcome.eval_tokens,
        outcome.dense_perplexity,
        table(&outcome.rows),
        outcome.output.display(),
        outcome.file_bytes,
        outcome.predicted_bytes,
        outcome.recipe,
        recipe.display(),
        outcome.measurements,
        outcome.resumed,
        outcome.elapsed.as_secs_f64(),
        work.display(),
    )
}

fn table(rows: &[Row]) -> String {
    let joules = rows.iter().any(|row| row.joules_per_token.is_some());
    let mut columns = vec!["", "file", "bytes/token", "bits/weight"];
    columns.extend(joules.then_some("J/token"));
    columns.extend(["predicted KL", "KL", "KL of the file"]);
    let mut table = Table::new(&columns);
    for row in rows {
        let kl = |value: Option<f64>| Value::from(value.map_or(String::new(), |kl| format!("{kl:.6}")));
        let mut cells = vec![
            Value::from(row.name.clone()),
            output::bytes(row.file_bytes).into(),
            output::bytes(row.bytes_per_token).into(),
            output::rounded(row.bits_per_weight, 4),
        ];
        cells.extend(
            joules.then(|| row.joules_per_token.map_or(Value::Null, |value| output::rounded(value, 6))),
        );
        cells.extend([kl(Some(row.predicted_kl)), kl(row.measured_kl), kl(row.file_kl)]);
        table.push(cells);
    }
    table.render(TableFormat::Table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_lies_beside_the_model() {
        let of = |model: &str| default_output(Path::new(model)).display().to_string();
        assert_eq!([of("a/b.1.gguf"), of("a/b.1")], ["a/b.1.search.pith"; 2]);
    }

    #[test]
    fn energy_is_that_of_the_profile() {
        let args = |profile: &str, gb_per_s| BudgetArgs {
            budget: None,
            bytes_per_token: None,
            bits_per_weight: None,
            joules_per_token: Some(1.0),
            profile: Some(profile.into()),
            gb_per_s,
        };
        let rule = energy_rule(&args("raspberry-pi-5", Some(10.0))).unwrap();
        // No energy per byte, and the watts of a working machine.
        assert!((rule.joules_per_byte - 6.32e-10).abs() < 1e-15 && rule.joules_per_operation == 0.0);
        let message = format!("{:#}", energy_rule(&args("raspberry-pi-5", Some(0.0))).unwrap_err());
        assert!(message.contains("--gb-per-s is 0"), "{message}");
        let message = format!("{:#}", energy_rule(&args("generic", None)).unwrap_err());
        assert!(message.contains("generic has no model of energy"), "{message}");
    }
}
