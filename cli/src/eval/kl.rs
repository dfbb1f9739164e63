//! `pith eval kl`

use super::about_json;
use crate::options::session::{ContextArgs, SessionArgs, open_model};
use crate::output::{self, Table, TableFormat};
use crate::progress::Bar;
use anyhow::{Context, bail, ensure};
use clap::{Args, ValueHint};
use pith_eval::kl::{Divergence, Reference};
use pith_eval::{About, DEFAULT_CONTEXT_LEN, Scored, WindowOptions, Windows, text_hash};
use pith_format::refuse_inputs;
use pith_meter::statistics::Estimate;
use serde_json::{Value, json};
use std::iter;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Evaluations call the window their context.
const CONTEXT_HELP: &str =
    "Tokens per window of the text [default: 512, or the model's context if that is less]";

/// `pith eval kl`
#[derive(Debug, Args)]
#[command(mut_arg("context", |arg| arg.help(CONTEXT_HELP).conflicts_with("reference")))]
pub struct KlArgs {
    /// .pith file of the original; with --reference, only the compressed one
    #[arg(value_name = "DENSE", value_hint = ValueHint::FilePath)]
    pub first: PathBuf,
    /// .pith file of the compressed model; may be left out with --save-reference
    #[arg(value_name = "COMPRESSED", value_hint = ValueHint::FilePath)]
    pub second: Option<PathBuf>,
    /// The text, UTF-8
    #[arg(long, required_unless_present = "reference", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub text: Option<PathBuf>,
    /// Compare with the original's outputs in this file, written by --save-reference, instead of
    /// running it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub reference: Option<PathBuf>,
    /// Save the original's outputs for further comparisons
    #[arg(long, value_name = "FILE", conflicts_with = "reference", value_hint = ValueHint::FilePath)]
    pub save_reference: Option<PathBuf>,
    /// Use only the first N tokens of the text
    #[arg(long, value_name = "N", conflicts_with = "reference")]
    pub tokens: Option<usize>,
    /// Scored tokens of a window
    #[arg(long, value_enum, default_value_t = ScoreArg::SecondHalf, conflicts_with = "reference")]
    pub score: ScoreArg,
    /// Begin windows without the model's beginning-of-text token
    #[arg(long, conflicts_with = "reference")]
    pub no_bos: bool,
    /// Logits kept at each position; all other tokens count as one [default: the whole vocabulary
    /// up to 2048 tokens, otherwise 256]
    #[arg(long, value_name = "N", conflicts_with = "reference")]
    pub keep: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// Scored tokens of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ScoreArg {
    /// The tokens of the second half, as in llama.cpp
    SecondHalf,
    /// All but the first
    All,
}

impl From<ScoreArg> for Scored {
    fn from(score: ScoreArg) -> Self {
        match score {
            ScoreArg::SecondHalf => Scored::SecondHalf,
            ScoreArg::All => Scored::All,
        }
    }
}

/// The options of a session with room for `context` tokens.
fn with_context(args: &SessionArgs, context: Option<usize>) -> SessionArgs {
    SessionArgs { context: ContextArgs { tokens: context }, ..args.clone() }
}

/// Runs the original, then the compressed model, one in memory at a time.
pub fn kl(args: KlArgs) -> anyhow::Result<()> {
    let (dense, compressed) = roles(&args)?;
    let hidden = args.quiet || args.json;
    if let Some(path) = &args.save_reference {
        let inputs = iter::once(&args.first).chain(&args.second).chain(&args.text).chain(&args.reference);
        refuse_inputs(path, &inputs.cloned().collect::<Vec<_>>())?;
        output::refuse_others(path, "a reference", &[b"\x89PKLR"])?;
    }
    let text = args.text.as_deref().map(read_text).transpose()?;
    let started = Instant::now();
    let reference = match &args.reference {
        Some(path) => load(path, dense, text.as_deref(), args.text.as_deref())?,
        None => {
            let dense = dense.context("the original is missing")?;
            let text = text.context("--text is missing")?;
            if let Some(compressed) = compressed {
                check_vocabularies(dense, compressed)?;
            }
            compute(&args, dense, &text, hidden)?
        }
    };
    let reference_seconds = started.elapsed().as_secs_f64();
    if let Some(path) = &args.save_reference {
        let bytes = reference.save(path)?;
        if !hidden {
            eprintln!(
                "{}: reference of {} tokens, {}",
                path.display(),
                reference.token_count(),
                output::bytes(bytes)
            );
        }
    }
    let started = Instant::now();
    let compared = match compressed {
        Some(path) => {
            let run = with_context(&args.session, Some(reference.windows().context_len()));
            let (_, mut session) = run.open(path)?;
            let about = About::of(&session);
            note_differences(reference.about(), &about);
            let bar = Bar::named(hidden, path.display().to_string());
            let divergence = reference.compare(&mut session, &bar)?;
            Some((path, about, divergence))
        }
        None => None,
    };
    let seconds = (reference_seconds, started.elapsed().as_secs_f64());
    let compared = compared.as_ref().map(|(path, about, divergence)| (*path, about, divergence));
    let text = match args.json {
        true => format!("{:#}\n", to_json(&args, dense, &reference, compared, seconds)),
        false => to_text(&reference, compared.map(|(_, about, divergence)| (about, divergence))),
    };
    output::print(&text)?;
    Ok(())
}

