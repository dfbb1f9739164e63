//! `pith eval tasks`

use super::about_json;
use crate::options::session::{SessionArgs, open_model};
use crate::output::{self, Table, TableFormat, rounded};
use crate::progress::Bar;
use clap::{Args, ValueHint};
use pith_eval::tasks::{Item, TaskReport, TaskResult, questions, read_items, score, select_items};
use pith_eval::{About, first_token};
use pith_meter::statistics::Share;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// `pith eval tasks`
#[derive(Debug, Args)]
#[command(mut_arg("context", |arg| arg.help("Longest prompt with answer in tokens [default: the model's, at most 4096]")))]
pub struct TasksArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// The items: JSON lines with task, prompt, answer
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Ask only the items of this task (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub task: Vec<String>,
    /// Ask only the first N items of each task
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Ask this model too, and compare the answers item by item
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub against: Option<PathBuf>,
    /// Begin prompts without the model's beginning-of-text token
    #[arg(long)]
    pub no_bos: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// Asks one model, then the other.
pub fn tasks(args: TasksArgs) -> anyhow::Result<()> {
    let items = select_items(&args.file, read_items(&args.file)?, &args.task, args.limit)?;
    if let Some(other) = &args.against {
        // Checks early, so that a wrong name is not found after the first model's run.
        open_model(other)?;
    }
    let started = Instant::now();
    let (about, right) = ask(&args, &args.model, &items)?;
    let other = args.against.as_deref().map(|path| ask(&args, path, &items)).transpose()?;
    let seconds = started.elapsed().as_secs_f64();
    let report = TaskReport::of(&items, &right, other.as_ref().map(|(_, right)| &right[..]));
    let text = if args.json {
        let json = json!({
            "file": args.file.display().to_string(),
            "model": about_json(Some(&args.model), &about),
            "against": other.as_ref().map(|(about, _)| about_json(args.against.as_deref(), about)),
            "tasks": report.tasks,
            "all": report.all,
            "seconds": seconds,
        });
        format!("{json:#}\n")
    } else {
        to_text(&report)
    };
    output::print(&text)?;
    Ok(())
}

fn ask(args: &TasksArgs, path: &Path, items: &[Item]) -> anyhow::Result<(About, Vec<bool>)> {
    let (model, mut session) = args.session.open(path)?;
    let first = if args.no_bos { None } else { first_token(&model) };
    let questions = questions(&args.file, items, model.tokenizer()?, first, session.context_len())?;
    let bar = Bar::named(args.quiet || args.json, path.display().to_string());
    let right = score(&questions, &mut session, &bar)?;
    Ok((About::of(&session), right))
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("\"{text}\" is not a number from 1 on")),
    }
}

fn to_text(report: &TaskReport) -> String {
    let with_other = report.all.against.is_some();
    let mut columns = vec!["task", "right", "of", "%", "95 % interval"];
    if with_other {
        columns.extend(["other %", "lost", "gained", "McNemar p"]);
    }
    let mut table = Table::new(&columns);
    let percent = |share: &Share| rounded(100.0 * share.share, 1);
    for result in report.tasks.iter().chain([&report.all]) {
        let TaskResult { task, right, against } = result;
        let interval = format!("{:.1} to {:.1}", 100.0 * right.low, 100.0 * right.high);
        let mut row: Vec<Value> = vec![
            task.as_str().into(),
            right.count.into(),
            right.total.into(),
            percent(right),
            interval.into(),
        ];
        if let Some(flips) = against {
            row.extend([
                percent(&flips.right),
                flips.lost.into(),
                flips.gained.into(),
                format!("{:.4}", flips.p_value).into(),
            ]);
        }
        table.push(row);
    }
    table.render(TableFormat::Table)
}
