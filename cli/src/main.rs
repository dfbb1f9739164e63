//! The `pith` command: composes the other crates, computes nothing itself.
//!
//! Exit codes: 0 done, 1 failed (the reason on standard error), 2 wrong usage, 130 stopped by Ctrl-C.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod board;
mod calibrate;
mod calibration;
mod chat;
mod convert;
mod energy;
mod eval;
mod export;
mod inspect;
mod interrupt;
mod ledger;
mod logits;
mod metrics;
mod output;
mod perplexity;
mod plan;
mod prompt_cache;
mod quantize;
mod report;
mod run;
mod search;
mod session;
mod speculate;
mod tokenize;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", message(&error));
            if interrupt::pressed() { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::FAILURE }
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Convert(args) => convert::convert(args)?,
        Command::Calibrate(args) => calibration::calibrate(args)?,
        Command::Search(args) => return search::search(args),
        Command::Export(args) => export::export(args)?,
        Command::Inspect(args) => inspect::inspect(args)?,
        Command::Run(args) => return run::run(args),
        Command::Chat(args) => chat::chat(args)?,
        Command::Bench(args) => bench::bench(args)?,
        Command::Board(args) => board::board(args)?,
        Command::Report(args) => report::report(args)?,
        Command::Eval(args) => eval::eval(args)?,
        Command::Perplexity(args) => perplexity::perplexity(args)?,
        Command::Logits(args) => logits::logits(args)?,
        Command::Tokenize(args) => tokenize::tokenize(args)?,
        Command::Detokenize(args) => tokenize::detokenize(args)?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "pith", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The error and its causes, leaving out causes that the message before them quotes.
fn message(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if parts.last().is_none_or(|last| !last.contains(&cause)) {
            parts.push(cause);
        }
    }
    parts.join(": ")
}

/// A reader such as `head` that stopped listening is no failure.
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
