//! `pith eval`

mod kl;
mod tasks;

use clap::{Args, Subcommand};
use kl::KlArgs;
use pith_eval::About;
use std::path::Path;
use tasks::TasksArgs;

/// `pith eval`
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    pub command: EvalCommand,
}

/// The kinds of evaluation.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Measure how far a compressed model's probabilities are from its original's, on a text
    Kl(KlArgs),
    /// Count the questions of a file that a model answers right
    Tasks(TasksArgs),
}

/// Evaluates.
pub fn eval(args: EvalArgs) -> anyhow::Result<()> {
    match args.command {
        EvalCommand::Kl(args) => kl::kl(args),
        EvalCommand::Tasks(args) => tasks::tasks(args),
    }
}

/// A model's file and description.
fn about_json(path: Option<&Path>, about: &About) -> serde_json::Value {
    let mut json = serde_json::to_value(about).expect("names and numbers");
    json["file"] = path.map(|path| path.display().to_string()).into();
    json
}
