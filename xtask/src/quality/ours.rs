//! Pith's recipes.

use super::{QualityArgs, Row, Rows, TARGETS, run, text_of};
use anyhow::Context;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Name in the table.
pub const NAME: &str = "Pith";

/// Encodings of layers, and of embedding and head, for the methods of rounding.
const BODY: (&str, &str) = ("q4-a", "q5-a");

/// The inputs of a conversion.
#[derive(Clone, Copy)]
enum Inputs {
    Nothing,
    /// The shared activation statistics.
    Calibrated,
    /// The calibration text, which runs through intermediate models.
    Text,
}

/// Rounding methods: name, arguments, inputs.
const ROUNDINGS: [(&str, &[&str], Inputs); 5] = [
    ("nearest", &[], Inputs::Nothing),
    ("nearest, weighted", &["--quantizer", "nearest"], Inputs::Calibrated),
    ("hqq", &["--quantizer", "hqq"], Inputs::Nothing),
    ("gptq", &["--quantizer", "gptq"], Inputs::Calibrated),
    ("awq, gptq", &["--quantizer", "gptq", "--transform", "awq"], Inputs::Calibrated),
];

/// Built-in recipes to measure too.
const NAMED: [&str; 5] = ["best", "high", "balanced", "small", "tiny"];

/// Conversions of a quantized model: as it is, and rounded again.
const CARRIED: [(&str, &[&str]); 6] = [
    ("carried", &[]),
    ("carried, --encoding keep", &["-e", "keep"]),
    ("rounded again, --requantize", &["--requantize"]),
    ("rounded again, q4, nearest", &["--requantize", "-e", "q4"]),
    ("rounded again, q4-nl, nearest", &["--requantize", "-e", "q4-nl"]),
    ("rounded again, q3-a, nearest", &["--requantize", "-e", "q3-a"]),
];

/// Converts a quantized model and measures each file beside the decoded model.
pub fn measure_carried(args: &QualityArgs, rows: &mut Rows) -> anyhow::Result<()> {
    let (_, reference) = dense_and_reference(args)?;
    for (name, how) in CARRIED {
        if rows.wants(name) {
            rows.add(one(args, &reference, Path::new(""), name.into(), how, Inputs::Nothing)?)?;
        }
    }
    Ok(())
}

/// Writes the model in f16, and its logits on the text.
fn dense_and_reference(args: &QualityArgs) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (dense, reference) = (args.work.join("dense.pith"), args.work.join("dense.reference"));
    let (model, pith) = (text_of(&args.model)?, &args.pith);
    let dense_path = text_of(&dense)?;
    run(
        pith,
        &["convert", model, dense_path, "-e", "f16", "--embedding", "f16", "--head", "f16", "-q", "-f"],
    )?;
    let context = args.context.to_string();
    let text = text_of(&args.text)?;
    run(
        pith,
        &[
            "eval",
            "kl",
            dense_path,
            "--text",
            text,
            "-c",
            &context,
            "--save-reference",
            text_of(&reference)?,
            "--tokens",
            &args.windows.map_or(usize::MAX, |windows| windows * args.context).to_string(),
            "-q",
        ],
    )?;
    Ok((dense, reference))
}

/// Converts to all recipes and measures each.
pub fn measure(args: &QualityArgs, rows: &mut Rows) -> anyhow::Result<()> {
    let (dense, reference) = dense_and_reference(args)?;
    let (dense_path, pith) = (text_of(&dense)?, &args.pith);
    let context = args.context.to_string();
    let calibration = args.work.join("dense.calibration.safetensors");
    let (words, threads) = (text_of(&args.calibration)?, args.threads.to_string());
    let out = text_of(&calibration)?;
    let calibrate =
        ["calibrate", dense_path, "--text", words, "--context", &context, "--hessians", "-o", out];
    run(pith, &[&calibrate[..], &["-t", &threads, "-f", "-q"]].concat())?;
    let mut add = |name: String, how: &[&str], inputs: Inputs| match rows.wants(&name) {
        true => rows.add(one(args, &reference, &calibration, name, how, inputs)?),
        false => Ok(()),
    };
    add("f16".into(), &["-e", "f16", "--embedding", "f16", "--head", "f16"], Inputs::Nothing)?;
    add("q8".into(), &["-e", "q8"], Inputs::Nothing)?;
    let (body, outer) = BODY;
    for (rounding, how, inputs) in ROUNDINGS {
        let encodings = ["-e", body, "--embedding", outer, "--head", outer];
        add(format!("{body}, head {outer}, {rounding}"), &[&encodings, how].concat(), inputs)?;
    }
    add("without options".into(), &[], Inputs::Nothing)?;
    for name in NAMED {
        add(format!("recipe {name}"), &["--recipe", name], Inputs::Text)?;
    }
    for recipe in &args.recipe {
        let name = recipe.file_stem().unwrap_or_default().to_string_lossy();
        add(format!("recipe {name}"), &["--recipe", text_of(recipe)?], Inputs::Text)?;
    }
    if let Some(hours) = args.search_hours {
        for bits in TARGETS {
            let name = format!("search, {bits} bits");
            if rows.wants(&name) {
                rows.add(searched(args, &reference, name, bits, hours)?)?;
            }
        }
    }
    Ok(())
}

