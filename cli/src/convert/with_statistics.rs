//! Conversion with activation statistics: collect them, round with them, compare the result with
//! the dense model.

use super::judge::{Found, Judge};
use crate::interrupt;
use crate::options::session::{CoreArgs, MemoryArgs};
use crate::progress::Bar;
use anyhow::{Context, ensure};
use clap::{Args, ValueEnum, ValueHint};
use pith_converter::statistics::TextOptions;
use pith_converter::{
    CompressOptions, Compression, ConvertOptions, DEFAULT_DIVERGENCE, Quantizer, Recipe, Report, Transform,
    input_files,
};
use pith_format::{Progress, ReplaceOptions, move_to};
use std::path::{Path, PathBuf};

/// Methods of rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QuantizerArg {
    /// Round to the nearest level; with statistics, columns of large inputs weigh more
    Nearest,
    /// GPTQ: round one column at a time, adjust the remaining columns to cancel the error
    Gptq,
    /// HQQ: fit scales to the weights without statistics, with less weight for outliers
    Hqq,
}

/// Change of basis before rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransformArg {
    /// No transform, whatever the recipe says
    None,
    /// AWQ: scale columns of large inputs up, and scale down the layer that produces these inputs
    Awq,
    /// Hadamard rotation: spreads outliers over all inputs; a tied head is then stored separately
    Hadamard,
}

/// Options of quantizing, calibrating and checking the result.
#[derive(Debug, Args)]
pub struct QuantizeArgs {
    /// Method of rounding [default: the recipe's; without one, nearest]
    #[arg(long, value_enum)]
    pub quantizer: Option<QuantizerArg>,
    /// Round twice, the second time with inputs from the first rounded model (gptq)
    #[arg(long)]
    pub refine: bool,
    /// Change of basis before rounding, merged into the weights [default: the recipe's; without
    /// one, none]
    #[arg(long, value_enum)]
    pub transform: Option<TransformArg>,
    /// Activation statistics from `pith calibrate` for this checkpoint [default: collected now if
    /// the quantizer needs them]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub calibration: Option<PathBuf>,
    /// Text to calibrate with, plain or .jsonl with a field "text" [default: text that the model
    /// generates]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub text: Option<PathBuf>,
    /// Maximum number of tokens of --text
    #[arg(long, value_name = "N")]
    pub tokens: Option<usize>,
    /// Tokens per window of --text and --eval-text [default: 512, or the model's context if that is
    /// less]
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// Compare the new file with the dense model on this text [default: where files are compared
    /// anyway, text that the model generates]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub eval_text: Option<PathBuf>,
    /// Write nothing if the mean KL divergence on --eval-text is above this
    #[arg(long, value_name = "NATS", requires = "eval_text")]
    pub max_kl: Option<f64>,
    #[command(flatten)]
    pub memory: MemoryArgs,
    #[command(flatten)]
    pub cores: CoreArgs,
}

impl QuantizeArgs {
    /// Applies these options to the recipe.
    pub fn change(&self, recipe: &mut Recipe) -> anyhow::Result<()> {
        match self.quantizer {
            Some(QuantizerArg::Nearest) => recipe.quantizer = Quantizer::Nearest,
            Some(QuantizerArg::Gptq) => recipe.quantizer = Quantizer::Gptq,
            Some(QuantizerArg::Hqq) => recipe.quantizer = Quantizer::Hqq,
            None => {}
        }
        match self.transform {
            Some(TransformArg::None) => recipe.transform = None,
            Some(TransformArg::Awq) => recipe.transform = Some(Transform::Awq),
            Some(TransformArg::Hadamard) => recipe.transform = Some(Transform::Hadamard),
            None => {}
        }
        recipe.refine |= self.refine;
        ensure!(!recipe.refine || recipe.quantizer == Quantizer::Gptq, "--refine is for --quantizer gptq");
        Ok(())
    }

