//! The tokenizer itself.

use crate::added::{Finder, MAX_ADDED_BYTES, Part};
use crate::model::{Model, Scratch};
use crate::pipeline::Pipeline;
use crate::recipe::{Added, ModelKind, Recipe, Stage};
use crate::stream::Stream;
use crate::vocab::{Kind, Vocab};
use crate::{TokenizerError, blob};
use std::fmt;

/// Encodes text to ids and decodes ids to text.
///
/// Made by a function of [`source`](crate::source) or from a blob. It is immutable, so threads can
/// share it.
pub struct Tokenizer {
    recipe: Recipe,
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
        let (model, tokens) = (&self.recipe.model, self.vocab.len());
        formatter
            .debug_struct("Tokenizer")
            .field("model", model)
            .field("tokens", &tokens)
            .finish_non_exhaustive()
    }
}

/// Content of a source or a blob; [`Tokenizer::from_parts`] checks it.
pub(crate) struct Parts {
    pub recipe: Recipe,
    pub vocab: Vocab,
    /// By rank: left, right, result.
    pub merges: Vec<[u32; 3]>,
    pub scores: Vec<f64>,
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
        blob::write(&self.recipe, &self.vocab, self.model.merges(), self.model.scores())
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
            return self.encode_parts(text, true);
        }
        let mut ids = self.recipe.prefix.clone();
        ids.extend(self.encode_parts(text, true)?);
        ids.extend(&self.recipe.suffix);
        Ok(ids)
    }

    /// The ids of `text` as plain text: special tokens spelled in it are ordinary characters.
    ///
    /// Added tokens that are not special (runs of spaces, for example) are still recognised: they
    /// are part of the vocabulary. Use this for untrusted text.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_parts(text, false)
    }

    /// The text of `ids`, without the special ones if `skip_special`.
    ///
    /// Bytes that are not UTF-8 become U+FFFD. Fails on an id that has no token.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        let mut text = String::with_capacity(ids.len() * 4);
        let mut stream = self.stream().skip_special(skip_special);
        for &id in ids {
            if self.vocab.get(id).is_none() {
                return Err(TokenizerError::MissingId { place: "decode", id, vocab_len: self.vocab.len() });
            }
            stream.push_to(id, &mut text);
        }
        text.push_str(&stream.finish());
        Ok(text)
    }

    /// The id of an added token's text, or of the token spelled so in the vocabulary.
    ///
    /// Tokens of byte-level models are spelled as their bytes (` the`, not `Ġthe`).
    pub fn token_id(&self, text: &str) -> Option<u32> {
        let added = self.recipe.added.iter().find(|added| added.content == text);
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
        &self.recipe.prefix
    }

    /// Ids that the post-processor puts after a text.
    pub fn suffix_ids(&self) -> &[u32] {
        &self.recipe.suffix
    }

    /// A decoder for one id at a time. It leaves out special tokens unless [`Stream::skip_special`]
    /// says otherwise.
    pub fn stream(&self) -> Stream<'_> {
        Stream::new(self)
    }

    pub(crate) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Appends a token's bytes in decoded spelling; false if the id has no token.
    pub(crate) fn append_bytes(&self, id: u32, bytes: &mut Vec<u8>) -> bool {
        let Some((kind, text)) = self.vocab.get(id) else { return false };
        let replace = &self.recipe.decoding.replace;
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
        let Parts { recipe, vocab, merges, scores } = parts;
        check(&recipe, &vocab, &merges, &scores)?;
        let pipeline = Pipeline::new(&recipe)?;
        let of = |wanted: fn(Stage) -> bool| -> Vec<Added> {
            recipe.added.iter().filter(|added| wanted(added.stage)).cloned().collect()
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
            recipe.added.iter().filter(|added| added.special).map(|added| added.id).collect();
        special_ids.sort_unstable();
        Ok(Self {
            model: Model::new(&recipe.model, &vocab, merges, scores),
            raw: Finder::new(raw, &raw_texts)?,
            normalized: Finder::new(normalized, &normalized_texts)?,
            pipeline,
            special_ids,
            recipe,
            vocab,
        })
    }

    fn encode_parts(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut scratch = Scratch::default();
        let mut first = true;
        for part in split(self.raw.as_ref(), text, special) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => {
                    let text = self.pipeline.normalize(text)?;
                    self.encode_normalized(&text, first, special, &mut scratch, &mut ids)?;
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
        special: bool,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        for part in split(self.normalized.as_ref(), text, special) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => self
                    .pipeline
                    .split(text, first, |piece| self.model.encode(&self.vocab, piece, scratch, ids))?,
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

/// Checks everything that later code relies on.
fn check(recipe: &Recipe, vocab: &Vocab, merges: &[[u32; 3]], scores: &[f64]) -> Result<(), TokenizerError> {
    let vocab_len = vocab.len();
    if vocab_len == 0 {
        return Err(TokenizerError::malformed("vocabulary", "it is empty"));
    }
    let exists = |place: &'static str, id: u32| match vocab.get(id) {
        Some(_) => Ok(()),
        None => Err(TokenizerError::MissingId { place, id, vocab_len }),
    };
    merges.iter().flatten().try_for_each(|id| exists("merges", *id))?;
    recipe.prefix.iter().chain(&recipe.suffix).try_for_each(|id| exists("post-processor", *id))?;
    for added in &recipe.added {
        exists("added tokens", added.id)?;
        if added.content.is_empty() || added.content.len() > MAX_ADDED_BYTES {
            let reason =
                format!("token {} has {} bytes, 1 to {MAX_ADDED_BYTES} fit", added.id, added.content.len());
            return Err(TokenizerError::malformed("added tokens", reason));
        }
    }
    if recipe.decoding.replace.iter().any(|(from, to)| from.is_empty() || to.len() > from.len()) {
        return Err(TokenizerError::malformed(
            "decoder",
            "a replacement is of nothing, or is longer than what it replaces",
        ));
    }
    let (unk, expected_scores) = match recipe.model {
        ModelKind::Bpe { unk, .. } => (unk, 0),
        ModelKind::Spm { unk } | ModelKind::Unigram { unk, .. } => (unk, vocab_len),
    };
    unk.map_or(Ok(()), |id| exists("unknown token", id))?;
    if expected_scores > 0 && !merges.is_empty() {
        return Err(TokenizerError::malformed("merges", "a model of scores has none"));
    }
    if scores.len() != expected_scores {
        let reason = format!("there are {}, expected {expected_scores}", scores.len());
        return Err(TokenizerError::malformed("scores", reason));
    }
    match scores.iter().position(|score| !score.is_finite()) {
        Some(id) => {
            Err(TokenizerError::malformed("scores", format!("token {id} has the score {}", scores[id])))
        }
        None => Ok(()),
    }
}
