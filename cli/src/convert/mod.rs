//! `pith convert`

mod judge;
mod with_statistics;

use crate::output::{self, Table, TableFormat};
use crate::progress::Bar;
use anyhow::{Context, ensure};
use clap::{Args, ValueHint};
use judge::Found;
use pith_converter::{
    ConvertOptions, DEFAULT_RECIPES, QuantizedSource, Quantizer, Recipe, Report, convert as run_conversion,
    inspect_source,
};
use pith_format::Encoding;
use serde_json::json;
use std::path::PathBuf;
use with_statistics::QuantizeArgs;

/// `pith convert`
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Hugging Face folder or .gguf file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub source: PathBuf,
    /// File to write
    #[arg(value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Encoding of the weight matrices: f32, f16, q8, q6-a, q5-a, q4-a, q3-a, q6, q5, q4, q4-g64,
    /// q4-nl, q3, q2, ternary, one of ggml's such as q4-k, or keep (that of the source, where Pith has
    /// it; bf16 becomes f16) [default: recipe balanced, or high where that diverges too far; for a
    /// quantized source its own]
    #[arg(short, long)]
    pub encoding: Option<String>,
    /// Round the codes of a quantized source again where that takes fewer bits
    #[arg(long)]
    pub requantize: bool,
    /// Recipe: best, high, balanced, small, tiny, or a TOML file
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["encoding", "embedding", "head"])]
    pub recipe: Option<String>,
    /// Round to the nearest levels, without running the model first: quick, and worse
    #[arg(long, conflicts_with_all = ["quantizer", "refine"])]
    pub fast: bool,
    #[command(flatten)]
    pub quantize: QuantizeArgs,
    /// Encoding of the token embedding [default: the recipe's; with --encoding q8, or that where it is
    /// wider]
    #[arg(long)]
    pub embedding: Option<String>,
    /// Encoding of the head; q4-g64+q4 stores a matrix and its residual, for --two-stage-logits
    /// [default: as the embedding]
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

/// Converts and reports.
pub fn convert(args: ConvertArgs) -> anyhow::Result<()> {
    let recipes = recipes(&args)?;
    let note = match (args.requantize, args.fast) {
        (false, false) => None,
        (requantize, _) => match inspect_source(&args.source)?.is_quantized {
            false if requantize => Some("--requantize does nothing: the source holds floats"),
            true if !requantize => {
                Some("--fast does nothing: the source is quantized, and its codes are carried")
            }
            _ => None,
        },
    };
    let options = ConvertOptions {
        recipe: recipes[0].clone(),
        quantized: quantized(&args),
        name: args.name.clone(),
        force: args.force,
        calibration: args.quantize.calibration.clone(),
        memory: args.quantize.memory.limit(),
        ..ConvertOptions::default()
    };
    let bar = Bar::new(args.quiet || args.json);
    let is_measured = args.requantize || recipes.len() > 1;
    let result = if !is_measured && args.quantize.is_plain(&options.recipe) {
        run_conversion(&args.source, &args.output, &options, &bar)
            .map(|report| (report, None))
            .map_err(Into::into)
    } else {
        with_statistics::write(
            &args.source,
            &args.output,
            &args.quantize,
            options,
            &recipes,
            is_measured,
            &bar,
        )
    };
    bar.finish();
    let (mut report, found) = result?;
    report.warnings.extend(note.map(String::from));
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    if args.json {
        let mut json = to_json(&args, &report);
        if let Some(found) = &found {
            json["divergence"] = found.to_json()?;
        }
        output::print(&format!("{json:#}\n"))?;
    } else if !args.quiet {
        let divergence = found.as_ref().map(Found::to_text).unwrap_or_default();
        output::print(&(to_text(&args, &report) + &divergence))?;
    }
    Ok(())
}

