//! Commands and options that the documentation names, as its pages hold them.

use std::path::{Path, PathBuf};

/// A page of the documentation.
pub struct Page {
    /// Below the repository's root.
    pub name: String,
    text: String,
}

/// README.md and docs/*.md.
pub fn pages() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = std::fs::read_dir(root.join("docs")).expect("docs is a folder");
    let mut names: Vec<PathBuf> = docs
        .map(|entry| Path::new("docs").join(entry.expect("a file of docs").file_name()))
        .filter(|name| name.extension().is_some_and(|extension| extension == "md"))
        .collect();
    names.sort();
    names.insert(0, "README.md".into());
    let page = |name: PathBuf| Page {
        text: std::fs::read_to_string(root.join(&name)).expect("a page of UTF-8"),
        name: name.display().to_string(),
    };
    names.into_iter().map(page).collect()
}

impl Page {
    /// A page that a test writes.
    pub fn of(text: &str) -> Self {
        Self { name: "a page".into(), text: text.into() }
    }

    /// The commands of its code blocks as words, those behind `&&` too.
    pub fn commands(&self) -> Vec<Vec<String>> {
        let mut commands = Vec::new();
        for block in self.text.split("```").skip(1).step_by(2) {
            // The rest of the first line names the language.
            let (_, lines) = block.split_once('\n').unwrap_or_default();
            for line in lines.replace("\\\n", " ").lines() {
                commands.extend(words(line).split(|word| word == "&&").map(<[String]>::to_vec));
            }
        }
        commands
    }

    /// Its inline code.
    pub fn spans(&self) -> Vec<String> {
        let prose: String = self.text.split("```").step_by(2).collect();
        prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
    }
}

/// A line as a shell splits it, without its comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('#', None) if word.is_none() => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The options among some words, without their values: `--output`, `-p`.
fn options(words: &[String]) -> impl Iterator<Item = &str> {
    let named = words.iter().filter(|word| {
        let name = word.trim_start_matches('-');
        name.len() < word.len() && name.starts_with(|c: char| c.is_ascii_alphabetic())
    });
    named.map(|word| word.split_once('=').map_or(word.as_str(), |(name, _)| name))
}

/// Whether a command, or one of its subcommands, has an option of that name.
fn has_option(command: &clap::Command, option: &str) -> bool {
    let own = command.get_arguments().any(|arg| match option.strip_prefix("--") {
        Some(long) => {
            arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|names| names.contains(&long))
        }
        None => arg
            .get_short()
            .is_some_and(|short| option.strip_prefix('-').is_some_and(|o| o.starts_with(short))),
    });
    own || matches!(option, "--help" | "--version")
        || command.get_subcommands().any(|command| has_option(command, option))
}

/// The subcommand that the words name, and the words behind it.
fn subcommand<'a>(command: &'a clap::Command, words: &'a [String]) -> (&'a clap::Command, &'a [String]) {
    match words.first().and_then(|word| command.find_subcommand(word)) {
        Some(inner) => subcommand(inner, &words[1..]),
        None => (command, words),
    }
}

/// A program whose documentation is checked.
pub struct Program<'a> {
    /// How messages begin: `pith`, `cargo xtask`.
    pub name: &'a str,
    pub command: clap::Command,
    /// The arguments in the words of a command line, where it calls this program.
    pub arguments: fn(&[String]) -> Option<&[String]>,
    /// Whether an option that stands alone on a page may be left to other programs.
    pub is_foreign: fn(&Page, &str) -> bool,
}

impl Program<'_> {
    /// Commands and options on the page that the program does not have.
    pub fn problems(&self, page: &Page) -> Vec<String> {
        let mut found = Vec::new();
        for line in page.commands() {
            let Some(arguments) = (self.arguments)(&line) else { continue };
            let line = [self.name.to_string()].into_iter().chain(arguments.iter().cloned());
            if let Err(error) = self.command.clone().try_get_matches_from(line) {
                found.push(format!("{}: {} {}: {error}", page.name, self.name, arguments.join(" ")));
            }
        }
        for span in page.spans() {
            let words = words(&span);
            let problem = match (self.arguments)(&words) {
                Some(arguments) => problem(&self.command, arguments),
                None if span.starts_with('-') => options(&words)
                    .find(|option| !has_option(&self.command, option) && !(self.is_foreign)(page, option))
                    .map(|option| format!("no command has the option {option}")),
                None => None,
            };
            found.extend(problem.map(|problem| format!("{}: `{span}`: {problem}", page.name)));
        }
        found
    }

    /// Checks all pages, which call the program in more than `least` code blocks' lines.
    pub fn check(&self, pages: &[Page], least: usize) {
        let found: Vec<String> = pages.iter().flat_map(|page| self.problems(page)).collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
        let commands = pages.iter().flat_map(Page::commands);
        let count = commands.filter(|line| (self.arguments)(line).is_some()).count();
        assert!(count > least, "only {count} commands of {} were found", self.name);
    }
}

/// What is wrong with a span such as `pith bench --energy`, which may leave out what a command
/// requires.
fn problem(command: &clap::Command, words: &[String]) -> Option<String> {
    let (inner, rest) = subcommand(command, words);
    let named =
        rest.first().filter(|_| inner.has_subcommands() && !inner.is_args_conflicts_with_subcommands_set());
    if let Some(word) = named.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())) {
        return Some(format!("there is no command {word}"));
    }
    let unknown = options(rest).find(|option| !has_option(inner, option));
    unknown.map(|option| format!("there is no option {option}"))
}
