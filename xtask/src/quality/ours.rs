//! Pith's recipes.

use super::{QualityArgs, Row, run, text_of};
use anyhow::Context;
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

/// Name in the table.
pub const NAME: &str = "Pith";

/// Encodings of layers and of embedding and head, near the three numbers of bits that people use.
const BODIES: [(&str, &str); 3] = [("q4-nl", "q5"), ("q3", "q5"), ("q2", "q4-nl")];

/// What is done about rounding: name, arguments, whether the calibration text is read.
const ROUNDINGS: [(&str, &[&str], bool); 5] = [
    ("nearest", &[], false),
    ("nearest, weighted", &["--quantizer", "nearest"], true),
    ("hqq", &["--quantizer", "hqq"], false),
    ("gptq", &["--quantizer", "gptq"], true),
    ("gptq, refined", &["--quantizer", "gptq", "--refine"], true),
];

/// Recipes that come along.
const NAMED: [&str; 3] = ["balanced", "small", "tiny"];

/// Converts and judges everything.
pub fn measure(args: &QualityArgs) -> anyhow::Result<Vec<Row>> {
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
            "-q",
        ],
    )?;
    let mut rows = Vec::new();
    let mut add = |name: String, how: &[&str], calibrated: bool| -> anyhow::Result<()> {
        rows.push(one(args, &reference, name, how, calibrated)?);
        Ok(())
    };
    add("f16".into(), &["-e", "f16", "--embedding", "f16", "--head", "f16"], false)?;
    add("q8".into(), &["-e", "q8"], false)?;
    for (body, outer) in BODIES {
        for (rounding, how, calibrated) in ROUNDINGS {
            let encodings = ["-e", body, "--embedding", outer, "--head", outer];
            add(format!("{body}, head {outer}, {rounding}"), &[&encodings, how].concat(), calibrated)?;
        }
    }
    for name in NAMED {
        add(format!("recipe {name}"), &["--recipe", name], true)?;
    }
    for recipe in &args.recipe {
        let name = recipe.file_stem().unwrap_or_default().to_string_lossy();
        add(format!("recipe {name}"), &["--recipe", text_of(recipe)?], true)?;
    }
    Ok(rows)
}

fn one(
    args: &QualityArgs,
    reference: &Path,
    name: String,
    how: &[&str],
    calibrated: bool,
) -> anyhow::Result<Row> {
    eprintln!("{name}");
    let started = Instant::now();
    let file = args.work.join("candidate.pith");
    let (context, threads) = (args.context.to_string(), args.threads.to_string());
    let (model, file) = (text_of(&args.model)?, text_of(&file)?);
    let mut convert = vec!["convert", model, file, "-q", "-f", "--threads", &threads];
    convert.extend(how);
    if calibrated {
        convert.extend(["--text", text_of(&args.calibration)?, "--context", &context]);
    }
    run(&args.pith, &convert)?;
    let seconds = started.elapsed().as_secs_f64();
    let eval = ["eval", "kl", file, "--reference", text_of(reference)?, "--json", "-t", &threads];
    let eval: Value = serde_json::from_str(&run(&args.pith, &eval)?.0).context("pith eval kl --json")?;
    let number =
        |pointer: &str| eval.pointer(pointer).and_then(Value::as_f64).with_context(|| pointer.to_string());
    let tasks = match &args.tasks {
        Some(tasks) => answers(args, file, tasks)?,
        None => Vec::new(),
    };
    Ok(Row {
        tool: NAME,
        name,
        bits: number("/compressed/bits_per_weight")?,
        file_bytes: number("/compressed/file_bytes")? as u64,
        kl: number("/divergence/kl/mean")?,
        kl_error: number("/divergence/kl/standard_error").ok(),
        same_top: number("/divergence/top1/share")?,
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
