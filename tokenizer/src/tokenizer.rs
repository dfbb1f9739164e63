//! The tokenizer itself; `stream` adds decoding.

use crate::added::{Finder, Part, Spelled, without_marks};
use crate::model::{Model, Scratch};
use crate::parts::Parts;
use crate::pipeline::Pipeline;
use crate::settings::{Added, Settings, Stage};
use crate::vocab::{Kind, Vocab};
use crate::{TokenizerError, blob};
use std::borrow::Cow;
use std::fmt;

/// Encodes text to ids and decodes ids to text.
///
/// Made by a function of [`source`](crate::source) or from a blob. It is immutable, so threads can
/// share it.
pub struct Tokenizer {
    settings: Settings,
    vocab: Vocab,
    model: Model,
    pipeline: Pipeline,
    raw: Option<Finder>,
    normalized: Option<Finder>,
    /// Sorted.
    special_ids: Vec<u32>,
}

impl fmt::Debug for Tokenizer {
    /// A summary without the hundred thousand tokens.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (model, tokens) = (&self.settings.model, self.vocab.len());
        formatter
            .debug_struct("Tokenizer")
            .field("model", model)
            .field("tokens", &tokens)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Opens a tokenizer that [`to_blob`](Self::to_blob) wrote.
    /// Fails on damage, on another version, and on invalid content. Never panics, and allocates no
    /// more than a small multiple of the blob's length.
    pub fn from_blob(bytes: &[u8]) -> Result<Self, TokenizerError> {
        Self::from_parts(blob::read(bytes)?)
    }

    /// The tokenizer as bytes for a `.pith` file.
    pub fn to_blob(&self) -> Vec<u8> {
        blob::write(&self.settings, &self.vocab, self.model.merges(), self.model.scores())
    }

    /// The largest id plus one.
    pub fn vocab_len(&self) -> usize {
        self.vocab.len()
    }

    /// The ids of `text`; added tokens in it are recognised.
    ///
    /// With `special`, adds the ids that the source's post-processor puts around a text, such as a
    /// beginning-of-sequence token. Fails if a pattern takes too many steps or a character has no
    /// token at all.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        if !special {
            return self.encode_parts(text, Spelled::Token);
        }
        let mut ids = self.settings.prefix.clone();
        ids.extend(self.encode_parts(text, Spelled::Token)?);
        ids.extend(&self.settings.suffix);
        Ok(ids)
    }

    /// The ids of `text` as plain text: special tokens spelled in it are ordinary characters.
    ///
    /// Added tokens that are not special (runs of spaces, for example) are still recognised: they
    /// are part of the vocabulary. Use this for untrusted text.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_parts(text, Spelled::Text)
    }

    /// The id of an added token's text, or of the token spelled so in the vocabulary.
    ///
    /// Tokens of byte-level models are spelled as their bytes (` the`, not `Ġthe`).
    pub fn token_id(&self, text: &str) -> Option<u32> {
        let added = self.settings.added.iter().find(|added| added.content == text);
        added.map(|added| added.id).or_else(|| self.vocab.find(text.as_bytes()))
    }

    /// The bytes that a token adds to decoded text when it is not the first token.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.append_bytes(id, &mut bytes).then_some(bytes)
    }

    /// Whether a token is special: a mark for the model rather than text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special_ids.binary_search(&id).is_ok()
    }

    /// Ids that the post-processor puts before a text.
    pub fn prefix_ids(&self) -> &[u32] {
        &self.settings.prefix
    }

    /// Ids that the post-processor puts after a text.
    pub fn suffix_ids(&self) -> &[u32] {
        &self.settings.suffix
    }

    /// What finds added tokens in a text.
    pub(crate) fn finders(&self) -> impl Iterator<Item = &Finder> {
        self.raw.iter().chain(&self.normalized)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn has_token(&self, id: u32) -> bool {
        self.vocab.get(id).is_some()
    }

    /// Appends a token's bytes in decoded spelling; false if the id has no token.
    pub(crate) fn append_bytes(&self, id: u32, bytes: &mut Vec<u8>) -> bool {
        let Some((kind, text)) = self.vocab.get(id) else { return false };
        let replace = &self.settings.decoding.replace;
        match std::str::from_utf8(text) {
            Ok(text) if kind != Kind::Byte && !replace.is_empty() => {
                let mut text = text.to_owned();
                replace.iter().for_each(|(from, to)| text = text.replace(from.as_str(), to));
                bytes.extend(text.as_bytes());
            }
            _ => bytes.extend(text),
        }
        true
    }

    pub(crate) fn from_parts(parts: Parts) -> Result<Self, TokenizerError> {
        parts.check()?;
        let Parts { settings, vocab, merges, scores } = parts;
        let pipeline = Pipeline::new(&settings)?;
        let of = |wanted: fn(Stage) -> bool| -> Vec<Added> {
            settings.added.iter().filter(|added| wanted(added.stage)).cloned().collect()
        };
        let raw = of(|stage| stage == Stage::Raw);
        let raw_texts: Vec<String> = raw.iter().map(|added| added.content.clone()).collect();
        let (mut normalized, mut normalized_texts) = (Vec::new(), Vec::new());
        for added in of(|stage| stage != Stage::Raw) {
            let text = match added.stage {
                Stage::Frozen => added.content.clone(),
                _ => pipeline.normalize(&added.content)?,
            };
            if !text.is_empty() {
                normalized.push(added);
                normalized_texts.push(text);
            }
        }
        let mut special_ids: Vec<u32> =
            settings.added.iter().filter(|added| added.special).map(|added| added.id).collect();
        special_ids.sort_unstable();
        Ok(Self {
            model: Model::new(&settings.model, &vocab, merges, scores),
            raw: Finder::new(raw, &raw_texts)?,
            normalized: Finder::new(normalized, &normalized_texts)?,
            pipeline,
            special_ids,
            settings,
            vocab,
        })
    }

    /// The ids of `text`.
    pub(crate) fn encode_parts(&self, text: &str, spelled: Spelled) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut scratch = Scratch::default();
        let mut first = true;
        for part in split(self.raw.as_ref(), text, spelled != Spelled::Text) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => {
                    let text = self.pipeline.normalize(text)?;
                    self.encode_normalized(&text, first, spelled, &mut scratch, &mut ids)?;
                }
            }
            first = false;
        }
        Ok(ids)
    }

    fn encode_normalized(
        &self,
        text: &str,
        mut first: bool,
        spelled: Spelled,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        for part in split(self.normalized.as_ref(), text, spelled != Spelled::Text) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => {
                    let text = match spelled {
                        Spelled::TokenUnlessMarked => Cow::Owned(without_marks(text)),
                        Spelled::Token | Spelled::Text => Cow::Borrowed(text),
                    };
                    let encode = |piece: &str| self.model.encode(&self.vocab, piece, scratch, ids);
                    self.pipeline.split(&text, first, encode)?;
                }
            }
            first = false;
        }
        Ok(())
    }
}

fn split<'a>(finder: Option<&Finder>, text: &'a str, special: bool) -> Vec<Part<'a>> {
    match finder {
        Some(finder) => {
            let mut parts = Vec::new();
            finder.split(text, special, |part| parts.push(part));
            parts
        }
        None if text.is_empty() => Vec::new(),
        None => vec![Part::Text(text)],
    }
}