/// Identifies the original and the compressed file among the arguments.
fn roles(args: &KlArgs) -> anyhow::Result<(Option<&Path>, Option<&Path>)> {
    Ok(match (args.first.as_path(), args.second.as_deref()) {
        (dense, Some(compressed)) => (Some(dense), Some(compressed)),
        (compressed, None) if args.reference.is_some() => (None, Some(compressed)),
        (dense, None) if args.save_reference.is_some() => (Some(dense), None),
        _ => bail!(
            "one model alone is compared with nothing: give the original and the compressed one, or --reference FILE, or \
             --save-reference FILE"
        ),
    })
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let place = || path.display().to_string();
    String::from_utf8(std::fs::read(path).with_context(place)?).with_context(place)
}

/// Checks early, so that no long run of the original ends in this error.
fn check_vocabularies(dense: &Path, compressed: &Path) -> anyhow::Result<()> {
    let vocab_len = |path| anyhow::Ok(open_model(path)?.config().vocab_len);
    let (expected, found) = (vocab_len(dense)?, vocab_len(compressed)?);
    ensure!(
        expected == found,
        "{} has a vocabulary of {expected} tokens, {} one of {found}: they cannot be compared",
        dense.display(),
        compressed.display()
    );
    Ok(())
}

fn compute(args: &KlArgs, dense: &Path, text: &str, hidden: bool) -> anyhow::Result<Reference> {
    let model_context_len = open_model(dense)?.config().context_len;
    let context_len = args.session.context.tokens.unwrap_or(DEFAULT_CONTEXT_LEN.min(model_context_len));
    let (model, mut session) = with_context(&args.session, Some(context_len)).open(dense)?;
    let options = WindowOptions {
        context_len,
        scored: args.score.into(),
        first_token: !args.no_bos,
        token_limit: args.tokens,
    };
    let windows = Windows::of_text(&model, text, &options)?;
    let bar = Bar::named(hidden, dense.display().to_string());
    Ok(Reference::compute(&mut session, windows, args.keep, &bar)?)
}

/// Reads a reference and compares it with the other arguments.
fn load(
    path: &Path,
    dense: Option<&Path>,
    text: Option<&str>,
    text_path: Option<&Path>,
) -> anyhow::Result<Reference> {
    let reference = Reference::load(path)?;
    if let (Some(dense), Some(about)) = (dense, reference.about()) {
        let found = format!("{:016x}", open_model(dense)?.index().checksum());
        ensure!(
            found == about.checksum,
            "{} is of another original: its file's checksum is {}, that of {} is {found}",
            path.display(),
            about.checksum,
            dense.display()
        );
    }
    if let (Some(text), Some(text_path), Some(expected)) = (text, text_path, reference.windows().text_hash())
    {
        ensure!(
            text_hash(text) == expected,
            "{} is of another text than {}: their checksums are {expected:016x} and {:016x}",
            path.display(),
            text_path.display(),
            text_hash(text)
        );
    }
    Ok(reference)
}

/// Reports differences between the models that would otherwise count as compression.
fn note_differences(reference: Option<&About>, found: &About) {
    let Some(reference) = reference else { return };
    for (what, expected, found) in
        [("kernels", &reference.kernels, &found.kernels), ("cache", &reference.kv_type, &found.kv_type)]
    {
        if expected != found {
            eprintln!(
                "note: the original was run with {what} {expected}, this with {found}; figures hold that too"
            );
        }
    }
}

