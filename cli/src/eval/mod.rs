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
    /// Measure the divergence of a compressed model's probabilities from its original's, on a text
    Kl(KlArgs),
    /// Count a model's correct answers to the questions in a file
    Tasks(TasksArgs),
}

/// Runs an evaluation.
pub fn eval(args: EvalArgs) -> anyhow::Result<()> {
    match args.command {
        EvalCommand::Kl(args) => kl::kl(args),
        EvalCommand::Tasks(args) => tasks::tasks(args),
    }
}

/// The file and the description of a model.
fn about_json(path: Option<&Path>, about: &About) -> serde_json::Value {
    let mut json = serde_json::to_value(about).expect("names and numbers");
    json["file"] = path.map(|path| path.display().to_string()).into();
    json
}