/// The result of a search under a budget of bits.
fn searched(
    args: &QualityArgs,
    reference: &Path,
    name: String,
    bits: f64,
    hours: f64,
) -> anyhow::Result<Row> {
    eprintln!("{name}");
    let (file, work) = (args.work.join("searched.pith"), args.work.join("search"));
    let (bits, hours) = (bits.to_string(), hours.to_string());
    let (context, threads) = (args.context.to_string(), args.threads.to_string());
    let started = Instant::now();
    let search = [
        "search",
        text_of(&args.model)?,
        "--text",
        text_of(&args.calibration)?,
        "--bits-per-weight",
        &bits,
        "-o",
        text_of(&file)?,
        "--work",
        text_of(&work)?,
        "--hours",
        &hours,
        "-c",
        &context,
        "-t",
        &threads,
        "-q",
        "-f",
    ];
    run(&args.pith, &search)?;
    judge(args, reference, name, text_of(&file)?, started.elapsed().as_secs_f64())
}

fn one(
    args: &QualityArgs,
    reference: &Path,
    calibration: &Path,
    name: String,
    how: &[&str],
    inputs: Inputs,
) -> anyhow::Result<Row> {
    eprintln!("{name}");
    let started = Instant::now();
    let file = args.work.join("candidate.pith");
    let (context, threads) = (args.context.to_string(), args.threads.to_string());
    let (model, file) = (text_of(&args.model)?, text_of(&file)?);
    let mut convert = vec!["convert", model, file, "-q", "-f", "--threads", &threads];
    convert.extend(how);
    match inputs {
        Inputs::Nothing => {}
        Inputs::Calibrated => convert.extend(["--calibration", text_of(calibration)?]),
        Inputs::Text => convert.extend(["--text", text_of(&args.calibration)?, "--context", &context]),
    }
    run(&args.pith, &convert)?;
    judge(args, reference, name, file, started.elapsed().as_secs_f64())
}

/// The loss of one file. `seconds`: the time to make it.
fn judge(
    args: &QualityArgs,
    reference: &Path,
    name: String,
    file: &str,
    seconds: f64,
) -> anyhow::Result<Row> {
    let threads = args.threads.to_string();
    let eval = ["eval", "kl", file, "--reference", text_of(reference)?, "--json", "-t", &threads];
    let eval: Value = serde_json::from_str(&run(&args.pith, &eval)?.0).context("pith eval kl --json")?;
    let number =
        |pointer: &str| eval.pointer(pointer).and_then(Value::as_f64).with_context(|| pointer.to_string());
    let tasks = match &args.tasks {
        Some(tasks) => answers(args, file, tasks)?,
        None => Vec::new(),
    };
    Ok(Row {
        tool: NAME.into(),
        name,
        // Per weight of the original: a rotated model stores a tied matrix twice.
        bits: 8.0 * number("/compressed/matrix_bytes")? / number("/dense/weight_count")?,
        file_bytes: number("/compressed/file_bytes")? as u64,
        kl: number("/divergence/kl/mean")?,
        kl_error: number("/divergence/kl/standard_error").ok(),
        same_top: number("/divergence/top1/share")?,
        perplexity_ratio: number("/divergence/perplexity_ratio/value")?,
        tasks,
        seconds,
    })
}

fn answers(args: &QualityArgs, file: &str, tasks: &Path) -> anyhow::Result<Vec<(String, f64)>> {
    let threads = args.threads.to_string();
    let found =
        run(&args.pith, &["eval", "tasks", file, "--file", text_of(tasks)?, "--json", "-t", &threads])?.0;
    let found: Value = serde_json::from_str(&found).context("pith eval tasks --json")?;
    let tasks = found.pointer("/tasks").and_then(Value::as_array);
    let share = |task: &Value| {
        let name = task.pointer("/task")?.as_str()?.to_string();
        Some((name, task.pointer("/right/share")?.as_f64()?))
    };
    tasks.context("tasks")?.iter().map(|task| share(task).context("a task's name and share")).collect()
}
