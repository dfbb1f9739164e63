//! Normalizing and splitting text with components of the `tokenizers` crate.

use tokenizers::normalizers::{BertNormalizer, Nmt, StripAccents};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::delimiter::CharDelimiterSplit;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::unicode_scripts::UnicodeScripts;
use tokenizers::pre_tokenizers::whitespace::{Whitespace, WhitespaceSplit};
use tokenizers::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _,
    SplitDelimiterBehavior,
};

use crate::TokenizerError;
use crate::charsmap::{CharsMap, Frozen, SpmNormalizer};
use crate::pattern::Pattern;
use crate::settings::{self, Behavior, Normalizer, PreTokenizer, Prepend, Settings, Stage};

/// Longest chain of normalizers or pre-tokenizers; the longest real one has 12.
const MAX_STEPS: usize = 64;

/// GPT-2's split pattern, which `ByteLevel` uses.
pub(crate) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Processing of text before the model sees it.
pub(crate) struct Pipeline {
    normalizers: Vec<Normalize>,
    splits: Vec<Split>,
}

enum Normalize {
    Text(fn(&mut NormalizedString)),
    /// A normalization form that leaves ASCII unchanged.
    Unicode(fn(&mut NormalizedString)),
    Strip {
        left: bool,
        right: bool,
    },
    Bert(BertNormalizer),
    Prepend(String),
    Replace(String, String),
    ReplacePattern(Pattern, String),
    Graphemes(CharsMap),
    Spm(SpmNormalizer),
}

enum Split {
    Pattern(Pattern, SplitDelimiterBehavior),
    ByteLevel { prefix: bool, pattern: Option<Pattern> },
    Digits(Digits),
    Metaspace { first: Metaspace, later: Metaspace },
    Punctuation(Punctuation),
    Delimiter(CharDelimiterSplit),
    Whitespace,
    Spaces,
    Bert,
    Scripts,
}

impl Pipeline {
    pub fn new(settings: &Settings) -> Result<Self, TokenizerError> {
        let mut pipeline = Self { normalizers: Vec::new(), splits: Vec::new() };
        let frozen = settings.added.iter().filter(|added| added.stage == Stage::Frozen);
        let frozen: Vec<String> = frozen.map(|added| added.content.clone()).collect();
        settings.normalizer.iter().try_for_each(|normalizer| pipeline.add_normalizer(normalizer, &frozen))?;
        settings.pre_tokenizer.iter().try_for_each(|pre| pipeline.add_split(pre))?;
        let splits = &pipeline.splits;
        if splits.iter().rev().skip(1).any(|split| matches!(split, Split::ByteLevel { .. })) {
            return Err(TokenizerError::Unsupported {
                place: "pre-tokenizer",
                found: "ByteLevel before another pre-tokenizer".into(),
                supported: "ByteLevel as the last one",
            });
        }
        Ok(pipeline)
    }

    /// The text in the model's spelling.
    pub fn normalize(&self, text: &str) -> Result<String, TokenizerError> {
        let mut text = text.to_owned();
        for normalizer in &self.normalizers {
            text = normalizer.apply(text)?;
        }
        Ok(text)
    }

    /// The pieces that the model encodes one by one; `first` marks the beginning of the text.
    pub fn split(
        &self,
        text: &str,
        first: bool,
        mut each: impl FnMut(&str) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        if self.splits.is_empty() {
            return each(text);
        }
        let mut pieces = PreTokenizedString::from(text);
        for split in &self.splits {
            split.apply(&mut pieces, first).map_err(|error| TokenizerError::encode(text, error))?;
        }
        let pieces = pieces.get_splits(OffsetReferential::Normalized, OffsetType::None);
        pieces.into_iter().try_for_each(|(piece, _, _)| each(piece))
    }

