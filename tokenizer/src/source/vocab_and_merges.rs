//! `vocab.json` with `merges.txt`, the first published form of GPT-2 and Qwen2.

use std::collections::HashMap;

use super::tokenizer_json::merge_ids;
use super::{PreTokenizer, TokenList, TokenizerConfig, bytes};
use crate::parts::Parts;
use crate::settings::{Added, Decoding, ModelKind, Settings};
use crate::vocab::Kind;
use crate::{Tokenizer, TokenizerError};

/// Reads a byte-level BPE vocabulary and its merges; `pre` splits the text, `config` may add tokens
/// and flags.
pub fn from_vocab_and_merges(
    vocab_json: &[u8],
    merges_txt: &[u8],
    pre: &PreTokenizer,
    config: &TokenizerConfig,
) -> Result<Tokenizer, TokenizerError> {
    let ids: HashMap<String, u32> =
        serde_json::from_slice(vocab_json).map_err(|error| TokenizerError::malformed("vocab.json", error))?;
    let merges =
        std::str::from_utf8(merges_txt).map_err(|error| TokenizerError::malformed("merges.txt", error))?;
    let mut tokens = TokenList::new("vocab.json", ids.len() + config.added_tokens.len());
    for (token, id) in &ids {
        match bytes::from_alphabet(token) {
            Some(text) => tokens.put(u64::from(*id), Kind::Text, &text)?,
            None => tokens.put(u64::from(*id), Kind::Literal, token.as_bytes())?,
        }
    }
    let mut added: Vec<Added> = config.added_tokens.iter().map(Added::from).collect();
    for token in &mut added {
        match ids.get(&token.content) {
            Some(id) => token.id = *id,
            None => tokens.put(u64::from(token.id), Kind::Literal, token.content.as_bytes())?,
        }
    }
    let lines = merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version"));
    let merges = merge_ids(&ids, lines.map(|line| line.split_once(' ').unwrap_or((line, ""))))?;
    let known = |wanted: Option<bool>, token: &Option<String>| match token {
        Some(token) if wanted == Some(true) => {
            let id = added.iter().find(|added| added.content == *token).map(|added| added.id);
            let id = id.or_else(|| ids.get(token).copied());
            let missing =
                || TokenizerError::MissingToken { place: "tokenizer_config.json", token: token.clone() };
            id.map(|id| vec![id]).ok_or_else(missing)
        }
        _ => Ok(Vec::new()),
    };
    let settings = Settings {
        model: ModelKind::Bpe {
            byte_level: true,
            ignore_merges: pre.ignore_merges(),
            byte_fallback: false,
            fuse_unk: false,
            unk: None,
        },
        prefix: known(config.add_bos_token, &config.bos_token)?,
        suffix: known(config.add_eos_token, &config.eos_token)?,
        normalizer: pre.normalizer(),
        pre_tokenizer: Some(pre.splits()),
        added,
        decoding: Decoding::default(),
    };
    Tokenizer::from_parts(Parts { settings, vocab: tokens.into_vocab()?, merges, scores: Vec::new() })
}