type Compared<'a> = (&'a Path, &'a About, &'a Divergence);

fn to_json(
    args: &KlArgs,
    dense: Option<&Path>,
    reference: &Reference,
    compared: Option<Compared<'_>>,
    seconds: (f64, f64),
) -> Value {
    let windows = reference.windows();
    json!({
        "text": args.text.as_ref().map(|path| path.display().to_string()),
        "text_hash": windows.text_hash().map(|hash| format!("{hash:016x}")),
        "context_len": windows.context_len(),
        "window_count": windows.count(),
        "scored": windows.scored(),
        "token_count": reference.token_count(),
        "kept_len": reference.kept_len(),
        "exact": reference.is_exact(),
        "dense": reference.about().map(|about| about_json(dense, about)),
        "dense_perplexity": reference.perplexity(),
        "dense_seconds": args.reference.is_none().then_some(seconds.0),
        "compressed": compared.map(|(path, about, _)| about_json(Some(path), about)),
        "compressed_seconds": compared.map(|_| seconds.1),
        "divergence": compared.map(|(_, _, divergence)| divergence),
    })
}

fn to_text(reference: &Reference, compared: Option<(&About, &Divergence)>) -> String {
    let mut table = Table::new(&["model", "file", "bits/weight", "perplexity"]);
    let row = |name: &str, about: Option<&About>, perplexity: Estimate| {
        let of = |text: fn(&About) -> String| Value::from(about.map_or("unknown".into(), text));
        vec![
            Value::from(name),
            of(|about| output::bytes(about.size.file_bytes)),
            of(|about| format!("{:.3}", about.size.bits_per_weight)),
            with_error(perplexity, 4).into(),
        ]
    };
    table.push(row("dense", reference.about(), reference.perplexity()));
    if let Some((about, divergence)) = compared {
        table.push(row("compressed", Some(about), divergence.perplexity));
    }
    let windows = reference.windows();
    let mut text = table.render(TableFormat::Table);
    if let Some((_, divergence)) = compared {
        text.push('\n');
        text.push_str(&figures(divergence).render(TableFormat::Table));
    }
    text.push_str(&format!(
        "\n{} tokens scored ({}) in {} windows of {}; ",
        reference.token_count(),
        windows.scored(),
        windows.count(),
        windows.context_len()
    ));
    text.push_str(&match reference.is_exact() {
        true => "the divergence is exact\n".to_string(),
        false => format!(
            "a lower bound of the divergence: {} of {} tokens kept of each\n",
            reference.kept_len(),
            reference.vocab_len()
        ),
    });
    text
}

fn figures(divergence: &Divergence) -> Table {
    let Divergence { kl, top1, perplexity_ratio, delta_p, delta_p_rms, .. } = divergence;
    let percent = |estimate: &Estimate| {
        let error = estimate.standard_error.map(|error| 100.0 * error);
        with_error(Estimate { value: 100.0 * estimate.value, standard_error: error }, 3) + " %"
    };
    let mean = Estimate { value: kl.mean, standard_error: kl.standard_error };
    let mut table = Table::new(&["figure", "value"]);
    let mut push = |name: &str, value: String| table.push(vec![name.into(), value.into()]);
    push("KL mean", with_error(mean, 6));
    for (name, value) in [
        ("KL median", kl.median),
        ("KL 90 %", kl.percentile_90),
        ("KL 95 %", kl.percentile_95),
        ("KL 99 %", kl.percentile_99),
        ("KL 99.9 %", kl.percentile_99_9),
        ("KL max", kl.max),
    ] {
        push(name, format!("{value:.6}"));
    }
    let share = format!("{:.3} % ({:.3} to {:.3})", 100.0 * top1.share, 100.0 * top1.low, 100.0 * top1.high);
    push("same top-1", share);
    push("perplexity ratio", with_error(*perplexity_ratio, 5));
    push("Δp mean", percent(delta_p));
    push("Δp RMS", percent(delta_p_rms));
    table
}

fn with_error(estimate: Estimate, decimals: usize) -> String {
    match estimate.standard_error {
        Some(error) => format!("{:.decimals$} ± {error:.decimals$}", estimate.value),
        None => format!("{:.decimals$}", estimate.value),
    }
}
