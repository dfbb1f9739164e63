//! Items of a JSON lines file: `task`, `prompt`, `answer`.

use crate::error::EvalError;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Line number in its file, from 1.
    pub line: usize,
    /// Name of the task it belongs to.
    pub task: String,
    /// Text given to the model.
    pub prompt: String,
    /// Expected continuation.
    pub answer: String,
}

/// Reads a file with one object per line; ignores empty lines and other fields.
pub fn read_items(path: &Path) -> Result<Vec<Item>, EvalError> {
    let bytes = std::fs::read(path).map_err(|source| EvalError::Io {
        path: path.to_path_buf(),
        action: "read",
        source,
    })?;
    parse_items(path, &bytes)
}

/// [`read_items`] on a file's bytes; `path` is for errors.
pub fn parse_items(path: &Path, bytes: &[u8]) -> Result<Vec<Item>, EvalError> {
    let mut items = Vec::new();
    for (index, bytes) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = index + 1;
        let wrong = |reason: String| EvalError::Item { path: path.to_path_buf(), line, reason };
        let text = std::str::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        if text.trim().is_empty() {
            continue;
        }
        let object: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| wrong(format!("no JSON object: {error}")))?;
        let field = |field: &'static str| {
            let wrong = |reason: &str| {
                let (path, reason) = (path.to_path_buf(), reason.to_string());
                EvalError::ItemField { path, line, field, reason }
            };
            match object.get(field) {
                Some(Value::String(text)) if text.is_empty() && field != "prompt" => Err(wrong("is empty")),
                Some(Value::String(text)) => Ok(text.clone()),
                Some(_) => Err(wrong("is no text")),
                None => Err(wrong("is missing")),
            }
        };
        items.push(Item { line, task: field("task")?, prompt: field("prompt")?, answer: field("answer")? });
    }
    if items.is_empty() {
        return Err(EvalError::NoItems { path: path.to_path_buf() });
    }
    Ok(items)
}

/// Keeps the items of the named tasks (of all tasks where none is named), and the first `limit` of
/// each task. Fails on a task without items.
pub fn select_items(
    path: &Path,
    mut items: Vec<Item>,
    tasks: &[String],
    limit: Option<usize>,
) -> Result<Vec<Item>, EvalError> {
    if let Some(task) = tasks.iter().find(|task| !items.iter().any(|item| item.task == **task)) {
        let mut known: Vec<&str> = Vec::new();
        for item in &items {
            if !known.contains(&item.task.as_str()) {
                known.push(&item.task);
            }
        }
        let (path, known) = (path.to_path_buf(), known.join(", "));
        return Err(EvalError::UnknownTask { path, task: task.clone(), known });
    }
    let mut counts: HashMap<String, usize> = HashMap::new();
    items.retain(|item| {
        if !tasks.is_empty() && !tasks.contains(&item.task) {
            return false;
        }
        let count = counts.entry(item.task.clone()).or_default();
        *count += 1;
        limit.is_none_or(|limit| *count <= limit)
    });
    if items.is_empty() {
        return Err(EvalError::NoItems { path: path.to_path_buf() });
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Vec<Item>, EvalError> {
        parse_items(Path::new("items.jsonl"), text)
    }

    fn item(task: &str, answer: &str) -> String {
        format!("{{\"task\": \"{task}\", \"prompt\": \"p\", \"answer\": \"{answer}\", \"more\": 1}}\n")
    }

    #[test]
    fn items_keep_their_lines() {
        let text = format!("{}\n  \r\n{}", item("a", "x"), item("b", "y").trim_end());
        let items = parse(text.as_bytes()).unwrap();
        let found: Vec<_> = items.iter().map(|item| (item.line, &*item.task, &*item.answer)).collect();
        assert_eq!(found, [(1, "a", "x"), (4, "b", "y")]);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_field() {
        let good = item("a", "x");
        for (line, expected) in [
            ("{\"task\": \"a\"", "items.jsonl: line 2: no JSON object: EOF"),
            ("[1]", "items.jsonl: line 2: no JSON object"),
            ("{\"task\": \"a\", \"answer\": \"b\"}", "items.jsonl: line 2: field prompt: is missing"),
            ("{\"task\": \"a\", \"prompt\": 7, \"answer\": \"b\"}", "line 2: field prompt: is no text"),
            ("{\"task\": \"a\", \"prompt\": \"p\", \"answer\": \"\"}", "line 2: field answer: is empty"),
            ("{\"task\": \"\", \"prompt\": \"p\", \"answer\": \"b\"}", "line 2: field task: is empty"),
        ] {
            let message = parse(format!("{good}{line}").as_bytes()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let message = parse(&[good.as_bytes(), b"\xff"].concat()).unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("utf-8"), "{message}");
        assert!(matches!(parse(b"\n\n").unwrap_err(), EvalError::NoItems { .. }));
        let error = read_items(Path::new("no/such/items.jsonl")).unwrap_err();
        assert!(matches!(error, EvalError::Io { .. }));
    }

    #[test]
    fn tasks_and_a_limit_select() {
        let text: String = ["a", "b", "a", "c", "a", "b"].iter().map(|task| item(task, "x")).collect();
        let lines = |tasks: &[&str], limit| {
            let tasks: Vec<String> = tasks.iter().map(ToString::to_string).collect();
            let items =
                select_items(Path::new("items.jsonl"), parse(text.as_bytes()).unwrap(), &tasks, limit);
            items.map(|items| items.iter().map(|item| item.line).collect::<Vec<_>>())
        };
        assert_eq!(lines(&[], None).unwrap(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(lines(&["a", "c"], Some(2)).unwrap(), [1, 3, 4]);
        assert!(matches!(lines(&[], Some(0)).unwrap_err(), EvalError::NoItems { .. }));
        let message = lines(&["a", "d"], None).unwrap_err().to_string();
        assert_eq!(message, "items.jsonl has no task \"d\"; there are a, b, c");
    }
}
