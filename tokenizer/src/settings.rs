//! The tokenizer's settings: behaviour as data, read from a source and kept in the blob as JSON.
//!
//! Normalizers and pre-tokenizers are spelled as in `tokenizer.json`, so one set of types reads
//! both.

use serde::{Deserialize, Serialize};

/// Everything about a tokenizer except its tokens, merges and scores.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub model: ModelKind,
    #[serde(default)]
    pub normalizer: Option<Normalizer>,
    #[serde(default)]
    pub pre_tokenizer: Option<PreTokenizer>,
    #[serde(default)]
    pub added: Vec<Added>,
    /// Ids that the post-processor puts before the text.
    #[serde(default)]
    pub prefix: Vec<u32>,
    /// Ids that the post-processor puts after the text.
    #[serde(default)]
    pub suffix: Vec<u32>,
    #[serde(default)]
    pub decoding: Decoding,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum ModelKind {
    /// Merges pairs in rank order.
    Bpe {
        /// Tokens are bytes, not characters.
        byte_level: bool,
        /// A piece that is itself a token is not split, whatever the merges say.
        ignore_merges: bool,
        byte_fallback: bool,
        fuse_unk: bool,
        unk: Option<u32>,
    },
    /// Merges neighbours by the score of the resulting token, as sentencepiece does.
    Spm { unk: Option<u32> },
    /// Finds the token sequence with the largest sum of scores.
    Unigram {
        unk: Option<u32>,
        byte_fallback: bool,
        /// Rounds sums to single precision, as sentencepiece does.
        single_precision: bool,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Normalizer {
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
    Nmt,
    Lowercase,
    StripAccents,
    #[serde(alias = "StripNormalizer")]
    Strip {
        strip_left: bool,
        strip_right: bool,
    },
    #[serde(rename = "BertNormalizer")]
    Bert {
        clean_text: bool,
        handle_chinese_chars: bool,
        strip_accents: Option<bool>,
        lowercase: bool,
    },
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    /// sentencepiece's character map, applied to graphemes as Hugging Face does.
    Precompiled {
        precompiled_charsmap: String,
    },
    /// sentencepiece's own normalizer: the character map and its rules for spaces.
    SentencePiece {
        precompiled_charsmap: String,
        add_dummy_prefix: bool,
        remove_extra_whitespaces: bool,
        escape_whitespaces: bool,
        treat_whitespace_as_suffix: bool,
    },
    Sequence {
        normalizers: Vec<Normalizer>,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Pattern {
    String(String),
    Regex(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum PreTokenizer {
    ByteLevel {
        #[serde(default)]
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Split {
        pattern: Pattern,
        behavior: Behavior,
        #[serde(default)]
        invert: bool,
    },
    Digits {
        #[serde(default)]
        individual_digits: bool,
    },
    Metaspace {
        replacement: char,
        #[serde(default)]
        add_prefix_space: Option<bool>,
        #[serde(default)]
        prepend_scheme: Option<Prepend>,
        #[serde(default = "yes")]
        split: bool,
    },
    Punctuation {
        #[serde(default)]
        behavior: Behavior,
    },
    CharDelimiterSplit {
        delimiter: char,
    },
    Whitespace,
    WhitespaceSplit,
    #[serde(rename = "BertPreTokenizer")]
    Bert,
    UnicodeScripts,
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) enum Behavior {
    Removed,
    #[default]
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// When to put a space mark before a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Prepend {
    First,
    Never,
    Always,
}

impl Prepend {
    /// The scheme that the fields of two generations of `tokenizer.json` express together.
    pub fn resolve(scheme: Option<Self>, add_prefix_space: Option<bool>) -> Self {
        match (scheme, add_prefix_space) {
            (_, Some(false)) => Self::Never,
            (scheme, _) => scheme.unwrap_or(Self::Always),
        }
    }
}

/// A token found in the text before the model sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Added {
    pub id: u32,
    pub content: String,
    #[serde(default)]
    pub single_word: bool,
    #[serde(default)]
    pub lstrip: bool,
    #[serde(default)]
    pub rstrip: bool,
    #[serde(default)]
    pub stage: Stage,
    #[serde(default)]
    pub special: bool,
}

/// The text in which an added token is searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// The text as given.
    #[default]
    Raw,
    /// The normalized text; the token's own text is normalized too.
    Normalized,
    /// The normalized text; the token's text stays as it is: sentencepiece's user-defined symbols.
    Frozen,
}

/// How tokens become text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Decoding {
    /// Separator between two tokens.
    #[serde(default)]
    pub separator: String,
    /// Replacements within each token.
    #[serde(default)]
    pub replace: Vec<(String, String)>,
    #[serde(default)]
    pub leading: Leading,
}

/// Removal at the beginning of the text.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) enum Leading {
    #[default]
    Keep,
    /// Up to `count` occurrences of this character.
    Strip { character: char, count: u32 },
    /// This character, wherever it occurs in the first token.
    FirstToken { character: char },
}
