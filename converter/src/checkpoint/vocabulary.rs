//! Tokenizer and chat template of a checkpoint.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use pith_format::{ModelConfig, Sampling};
use pith_tokenizer::source::{
    AddedToken, GgufVocab, PreTokenizer, TokenizerConfig, from_gguf, from_sentencepiece, from_tokenizer_json,
    from_vocab_and_merges,
};
use pith_tokenizer::{Tokenizer, TokenizerError};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::checkpoint::families::{stated_sampling, strips_after_special};
use crate::checkpoint::{Checkpoint, CheckpointError, GgufMetadata, TokenizerFiles, TokenizerSource};

/// Limit for a vocabulary file; the largest known one has 35 MB.
const FILE_LIMIT: u64 = 256 << 20;

/// Contents of the file besides the weights.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    /// The tokenizer as a blob.
    pub(crate) tokenizer: Option<Vec<u8>>,
    pub(crate) chat_template: Option<String>,
    pub(crate) sampling: Option<Sampling>,
}

impl Vocabulary {
    /// What belongs to `model`.
    pub(crate) fn of(
        checkpoint: &Checkpoint,
        model: &ModelConfig,
        warnings: &mut Vec<String>,
    ) -> Result<Self, CheckpointError> {
        let vocab_len = model.vocab_len;
        let (tokenizer, chat_template) = match checkpoint.tokenizer_files()? {
            TokenizerSource::Files(files) => (
                from_files(&files).map_err(failed(checkpoint.path()))?,
                files.chat_template().map(str::to_string),
            ),
            TokenizerSource::Gguf(metadata) => {
                let template = metadata.get::<&str>("tokenizer.chat_template")?;
                (from_metadata(checkpoint, metadata)?, template.map(str::to_string))
            }
        };
        match &tokenizer {
            None => {
                warnings.push("the checkpoint has no tokenizer: the file will take token ids only".into())
            }
            Some(tokenizer) if tokenizer.vocab_len() > vocab_len => warnings.push(format!(
                "the tokenizer knows {} tokens, the model {vocab_len}: it cannot read the rest",
                tokenizer.vocab_len()
            )),
            Some(_) => {}
        }
        let sampling = stated_sampling(checkpoint, model.context_len, warnings)?;
        Ok(Self { tokenizer: tokenizer.map(|tokenizer| tokenizer.to_blob()), chat_template, sampling })
    }
}

/// The tokenizer of a checkpoint, of a folder or GGUF file that holds only a vocabulary, or of a
/// single `tokenizer.json` or sentencepiece `tokenizer.model`.
pub fn load_tokenizer(source: &Path) -> Result<Tokenizer, CheckpointError> {
    let missing = || CheckpointError::NoTokenizer { path: source.into() };
    if source.is_dir() {
        let files = TokenizerFiles::read(source)?;
        return from_files(&files).map_err(failed(source))?.ok_or_else(missing);
    }
    let bytes = match first_bytes(source)?.as_slice() {
        b"GGUF" => {
            let checkpoint = Checkpoint::open(source)?;
            let metadata = checkpoint.metadata().ok_or_else(missing)?;
            return from_metadata(&checkpoint, metadata)?.ok_or_else(missing);
        }
        _ => read(source)?,
    };
    // A sentencepiece model begins with the tag of its first piece, 0x0a, and the piece's length.
    let is_json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let tokenizer = if is_json {
        from_tokenizer_json(&bytes)
    } else {
        from_sentencepiece(&bytes, &TokenizerConfig::default())
    };
    tokenizer.map_err(failed(source))
}

fn failed(path: &Path) -> impl Fn(TokenizerError) -> CheckpointError {
    move |source| CheckpointError::Tokenizer { path: path.into(), source }
}

fn first_bytes(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let opened = |source| CheckpointError::Open { path: path.into(), source };
    // Opening a pipe would block until it has a writer.
    if !fs::metadata(path).map_err(opened)?.is_file() {
        return Err(CheckpointError::NotAFile { path: path.into() });
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(4).read_to_end(&mut bytes)).map_err(opened)?;
    Ok(bytes)
}

fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let mut bytes = Vec::new();
    let opened = |source| CheckpointError::Open { path: path.into(), source };
    let found = fs::metadata(path).map_err(opened)?.len();
    if found > FILE_LIMIT {
        return Err(CheckpointError::Limit {
            path: path.into(),
            what: "size in bytes",
            limit: FILE_LIMIT,
            found,
        });
    }
    File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut bytes)).map_err(opened)?;
    Ok(bytes)
}

/// The tokenizer of a Hugging Face folder, from the most exact of its descriptions.
fn from_files(files: &TokenizerFiles) -> Result<Option<Tokenizer>, TokenizerError> {
    if let Some(json) = &files.tokenizer_json {
        return from_tokenizer_json(json.as_bytes()).map(Some);
    }
    if let Some(model) = &files.tokenizer_model {
        return from_sentencepiece(model, &configuration(files)?).map(Some);
    }
    let (Some(vocab), Some(merges)) = (&files.vocab_json, &files.merges_txt) else { return Ok(None) };
    let pre = PreTokenizer::named(pre_tokenizer(vocab))?;
    from_vocab_and_merges(vocab.as_bytes(), merges.as_bytes(), &pre, &configuration(files)?).map(Some)
}

