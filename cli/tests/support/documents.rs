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
pub fn words(line: &str) -> Vec<String> {
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
pub fn options(words: &[String]) -> impl Iterator<Item = &str> {
    let named = words.iter().filter(|word| {
        let name = word.trim_start_matches('-');
        name.len() < word.len() && name.starts_with(|c: char| c.is_ascii_alphabetic())
    });
    named.map(|word| word.split_once('=').map_or(word.as_str(), |(name, _)| name))
}

/// Whether a command, or one of its subcommands, has an option of that name.
pub fn has_option(command: &clap::Command, option: &str) -> bool {
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
pub fn subcommand<'a>(command: &'a clap::Command, words: &'a [String]) -> (&'a clap::Command, &'a [String]) {
    match words.first().and_then(|word| command.find_subcommand(word)) {
        Some(inner) => subcommand(inner, &words[1..]),
        None => (command, words),
    }
}

/// What is wrong with a span such as `pith bench --energy`, which may leave out what a command
/// requires.
pub fn problem(command: &clap::Command, words: &[String]) -> Option<String> {
    let (inner, rest) = subcommand(command, words);
    let named =
        rest.first().filter(|_| inner.has_subcommands() && !inner.is_args_conflicts_with_subcommands_set());
    if let Some(word) = named.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())) {
        return Some(format!("there is no command {word}"));
    }
    let unknown = options(rest).find(|option| !has_option(inner, option));
    unknown.map(|option| format!("there is no option {option}"))
}
