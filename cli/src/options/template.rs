//! Options of a chat's template, and the template made from them.

use anyhow::Context;
use clap::{Args, ValueHint};
use pith_runtime::{ChatTemplate, Message, Model};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The template of a chat, and its variables.
#[derive(Debug, Args)]
pub struct TemplateArgs {
    /// Jinja template instead of the file's own
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub template: Option<PathBuf>,
    /// Set a variable of the template, such as enable_thinking=false; the value is JSON, or a text
    /// (may be repeated)
    #[arg(long, value_name = "KEY=VALUE", value_parser = template_arg)]
    pub template_arg: Vec<(String, Value)>,
}

/// Splits `KEY=VALUE`. A value that is not JSON is a text.
fn template_arg(text: &str) -> Result<(String, Value), String> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return Err(format!("\"{text}\" is not KEY=VALUE, such as enable_thinking=false"));
    };
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()));
    Ok((key.into(), value))
}

impl TemplateArgs {
    /// The template: the one given, or that of the model at `path`.
    pub fn open(&self, path: &Path, model: &Model) -> anyhow::Result<ChatTemplate> {
        let source = match &self.template {
            Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
            None => model.metadata().chat_template.clone().with_context(|| {
                format!("{} has no chat template; give one with --template, or use pith run", path.display())
            })?,
        };
        let tokenizer = model.tokenizer()?;
        let text = |id: Option<u32>| {
            id.map(|id| tokenizer.decode(&[id], false)).transpose().map(Option::unwrap_or_default)
        };
        let (bos, eos) = (model.config().bos, model.config().eos.first().copied());
        let mut template = ChatTemplate::new(&source, &text(bos)?, &text(eos)?)?;
        for (key, value) in &self.template_arg {
            template.set_variable(key, value);
        }
        Ok(template)
    }
}

/// The message that the user gives with `--system`, if any.
pub fn system_message(text: Option<&str>) -> Vec<Message> {
    text.map(|text| Message::new("system", text)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_variables_are_json_or_text() {
        assert_eq!(template_arg("a=false").unwrap(), ("a".into(), json!(false)));
        assert_eq!(template_arg("a={\"b\": [1]}").unwrap().1, json!({"b": [1]}));
        assert_eq!(template_arg("a=x=y").unwrap().1, json!("x=y"));
        assert!(template_arg("a").is_err() && template_arg("=1").is_err());
    }
}
