//! The vocabulary of a GGUF file.

use std::collections::HashMap;

use super::{PreTokenizer, TokenList, bytes};
use crate::parts::Parts;
use crate::settings::{Added, Decoding, Leading, ModelKind, Normalizer, Pattern, Settings, Stage};
use crate::vocab::Kind;
use crate::{Tokenizer, TokenizerError};

const PLACE: &str = "GGUF vocabulary";

/// Token types by GGUF's numbers.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// The `tokenizer.ggml.*` values of a GGUF file, each named by the last part of its key.
#[derive(Clone, Copy, Debug, Default)]
pub struct GgufVocab<'a> {
    /// `model`: `llama` (sentencepiece BPE) or `gpt2` (byte-level BPE).
    pub model: &'a str,
    /// `pre`: the pre-tokenizer's name, for `gpt2`.
    pub pre: Option<&'a str>,
    /// `tokens`.
    pub tokens: &'a [String],
    /// `scores`: one for each token, for `llama`.
    pub scores: &'a [f32],
    /// `token_type`: one for each token, or none at all.
    pub token_types: &'a [i32],
    /// `merges`: two tokens with a space between them, for `gpt2`.
    pub merges: &'a [String],
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `unknown_token_id`.
    pub unk: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// White space after a special token is dropped. GGUF has no key for it; Phi-3's tokens are
    /// such.
    pub strips_after_special: bool,
}

/// Spellings of tokens that end a turn or a text. GGUF files often name only one of theirs by a
/// key.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<turn|>",
    "<|tool_response>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "[e~[",
];

/// Phi-3's tokens that keep the white space after them.
const KEEP_SPACE: &[&str] = &["<unk>", "<s>", "<|endoftext|>"];

/// The ids of the tokens that end a turn or a text, by their spelling, as llama.cpp finds them.
pub fn ends_by_name(tokens: &[impl AsRef<str>]) -> Vec<u32> {
    let has = |name: &str| tokens.iter().any(|token| token.as_ref() == name);
    // Beside these, `<|end|>` ends a message within a turn, and `</s>` is ordinary text.
    let is_message_end =
        (has("<|return|>") && has("<|call|>")) || ((has("<|call|>") || has("<|calls|>")) && has("<|flush|>"));
    let is_text = has("<|tool_response>") || has("<|plamo:eos|>");
    let ends = tokens.iter().enumerate().filter(|(_, token)| match token.as_ref() {
        "<|end|>" => !is_message_end,
        "</s>" => !is_text,
        name => ENDS.contains(&name),
    });
    ends.map(|(id, _)| id as u32).collect()
}

/// Makes the tokenizer that llama.cpp makes of the same values.
pub fn from_gguf(vocab: &GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
    for (what, len, needed) in [
        ("token types", vocab.token_types.len(), !vocab.token_types.is_empty()),
        ("scores", vocab.scores.len(), vocab.model == "llama"),
    ] {
        if needed && len != vocab.tokens.len() {
            let reason = format!("there are {len} {what}, expected {}", vocab.tokens.len());
            return Err(TokenizerError::malformed(PLACE, reason));
        }
    }
    match vocab.model {
        "llama" => llama(vocab),
        "gpt2" => gpt2(vocab),
        other => Err(TokenizerError::Unsupported {
            place: "tokenizer.ggml.model",
            found: other.into(),
            supported: "llama and gpt2",
        }),
    }
}

impl GgufVocab<'_> {
    fn token_type(&self, id: usize) -> i32 {
        self.token_types.get(id).copied().unwrap_or(1)
    }

    /// Control, unknown and user-defined tokens are found in text before the model sees it.
    fn added(&self) -> Vec<Added> {
        let ends = ends_by_name(self.tokens);
        let tokens = self.tokens.iter().enumerate().filter(|(_, token)| !token.is_empty());
        let added = tokens.filter_map(|(id, content)| {
            let kind = self.token_type(id);
            let id = id as u32;
            let special = matches!(kind, CONTROL | UNKNOWN)
                || [self.bos, self.eos].contains(&Some(id))
                || ends.contains(&id);
            let strips = self.strips_after_special && !KEEP_SPACE.contains(&content.as_str());
            (special || kind == USER_DEFINED).then(|| Added {
                id,
                content: content.clone(),
                single_word: false,
                lstrip: false,
                rstrip: strips,
                stage: Stage::Raw,
                special,
            })
        });
        added.collect()
    }

    /// Ids around a text, with the model's defaults for missing flags.
    fn frame(&self, add_bos: bool, add_eos: bool) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
        let one = |wanted: bool, id: Option<u32>, name: &str| match id {
            Some(id) if wanted => Ok(vec![id]),
            None if wanted => {
                Err(TokenizerError::malformed(PLACE, format!("{name} is to be added but has no id")))
            }
            _ => Ok(Vec::new()),
        };
        Ok((
            one(self.add_bos.unwrap_or(add_bos && self.bos.is_some()), self.bos, "the bos token")?,
            one(self.add_eos.unwrap_or(add_eos && self.eos.is_some()), self.eos, "the eos token")?,
        ))
    }
}