    fn add_normalizer(&mut self, normalizer: &Normalizer, frozen: &[String]) -> Result<(), TokenizerError> {
        if self.normalizers.len() >= MAX_STEPS {
            return Err(too_many("normalizers"));
        }
        self.normalizers.push(match normalizer {
            Normalizer::Sequence { normalizers } => {
                return normalizers.iter().try_for_each(|normalizer| self.add_normalizer(normalizer, frozen));
            }
            Normalizer::Nfc => Normalize::Unicode(|text| _ = text.nfc()),
            Normalizer::Nfd => Normalize::Unicode(|text| _ = text.nfd()),
            Normalizer::Nfkc => Normalize::Unicode(|text| _ = text.nfkc()),
            Normalizer::Nfkd => Normalize::Unicode(|text| _ = text.nfkd()),
            Normalizer::Lowercase => Normalize::Text(|text| _ = text.lowercase()),
            Normalizer::Nmt => Normalize::Text(|text| _ = Nmt.normalize(text)),
            Normalizer::StripAccents => Normalize::Text(|text| _ = StripAccents.normalize(text)),
            &Normalizer::Strip { strip_left, strip_right } => {
                Normalize::Strip { left: strip_left, right: strip_right }
            }
            &Normalizer::Bert { clean_text, handle_chinese_chars, strip_accents, lowercase } => {
                let bert = BertNormalizer::new(clean_text, handle_chinese_chars, strip_accents, lowercase);
                Normalize::Bert(bert)
            }
            Normalizer::Prepend { prepend } => Normalize::Prepend(prepend.clone()),
            Normalizer::Replace { pattern: settings::Pattern::String(text), content } if !text.is_empty() => {
                Normalize::Replace(text.clone(), content.clone())
            }
            Normalizer::Replace { pattern, content } => {
                Normalize::ReplacePattern(Pattern::new(pattern, false)?, content.clone())
            }
            Normalizer::Precompiled { precompiled_charsmap } => {
                Normalize::Graphemes(CharsMap::from_base64(precompiled_charsmap)?)
            }
            Normalizer::SentencePiece {
                precompiled_charsmap,
                add_dummy_prefix,
                remove_extra_whitespaces,
                escape_whitespaces,
                treat_whitespace_as_suffix,
            } => Normalize::Spm(SpmNormalizer {
                map: CharsMap::from_base64(precompiled_charsmap)?,
                add_dummy_prefix: *add_dummy_prefix,
                remove_extra_whitespaces: *remove_extra_whitespaces,
                escape_whitespaces: *escape_whitespaces,
                treat_whitespace_as_suffix: *treat_whitespace_as_suffix,
                frozen: Frozen::new(frozen),
            }),
        });
        Ok(())
    }

    fn add_split(&mut self, pre: &PreTokenizer) -> Result<(), TokenizerError> {
        if self.splits.len() >= MAX_STEPS {
            return Err(too_many("pre-tokenizers"));
        }
        self.splits.push(match pre {
            PreTokenizer::Sequence { pretokenizers } => {
                return pretokenizers.iter().try_for_each(|pre| self.add_split(pre));
            }
            &PreTokenizer::ByteLevel { add_prefix_space, use_regex } => {
                let gpt2 = settings::Pattern::Regex(GPT2.into());
                let pattern = use_regex.then(|| Pattern::new(&gpt2, false)).transpose()?;
                Split::ByteLevel { prefix: add_prefix_space, pattern }
            }
            PreTokenizer::Split { pattern, behavior, invert } => {
                Split::Pattern(Pattern::new(pattern, *invert)?, (*behavior).into())
            }
            &PreTokenizer::Digits { individual_digits } => Split::Digits(Digits::new(individual_digits)),
            &PreTokenizer::Metaspace { replacement, add_prefix_space, prepend_scheme, split } => {
                let (first, later) = match Prepend::resolve(prepend_scheme, add_prefix_space) {
                    Prepend::Always => (PrependScheme::Always, PrependScheme::Always),
                    Prepend::First => (PrependScheme::First, PrependScheme::Never),
                    Prepend::Never => (PrependScheme::Never, PrependScheme::Never),
                };
                Split::Metaspace {
                    first: Metaspace::new(replacement, first, split),
                    later: Metaspace::new(replacement, later, split),
                }
            }
            &PreTokenizer::Punctuation { behavior } => Split::Punctuation(Punctuation::new(behavior.into())),
            &PreTokenizer::CharDelimiterSplit { delimiter } => {
                Split::Delimiter(CharDelimiterSplit::new(delimiter))
            }
            PreTokenizer::Whitespace => Split::Whitespace,
            PreTokenizer::WhitespaceSplit => Split::Spaces,
            PreTokenizer::Bert => Split::Bert,
            PreTokenizer::UnicodeScripts => Split::Scripts,
        });
        Ok(())
    }
}