/// The recipes to try, in order.
fn recipes(args: &ConvertArgs) -> anyhow::Result<Vec<Recipe>> {
    let encoding = |name: &str, option: &str| name.parse::<Encoding>().with_context(|| option.to_string());
    let mut recipes = match (&args.recipe, args.encoding.as_deref()) {
        (Some(recipe), _) => vec![Recipe::find(recipe)?],
        // Carried, whatever the recipe.
        (None, None) if is_carried(args)? => vec![Recipe::default()],
        (None, None) => {
            let several = !(args.fast || args.requantize || asks(args));
            let names = if several { DEFAULT_RECIPES } else { &DEFAULT_RECIPES[..1] };
            names.iter().map(|name| Recipe::find(name)).collect::<Result<_, _>>()?
        }
        (None, Some("keep")) => {
            let contradicts = args.embedding.is_some() || args.head.is_some() || args.quantize.asks();
            ensure!(
                !contradicts,
                "--encoding keep takes the source's own encodings; leave out --embedding, --head, quantizers and transforms"
            );
            // Floats of a type that no encoding has become f16.
            vec![Recipe { keep: true, ..Recipe::new(Encoding::F16) }]
        }
        (None, Some(name)) => vec![Recipe::new(
            name.parse::<Encoding>().with_context(|| "--encoding takes an encoding, or keep".to_string())?,
        )],
    };
    for recipe in &mut recipes {
        if let Some(name) = args.embedding.as_deref() {
            recipe.embedding = Some(encoding(name, "--embedding")?);
            // A head is as the embedding unless someone says otherwise.
            recipe.head = None;
        }
        if let Some(head) = args.head.as_deref() {
            recipe.head = Some(head.parse().context("--head")?);
        }
        args.quantize.change(recipe)?;
        if args.fast {
            (recipe.quantizer, recipe.refine) = (Quantizer::Nearest, false);
        }
    }
    Ok(recipes)
}

/// Whether options ask for certain codes.
fn asks(args: &ConvertArgs) -> bool {
    let options = [args.recipe.as_ref(), args.embedding.as_ref(), args.head.as_ref()];
    let encoding = args.encoding.as_deref().is_some_and(|encoding| encoding != "keep");
    options.into_iter().any(|option| option.is_some()) || encoding || args.quantize.asks()
}

/// Whether the source is quantized and keeps its codes.
fn is_carried(args: &ConvertArgs) -> anyhow::Result<bool> {
    Ok(quantized(args) == QuantizedSource::Carry && inspect_source(&args.source)?.is_quantized)
}

/// Whoever asks for certain codes is not given others without a word.
fn quantized(args: &ConvertArgs) -> QuantizedSource {
    match (args.requantize, asks(args)) {
        (true, _) => QuantizedSource::Narrow,
        (false, true) => QuantizedSource::Refuse,
        (false, false) => QuantizedSource::Carry,
    }
}

fn to_text(args: &ConvertArgs, report: &Report) -> String {
    let mut table = Table::new(&["encoding", "tensors", "bytes"]);
    for (encoding, total) in report.by_encoding() {
        let name = encoding.map_or("vectors, tokenizer", Encoding::name);
        table.push(vec![name.into(), total.tensor_count.into(), output::bytes(total.bytes).into()]);
    }
    format!(
        "{}{}: {} ({}), {} from {} of weights, written in {:.1} s\n",
        table.render(TableFormat::Table),
        args.output.display(),
        report.name,
        report.family,
        output::bytes(report.file_bytes),
        output::bytes(report.source_bytes),
        report.elapsed.as_secs_f64(),
    )
}

fn to_json(args: &ConvertArgs, report: &Report) -> serde_json::Value {
    let encodings: Vec<_> = report
        .by_encoding()
        .into_iter()
        .map(|(encoding, total)| {
            json!({"encoding": encoding.map(Encoding::name), "tensors": total.tensor_count, "bytes": total.bytes})
        })
        .collect();
    json!({
        "output": args.output.display().to_string(),
        "name": report.name,
        "family": report.family,
        "source_bytes": report.source_bytes,
        "file_bytes": report.file_bytes,
        "seconds": report.elapsed.as_secs_f64(),
        "encodings": encodings,
        "warnings": report.warnings,
    })
}