/// The pre-tokenizer of a vocabulary. Neither `vocab.json` nor `merges.txt` names it, but the
/// tokens show it: a rule that separates every digit, as Qwen2's, leaves no token of two digits;
/// Llama 3's leaves none of four.
fn pre_tokenizer(vocab_json: &str) -> &'static str {
    let tokens: HashMap<String, IgnoredAny> = serde_json::from_str(vocab_json).unwrap_or_default();
    let digits = |token: &String| token.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
    match tokens.keys().filter_map(digits).max() {
        Some(1) => "qwen2",
        Some(2 | 3) => "llama-bpe",
        _ => "gpt-2",
    }
}

/// `tokenizer_config.json`, completed from the older files.
fn configuration(files: &TokenizerFiles) -> Result<TokenizerConfig, TokenizerError> {
    let mut config = match &files.tokenizer_config {
        Some(value) => TokenizerConfig::from_json(value.to_string().as_bytes())?,
        None => TokenizerConfig::default(),
    };
    let special = files.special_tokens_map.as_ref();
    let named = |key: &str| {
        let token = special?.get(key)?;
        token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_string)
    };
    for (token, key) in [
        (&mut config.bos_token, "bos_token"),
        (&mut config.eos_token, "eos_token"),
        (&mut config.unk_token, "unk_token"),
    ] {
        if token.is_none() {
            *token = named(key);
        }
    }
    for (content, id) in files.added_tokens.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else { continue };
        if config.added_tokens.iter().all(|token| token.id != id) {
            let special = [&config.bos_token, &config.eos_token, &config.unk_token]
                .iter()
                .any(|token| token.as_deref() == Some(content));
            let content = content.clone();
            config.added_tokens.push(AddedToken { id, content, special, ..AddedToken::default() });
        }
    }
    Ok(config)
}

/// The tokenizer of a GGUF file; `None` where it has none, or declares none.
fn from_metadata(
    checkpoint: &Checkpoint,
    metadata: &GgufMetadata,
) -> Result<Option<Tokenizer>, CheckpointError> {
    let Some(model) = metadata.get::<&str>("tokenizer.ggml.model")? else { return Ok(None) };
    if ["none", "no_vocab"].contains(&model) {
        return Ok(None);
    }
    let strings = |key: &str| -> Result<Vec<String>, CheckpointError> {
        let strings = metadata.get::<Vec<&str>>(key)?.unwrap_or_default();
        Ok(strings.into_iter().map(str::to_string).collect())
    };
    if model == "gpt2" && metadata.get::<Vec<&str>>("tokenizer.ggml.merges")?.is_none() {
        let (path, key) = (checkpoint.path().into(), "tokenizer.ggml.merges".into());
        return Err(CheckpointError::MissingKey { path, key, expected: "the merges of its tokenizer" });
    }
    let vocab = GgufVocab {
        model,
        pre: metadata.get("tokenizer.ggml.pre")?,
        tokens: &strings("tokenizer.ggml.tokens")?,
        scores: &metadata.get::<Vec<f32>>("tokenizer.ggml.scores")?.unwrap_or_default(),
        token_types: &metadata.get::<Vec<i32>>("tokenizer.ggml.token_type")?.unwrap_or_default(),
        merges: &strings("tokenizer.ggml.merges")?,
        bos: metadata.get("tokenizer.ggml.bos_token_id")?,
        eos: metadata.get("tokenizer.ggml.eos_token_id")?,
        unk: metadata.get("tokenizer.ggml.unknown_token_id")?,
        add_bos: metadata.get("tokenizer.ggml.add_bos_token")?,
        add_eos: metadata.get("tokenizer.ggml.add_eos_token")?,
        add_space_prefix: metadata.get("tokenizer.ggml.add_space_prefix")?,
        strips_after_special: model == "llama"
            && metadata.get("general.architecture")?.is_some_and(strips_after_special),
    };
    from_gguf(&vocab).map(Some).map_err(failed(checkpoint.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_give_the_pre_tokenizer_away() {
        assert_eq!(pre_tokenizer(r#"{"a": 0, "1": 1, "x7y8": 2}"#), "qwen2");
        assert_eq!(pre_tokenizer(r#"{"12": 0, "123": 1}"#), "llama-bpe");
        assert_eq!(pre_tokenizer(r#"{"2019": 0}"#), "gpt-2");
        assert_eq!(pre_tokenizer(r#"{"a": 0}"#), "gpt-2");
        assert_eq!(pre_tokenizer("{"), "gpt-2");
    }

    #[test]
    fn files_are_told_apart_by_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer");
        let message = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            load_tokenizer(&path).err().unwrap().to_string()
        };
        assert!(message(b" {").contains("tokenizer.json"), "{}", message(b" {"));
        assert!(message(b"GGUF").contains("version"), "{}", message(b"GGUF"));
        assert!(message(b"\x0a\xff").contains("sentencepiece"), "{}", message(b"\x0a\xff"));
        fs::remove_file(&path).unwrap();
        assert!(matches!(load_tokenizer(folder.path()), Err(CheckpointError::NoTokenizer { .. })));
        assert!(matches!(load_tokenizer(&path), Err(CheckpointError::Open { .. })));
    }
}