impl Normalize {
    fn apply(&self, text: String) -> Result<String, TokenizerError> {
        Ok(match self {
            Self::Unicode(_) if text.is_ascii() => text,
            Self::Text(apply) | Self::Unicode(apply) => through(text, apply),
            &Self::Strip { left, right } => {
                let text = if left { text.trim_start() } else { &text };
                if right { text.trim_end() } else { text }.to_owned()
            }
            Self::Bert(bert) => {
                let mut normalized = NormalizedString::from(text.as_str());
                bert.normalize(&mut normalized).map_err(|error| TokenizerError::encode(&text, error))?;
                normalized.get().to_owned()
            }
            Self::Prepend(_) if text.is_empty() => text,
            Self::Prepend(prefix) => format!("{prefix}{text}"),
            Self::Replace(from, to) => text.replace(from.as_str(), to),
            Self::ReplacePattern(pattern, content) => {
                pattern.replace_all(&text, content).map_err(|error| TokenizerError::encode(&text, error))?
            }
            Self::Graphemes(map) => map.replace_graphemes(&text),
            Self::Spm(normalizer) => normalizer.normalize(&text),
        })
    }
}

fn through(text: String, apply: &fn(&mut NormalizedString)) -> String {
    let mut normalized = NormalizedString::from(text);
    apply(&mut normalized);
    normalized.get().to_owned()
}

impl Split {
    fn apply(&self, pieces: &mut PreTokenizedString, first: bool) -> tokenizers::Result<()> {
        match self {
            Self::Pattern(pattern, behavior) => pieces.split(|_, piece| piece.split(pattern, *behavior)),
            Self::ByteLevel { prefix, pattern } => pieces.split(|_, mut piece| {
                if *prefix && !piece.get().starts_with(' ') {
                    piece.prepend(" ");
                }
                match pattern {
                    Some(pattern) => piece.split(pattern, SplitDelimiterBehavior::Isolated),
                    None => Ok(vec![piece]),
                }
            }),
            Self::Digits(split) => split.pre_tokenize(pieces),
            Self::Metaspace { first: split, .. } if first => split.pre_tokenize(pieces),
            Self::Metaspace { later: split, .. } => split.pre_tokenize(pieces),
            Self::Punctuation(split) => split.pre_tokenize(pieces),
            Self::Delimiter(split) => split.pre_tokenize(pieces),
            Self::Whitespace => Whitespace.pre_tokenize(pieces),
            Self::Spaces => WhitespaceSplit.pre_tokenize(pieces),
            Self::Bert => BertPreTokenizer.pre_tokenize(pieces),
            Self::Scripts => UnicodeScripts::new().pre_tokenize(pieces),
        }
    }
}

impl From<Behavior> for SplitDelimiterBehavior {
    fn from(behavior: Behavior) -> Self {
        match behavior {
            Behavior::Removed => Self::Removed,
            Behavior::Isolated => Self::Isolated,
            Behavior::MergedWithPrevious => Self::MergedWithPrevious,
            Behavior::MergedWithNext => Self::MergedWithNext,
            Behavior::Contiguous => Self::Contiguous,
        }
    }
}

fn too_many(what: &str) -> TokenizerError {
    TokenizerError::malformed("tokenizer settings", format!("more than {MAX_STEPS} {what}"))
}