fn llama(vocab: &GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
    let mut tokens = TokenList::new(PLACE, vocab.tokens.len());
    for (id, token) in vocab.tokens.iter().enumerate() {
        match bytes::from_hex(token) {
            Some(byte) if vocab.token_type(id) == BYTE => tokens.put(id as u64, Kind::Byte, &[byte])?,
            _ => tokens.put(id as u64, Kind::Text, token.as_bytes())?,
        }
    }
    let space_prefix = vocab.add_space_prefix.unwrap_or(true);
    let escape = Normalizer::Replace { pattern: Pattern::String(" ".into()), content: "▁".into() };
    let prefix_space = space_prefix.then(|| Normalizer::Prepend { prepend: "▁".into() });
    let (prefix, suffix) = vocab.frame(true, false)?;
    let settings = Settings {
        model: ModelKind::Spm { unk: vocab.unk.or_else(|| (!vocab.tokens.is_empty()).then_some(0)) },
        normalizer: Some(Normalizer::Sequence {
            normalizers: prefix_space.into_iter().chain([escape]).collect(),
        }),
        pre_tokenizer: None,
        added: vocab.added(),
        prefix,
        suffix,
        decoding: Decoding {
            replace: vec![("▁".into(), " ".into())],
            leading: Leading::Strip { character: ' ', count: space_prefix.into() },
            ..Decoding::default()
        },
    };
    let scores = vocab.scores.iter().map(|score| f64::from(*score)).collect();
    Tokenizer::from_parts(Parts { settings, vocab: tokens.into_vocab()?, merges: Vec::new(), scores })
}

fn gpt2(vocab: &GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
    let pre = PreTokenizer::named(vocab.pre.unwrap_or("default"))?;
    let added = vocab.added();
    let mut tokens = TokenList::new(PLACE, vocab.tokens.len());
    let mut ids = HashMap::with_capacity(vocab.tokens.len());
    for (id, token) in vocab.tokens.iter().enumerate() {
        let plain = matches!(vocab.token_type(id), CONTROL | USER_DEFINED);
        match bytes::from_alphabet(token) {
            Some(text) if !plain => tokens.put(id as u64, Kind::Text, &text)?,
            _ => tokens.put(id as u64, Kind::Literal, token.as_bytes())?,
        }
        ids.entry(token.as_str()).or_insert(id as u32);
    }
    let id = |token: &str| {
        ids.get(token)
            .copied()
            .ok_or_else(|| TokenizerError::MissingToken { place: "GGUF merges", token: token.into() })
    };
    let mut merges = Vec::with_capacity(vocab.merges.len());
    for merge in vocab.merges {
        // A token may begin with a space, so the first character is never the separator.
        let from = merge.chars().next().map_or(0, char::len_utf8);
        let space = merge[from..].find(' ').map_or(merge.len(), |at| at + from);
        let (left, right) = (&merge[..space], merge.get(space + 1..).unwrap_or(""));
        merges.push([id(left)?, id(right)?, id(&format!("{left}{right}"))?]);
    }
    let (prefix, suffix) = vocab.frame(pre.add_bos(), false)?;
    let settings = Settings {
        model: ModelKind::Bpe {
            byte_level: true,
            ignore_merges: pre.ignore_merges(),
            byte_fallback: false,
            fuse_unk: false,
            unk: None,
        },
        normalizer: None,
        pre_tokenizer: Some(pre.splits()),
        added,
        prefix,
        suffix,
        decoding: Decoding::default(),
    };
    Tokenizer::from_parts(Parts { settings, vocab: tokens.into_vocab()?, merges, scores: Vec::new() })
}
