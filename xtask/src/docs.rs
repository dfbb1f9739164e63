//! Checks that the documentation names only existing commands and options of `cargo xtask`.

#[path = "../../cli/tests/support/documents.rs"]
mod documents;

use crate::Arguments;
use clap::CommandFactory;
use documents::{Page, has_option, options, pages, problem, words};

/// Pages about `cargo xtask`: an option alone must belong to one of its commands.
const PAGES: [&str; 2] = ["docs/performance.md", "docs/quality.md"];

/// Options of other programs named on these pages.
const FOREIGN: [(&str, &str); 3] =
    [("-fa", "llama-bench"), ("-rtr", "llama-bench"), ("--huge-pages", "pith bench")];

/// The arguments of one of our commands.
fn arguments(words: &[String]) -> Option<&[String]> {
    match words {
        [cargo, xtask, rest @ ..] if cargo == "cargo" && xtask == "xtask" => Some(rest),
        _ => None,
    }
}

fn problems(page: &Page) -> Vec<String> {
    let (command, mut found) = (Arguments::command(), Vec::new());
    for line in page.commands() {
        let Some(arguments) = arguments(&line) else { continue };
        let line = ["xtask".to_string()].into_iter().chain(arguments.iter().cloned());
        if let Err(error) = command.clone().try_get_matches_from(line) {
            found.push(format!("{}: cargo xtask {}: {error}", page.name, arguments.join(" ")));
        }
    }
    for span in page.spans() {
        let words = words(&span);
        let problem = match arguments(&words) {
            Some(arguments) => problem(&command, arguments),
            None if span.starts_with('-') && PAGES.contains(&page.name.as_str()) => options(&words)
                .find(|option| {
                    !has_option(&command, option) && !FOREIGN.iter().any(|(foreign, _)| foreign == option)
                })
                .map(|option| format!("no command has the option {option}")),
            None => None,
        };
        found.extend(problem.map(|problem| format!("{}: `{span}`: {problem}", page.name)));
    }
    found
}

#[test]
fn documented_commands_and_options_exist() {
    let pages = pages();
    let found: Vec<String> = pages.iter().flat_map(problems).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    let commands = pages.iter().flat_map(Page::commands);
    assert!(commands.filter(|line| arguments(line).is_some()).count() > 4, "commands are no longer found");
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
        assert_eq!(problems(&Page::of(text)).len(), 1, "{text}");
    }
}
