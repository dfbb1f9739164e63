//! The sources for a tokenizer in a checkpoint.

use std::path::Path;

use serde_json::Value;

use super::CheckpointError;
use super::file::SourceFile;
use super::gguf::GgufMetadata;
use super::huggingface::{exists, read_json};

/// Limit for a vocabulary file; the largest known one has 35 MB.
const FILE_LIMIT: u64 = 256 << 20;
/// Limit for a configuration, which takes up to 16 times its text as JSON; the largest known one
/// has 1.2 MB.
const CONFIG_LIMIT: u64 = 16 << 20;

/// The description of a tokenizer.
#[derive(Debug)]
#[non_exhaustive]
pub enum TokenizerSource<'a> {
    /// Files of a Hugging Face folder.
    Files(Box<TokenizerFiles>),
    /// The `tokenizer.*` keys of a GGUF file.
    Gguf(&'a GgufMetadata),
}

/// The tokenizer files that exist in a Hugging Face folder.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer_json: Option<String>,
    /// `tokenizer.model`, a sentencepiece model.
    pub tokenizer_model: Option<Vec<u8>>,
    /// `vocab.json`.
    pub vocab_json: Option<String>,
    /// `merges.txt`.
    pub merges_txt: Option<String>,
    /// `added_tokens.json`.
    pub added_tokens: Option<Value>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<Value>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Value>,
    /// `chat_template.jinja`.
    pub chat_template_jinja: Option<String>,
    /// `chat_template.json`, as models of more than text have it.
    pub chat_template_json: Option<Value>,
}

impl TokenizerFiles {
    /// Reads the files of `folder`, with or without weights.
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let file = |name: &str| {
            let path = folder.join(name);
            exists(&path)?.then(|| SourceFile::open(&path)).transpose()
        };
        let text = |name: &str| file(name)?.map(|f| f.read_text(FILE_LIMIT)).transpose();
        let json = |name: &str| read_json(&folder.join(name), CONFIG_LIMIT);
        Ok(Self {
            tokenizer_json: text("tokenizer.json")?,
            tokenizer_model: file("tokenizer.model")?.map(|f| f.read_all(FILE_LIMIT)).transpose()?,
            vocab_json: text("vocab.json")?,
            merges_txt: text("merges.txt")?,
            added_tokens: json("added_tokens.json")?,
            special_tokens_map: json("special_tokens_map.json")?,
            tokenizer_config: json("tokenizer_config.json")?,
            chat_template_jinja: text("chat_template.jinja")?,
            chat_template_json: json("chat_template.json")?,
        })
    }

    /// `chat_template.jinja` or `chat_template.json`, else the configuration's template; of
    /// several, the one named `default`.
    pub fn chat_template(&self) -> Option<&str> {
        if let Some(template) = &self.chat_template_jinja {
            return Some(template);
        }
        if let Some(Value::String(template)) =
            self.chat_template_json.as_ref().and_then(|file| file.get("chat_template"))
        {
            return Some(template);
        }
        match self.tokenizer_config.as_ref()?.get("chat_template")? {
            Value::String(template) => Some(template),
            Value::Array(named) => {
                named.iter().find(|t| t["name"] == "default").and_then(|t| t["template"].as_str())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_config(config: Value) -> TokenizerFiles {
        TokenizerFiles { tokenizer_config: Some(config), ..TokenizerFiles::default() }
    }

    #[test]
    fn template_file_wins_over_configuration() {
        let mut files = with_config(serde_json::json!({"chat_template": "a"}));
        assert_eq!(files.chat_template(), Some("a"));
        files.chat_template_jinja = Some("b".into());
        assert_eq!(files.chat_template(), Some("b"));
    }

    #[test]
    fn of_several_templates_the_default_is_taken() {
        let named = |name: &str, template: &str| serde_json::json!({"name": name, "template": template});
        let files =
            with_config(serde_json::json!({"chat_template": [named("rag", "x"), named("default", "y")]}));
        assert_eq!(files.chat_template(), Some("y"));
        let files = with_config(serde_json::json!({"chat_template": [named("rag", "x")]}));
        assert_eq!(files.chat_template(), None);
        assert_eq!(with_config(serde_json::json!({"chat_template": null})).chat_template(), None);
    }
}
