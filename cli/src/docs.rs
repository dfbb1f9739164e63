//! Tests that commands and options in the documentation exist.

#[path = "../tests/support/documents.rs"]
mod documents;

use crate::Cli;
use clap::CommandFactory;
use documents::{Page, Program, pages};

/// Pages whose bare options belong to `cargo xtask`, which checks them.
const OF_XTASK: [&str; 2] = ["docs/performance.md", "docs/quality.md"];

/// Options of other programs: the page, the option, the program.
const FOREIGN: [(&str, &str, &str); 2] = [
    ("docs/building.md", "--target", "cargo"),
    ("docs/evaluating.md", "--kl-divergence", "llama-perplexity"),
];

/// The arguments of a `pith` command.
fn arguments(words: &[String]) -> Option<&[String]> {
    let run = ["cargo", "run", "--release", "--"];
    match words {
        [first, rest @ ..] if first == "pith" => Some(rest),
        [first @ .., _] if first.len() >= run.len() && first[..run.len()] == run => Some(&words[run.len()..]),
        _ => None,
    }
}

fn program() -> Program<'static> {
    Program { name: "pith", command: Cli::command(), arguments, is_foreign }
}

fn is_foreign(page: &Page, option: &str) -> bool {
    OF_XTASK.contains(&page.name.as_str())
        || FOREIGN.iter().any(|(name, foreign, _)| *name == page.name && *foreign == option)
}

#[test]
fn documented_commands_and_options_exist() {
    let pages = pages();
    program().check(&pages, 20);
    for (name, option, program) in FOREIGN {
        let page = pages.iter().find(|page| page.name == name).expect(name);
        assert!(
            page.spans().iter().any(|span| span.contains(option)),
            "{name} no longer names {program} {option}"
        );
    }
}

#[test]
fn a_wrong_page_is_found_out() {
    for (text, problem) in [
        ("```sh\npith rum x.pith\n```", "rum"),
        ("```sh\npith run x.pith --promt y # a comment\n```", "--promt"),
        ("```sh\ncargo run --release -- convert a b \\\n  --encodings q4 && pith board\n```", "--encodings"),
        ("```sh\npith board && pith eval kl\n```", "required"),
        ("See `pith bench --energie`.", "--energie"),
        ("See `pith calibrate --budget`.", "--budget"),
        ("See `pith frobnicate`.", "frobnicate"),
        ("Give `--recipee`.", "--recipee"),
        ("Give `-Z`.", "-Z"),
    ] {
        let found = program().problems(&Page::of(text));
        assert!(found.len() == 1 && found[0].contains(problem), "{text}: {found:?}");
    }
    let right = "```sh\npith run \"a b.pith\" --prompt 'x # y' # z\nls --frobnicate\n```\n`pith run --lookup`, `--recipe`, `-e keep`";
    assert_eq!(program().problems(&Page::of(right)), [""; 0]);
}
