//! The `pith` command: composes the other crates, computes nothing itself.
//!
//! Exit codes: 0 done, 1 failed (the reason on standard error), 2 wrong usage, 130 stopped by
//! Ctrl-C.
#![forbid(unsafe_code)]

mod bench;
mod board;
mod calibrate;
mod chat;
mod checkpoint;
mod convert;
#[cfg(test)]
mod docs;
mod eval;
mod export;
mod inspect;
mod interrupt;
mod logits;
mod machine;
mod metrics;
mod options;
mod output;
mod perplexity;
mod placement;
mod progress;
mod report;
mod run;
mod search;
mod template;
mod text;
mod tokenize;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Compresses language models, runs them on the CPUs people own, and reports the cost of every
/// token.
#[derive(Debug, Parser)]
#[command(
    name = "pith",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Cli {
    /// What to do
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make a .pith file from a Hugging Face folder or a GGUF file
    Convert(convert::ConvertArgs),
    /// Run a text through a model and save activation statistics for quantizing
    Calibrate(calibrate::CalibrateArgs),
    /// Choose an encoding for each matrix: the best quality within a limit of size or energy
    Search(search::SearchArgs),
    /// Decode a .pith file's weights into a checkpoint that other tools read
    Export(export::ExportArgs),
    /// Show the content of a .pith file or a checkpoint, or the kernels that this CPU can run
    Inspect(inspect::InspectArgs),
    /// Continue a prompt
    Run(run::RunArgs),
    /// Talk with a model
    Chat(chat::ChatArgs),
    /// Print the prompt that a chat sends for some messages
    Template(template::ShowArgs),
    /// Measure prefill and decode speed
    Bench(bench::BenchArgs),
    /// Show this machine: cores, memory, sensors, heat
    Board(board::BoardArgs),
    /// Draw the ledgers of `pith run --ledger` as one page
    Report(report::ReportArgs),
    /// Measure the loss from compression: divergence from the original, answers to tasks
    Eval(eval::EvalArgs),
    /// Measure the perplexity of a text
    Perplexity(perplexity::PerplexityArgs),
    /// Write the logits of a token sequence to a NumPy file
    Logits(logits::LogitsArgs),
    /// Turn text into token ids
    Tokenize(tokenize::TokenizeArgs),
    /// Turn token ids into text
    Detokenize(tokenize::DetokenizeArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", message(&error));
            if interrupt::pressed() { ExitCode::from(interrupt::exit_code()) } else { ExitCode::FAILURE }
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Convert(args) => convert::convert(args)?,
        Command::Calibrate(args) => calibrate::calibrate(args)?,
        Command::Search(args) => return search::search(args),
        Command::Export(args) => export::export(args)?,
        Command::Inspect(args) => inspect::inspect(args)?,
        Command::Run(args) => return run::run(args),
        Command::Chat(args) => chat::chat(args)?,
        Command::Template(args) => template::show(args)?,
        Command::Bench(args) => bench::bench(args)?,
        Command::Board(args) => board::board(args)?,
        Command::Report(args) => report::report(args)?,
        Command::Eval(args) => eval::eval(args)?,
        Command::Perplexity(args) => perplexity::perplexity(args)?,
        Command::Logits(args) => logits::logits(args)?,
        Command::Tokenize(args) => tokenize::tokenize(args)?,
        Command::Detokenize(args) => tokenize::detokenize(args)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pith", &mut script);
            std::io::stdout().write_all(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The error and its causes, without causes that the message before them quotes.
fn message(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if parts.last().is_none_or(|last| !last.contains(&cause)) {
            parts.push(cause);
        }
    }
    parts.join(": ")
}

/// A closed pipe is not a failure: a reader such as `head` has stopped listening.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_cause_is_not_said_twice() {
        let error = anyhow::anyhow!("no such file").context("cannot open x: no such file").context("--file");
        assert_eq!(message(&error), "--file: cannot open x: no such file");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
