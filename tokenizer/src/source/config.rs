//! `tokenizer_config.json`: the settings that sources other than `tokenizer.json` lack.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::TokenizerError;
use crate::settings::{Added, Stage};

const PLACE: &str = "tokenizer_config.json";

/// Flags and tokens for a sentencepiece model or a `vocab.json`; the default sets none.
#[derive(Clone, Debug, Default)]
pub struct TokenizerConfig {
    /// The beginning-of-sequence token.
    pub bos_token: Option<String>,
    /// The end-of-sequence token.
    pub eos_token: Option<String>,
    /// The unknown token.
    pub unk_token: Option<String>,
    /// Whether encoding puts the beginning-of-sequence token first.
    pub add_bos_token: Option<bool>,
    /// Whether encoding puts the end-of-sequence token last.
    pub add_eos_token: Option<bool>,
    /// Tokens beyond the vocabulary file, or special ones of it.
    pub added_tokens: Vec<AddedToken>,
}

/// A token found in text before the model sees it.
#[derive(Clone, Debug, Default)]
pub struct AddedToken {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub content: String,
    /// Matches only where no word character adjoins it.
    pub single_word: bool,
    /// Removes white space before it.
    pub lstrip: bool,
    /// Removes white space after it.
    pub rstrip: bool,
    /// Searched in normalized text.
    pub normalized: bool,
    /// A mark for the model rather than text.
    pub special: bool,
}

impl From<&AddedToken> for Added {
    fn from(token: &AddedToken) -> Self {
        Self {
            id: token.id,
            content: token.content.clone(),
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            stage: if token.normalized { Stage::Normalized } else { Stage::Raw },
            special: token.special,
        }
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    bos_token: Option<Content>,
    #[serde(default)]
    eos_token: Option<Content>,
    #[serde(default)]
    unk_token: Option<Content>,
    #[serde(default)]
    add_bos_token: Option<bool>,
    #[serde(default)]
    add_eos_token: Option<bool>,
    #[serde(default)]
    added_tokens_decoder: BTreeMap<String, FileToken>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Token { content: String },
}

impl Content {
    fn into_text(self) -> String {
        match self {
            Self::Text(content) | Self::Token { content } => content,
        }
    }
}

#[derive(Deserialize)]
struct FileToken {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

impl TokenizerConfig {
    /// Reads a `tokenizer_config.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let file: File =
            serde_json::from_slice(bytes).map_err(|error| TokenizerError::malformed(PLACE, error))?;
        let mut added_tokens = Vec::with_capacity(file.added_tokens_decoder.len());
        for (id, token) in file.added_tokens_decoder {
            let id =
                id.parse().map_err(|_| TokenizerError::malformed(PLACE, format!("{id:?} is not an id")))?;
            let FileToken { content, single_word, lstrip, rstrip, normalized, special } = token;
            added_tokens.push(AddedToken { id, content, single_word, lstrip, rstrip, normalized, special });
        }
        Ok(Self {
            bos_token: file.bos_token.map(Content::into_text),
            eos_token: file.eos_token.map(Content::into_text),
            unk_token: file.unk_token.map(Content::into_text),
            add_bos_token: file.add_bos_token,
            add_eos_token: file.add_eos_token,
            added_tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_may_be_text_or_objects() {
        let json = br#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "add_bos_token": true,
            "added_tokens_decoder": {"7": {"content": "<x>", "rstrip": true, "special": true}}, "other": [1]}"#;
        let config = TokenizerConfig::from_json(json).unwrap();
        assert_eq!(config.bos_token.as_deref(), Some("<s>"));
        assert_eq!(config.eos_token.as_deref(), Some("</s>"));
        assert_eq!((config.add_bos_token, config.add_eos_token), (Some(true), None));
        let token = &config.added_tokens[0];
        assert_eq!((token.id, token.content.as_str(), token.rstrip, token.special), (7, "<x>", true, true));
        assert!(TokenizerConfig::from_json(br#"{"added_tokens_decoder": {"x": {"content": ""}}}"#).is_err());
    }
}