    /// Whether these options ask for weights that are rounded in a certain way.
    pub fn asks(&self) -> bool {
        self.quantizer.is_some() || self.transform.is_some() || self.refine
    }

    /// Whether a conversion needs no run of the model, neither before nor after it.
    pub fn is_plain(&self, recipe: &Recipe) -> bool {
        let calibrated = self.calibration.is_some() || self.text.is_none() && !recipe.needs_hessians();
        calibrated && !recipe.refine && self.eval_text.is_none()
    }
}

/// Collects statistics where needed, converts and compares: by the first of the recipes whose file
/// diverges by no more than [`DEFAULT_DIVERGENCE`], or else the last. `is_measured`: compares even
/// where no option asks for it. The file gets its name at the end.
pub fn write(
    source: &Path,
    output: &Path,
    args: &QuantizeArgs,
    options: ConvertOptions,
    recipes: &[Recipe],
    is_measured: bool,
    bar: &Bar,
) -> anyhow::Result<(Report, Option<Found>)> {
    let limit = args.max_kl.filter(|limit| !(limit.is_finite() && *limit >= 0.0));
    ensure!(limit.is_none(), "--max-kl is {}, expected a number from 0 on", limit.unwrap_or_default());
    bar.name_phases();
    let mut inputs = input_files(source)?;
    inputs.extend([&options.calibration, &args.text, &args.eval_text].into_iter().flatten().cloned());
    let replacing = ReplaceOptions { force: options.force, inputs: &inputs };
    replacing.check(output)?;
    let beside = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let with = |recipe: &Recipe| ConvertOptions { recipe: recipe.clone(), force: true, ..options.clone() };
    recipes.iter().try_for_each(|recipe| Compression::check(source, &with(recipe)))?;
    let folder = tempfile::Builder::new().prefix(".pith-convert-").tempdir_in(beside);
    let folder = folder.with_context(|| format!("a temporary folder in {}", beside.display()))?;
    interrupt::listen_to_the_end()?;
    let run = args.cores.session()?;
    let given = CompressOptions {
        text: args.text.clone(),
        text_options: TextOptions { tokens: args.tokens, window: args.context },
        session: run.clone(),
        memory: options.memory,
    };
    let mut compression = Compression::new(source, folder.path(), given, bar)?;
    let written = folder.path().join("output.pith");
    let judge = match is_measured || args.eval_text.is_some() {
        true => Some(Judge::new(args.eval_text.as_deref(), args.context, &compression, run, bar)?),
        false => None,
    };
    let mut left = recipes.iter();
    let (report, found) = loop {
        let recipe = left.next().expect("the last recipe ends the loop");
        let options = with(recipe);
        let report = match args.text.is_some() || recipe.needs_hessians() {
            true => compression.write(&options, &written, bar)?,
            false => pith_converter::convert(source, &written, &options, bar)?,
        };
        let found = judge.as_ref().map(|judge| judge.divergence(&written, bar)).transpose()?;
        match (&found, left.as_slice()) {
            (Some(found), [next, ..]) if found.divergence.kl.mean > DEFAULT_DIVERGENCE => {
                bar.say(&format!(
                    "{} would diverge by {:.4}, more than {DEFAULT_DIVERGENCE}: converting by {}",
                    name(recipe),
                    found.divergence.kl.mean,
                    name(next)
                ));
            }
            _ => break (report, found),
        }
    };
    if let (Some(limit), Some(found)) = (args.max_kl, &found) {
        let found = found.divergence.kl.mean;
        ensure!(
            found <= limit,
            "the file's mean KL divergence is {found:.6} nats, above --max-kl {limit}: nothing was written; take wider \
             encodings, or more text to calibrate with"
        );
    }
    move_to(&written, output, replacing)?;
    Ok((report, found))
}

fn name(recipe: &Recipe) -> &str {
    recipe.name.as_deref().unwrap_or("the recipe")
}
