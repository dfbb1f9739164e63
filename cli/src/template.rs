//! `pith template`

use crate::options::session::open_model;
use crate::options::template::TemplateArgs;
use crate::output;
use crate::text::read_text;
use anyhow::Context;
use clap::{Args, ValueHint};
use pith_runtime::Message;
use pith_tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// `pith template`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// JSON file with a list of messages, each with role and content; - is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub messages: PathBuf,
    /// End with the last message, not where the reply begins
    #[arg(long)]
    pub no_reply: bool,
    /// Print each token's id and text on a line of its own
    #[arg(long)]
    pub tokens: bool,
    /// Print text and ids as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub template: TemplateArgs,
}

/// Prints the prompt that a chat with these messages sends.
pub fn show(args: ShowArgs) -> anyhow::Result<()> {
    let model = open_model(&args.model)?;
    let template = args.template.open(&args.model, &model)?;
    let messages = read_messages(&args.messages)?;
    let text = template.render(&messages, !args.no_reply)?;
    let tokenizer = model.tokenizer()?;
    let ids = template.encode(tokenizer, &messages, !args.no_reply)?;
    let out = match (args.json, args.tokens) {
        (true, _) => format!("{:#}\n", json!({"text": text, "ids": ids})),
        (false, true) => token_lines(tokenizer, &ids),
        (false, false) => text,
    };
    output::print(&out)?;
    Ok(())
}

/// A line for each token: its id, and its text as a JSON string.
fn token_lines(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut lines = String::new();
    for &id in ids {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        let special = if tokenizer.is_special(id) { "  special" } else { "" };
        let _ = writeln!(lines, "{id:>7}  {}{special}", json!(String::from_utf8_lossy(&bytes)));
    }
    lines
}

/// Messages of a JSON file: a list, or an object whose `messages` is one.
fn read_messages(path: &Path) -> anyhow::Result<Vec<Message>> {
    let place = || path.display().to_string();
    let value: Value = serde_json::from_str(&read_text(path)?).with_context(place)?;
    let list = value.get("messages").unwrap_or(&value).as_array();
    let list = list.with_context(|| format!("{}: expected a list of messages", place()))?;
    let message = |(index, message): (usize, &Value)| {
        let field = |name: &str| {
            let text = message.get(name).and_then(Value::as_str);
            text.with_context(|| format!("{}: message {index} has no {name} that is a text", place()))
        };
        Ok(Message::new(field("role")?, field("content")?))
    };
    list.iter().enumerate().map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_and_what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_messages(&path).map_err(|error| format!("{error:#}"))
        };
        let messages = [Message::new("user", "Hi")];
        assert_eq!(read(r#"[{"role": "user", "content": "Hi"}]"#).unwrap(), messages);
        assert_eq!(read(r#"{"messages": [{"role": "user", "content": "Hi"}]}"#).unwrap(), messages);
        let error = read(r#"[{"role": "user", "content": "Hi"}, {"role": "user"}]"#).unwrap_err();
        assert!(error.contains("message 1 has no content"), "{error}");
        assert!(read("{}").unwrap_err().contains("a list of messages"));
        assert!(read("[").unwrap_err().contains("messages.json"));
    }
}
