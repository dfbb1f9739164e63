//! Checks that the documentation names only existing commands and options of `cargo xtask`.

#[path = "../../cli/tests/support/documents.rs"]
mod documents;

use crate::Arguments;
use clap::CommandFactory;
use documents::{Page, Program, pages};

/// Pages about `cargo xtask`: an option alone must belong to one of its commands.
const PAGES: [&str; 2] = ["docs/performance.md", "docs/quality.md"];

/// Options of other programs named on these pages.
const FOREIGN: [(&str, &str); 5] = [
    ("-fa", "llama-bench"),
    ("-lm", "llama-bench"),
    ("-rtr", "llama-bench"),
    ("-thp", "llama-bench"),
    ("--huge-pages", "pith bench"),
];

/// The arguments of one of our commands.
fn arguments(words: &[String]) -> Option<&[String]> {
    match words {
        [cargo, xtask, rest @ ..] if cargo == "cargo" && xtask == "xtask" => Some(rest),
        _ => None,
    }
}

fn program() -> Program<'static> {
    Program { name: "cargo xtask", command: Arguments::command(), arguments, is_foreign }
}

fn is_foreign(page: &Page, option: &str) -> bool {
    !PAGES.contains(&page.name.as_str()) || FOREIGN.iter().any(|(foreign, _)| *foreign == option)
}

#[test]
fn documented_commands_and_options_exist() {
    let pages = pages();
    program().check(&pages, 4);
    let spans: Vec<String> =
        pages.iter().filter(|page| PAGES.contains(&page.name.as_str())).flat_map(Page::spans).collect();
    for (option, program) in FOREIGN {
        assert!(spans.iter().any(|span| span.contains(option)), "no page names {program} {option} any more");
    }
}

#[test]
fn a_wrong_page_is_found_out() {
    for text in [
        "```sh\ncargo xtask rivals\n```",
        "```sh\ncargo xtask mca --fast\n```",
        "`cargo xtask costs --hours`",
    ] {
        assert_eq!(program().problems(&Page::of(text)).len(), 1, "{text}");
    }
}
