//! Hugging Face's `tokenizer.json`.

use std::collections::HashMap;

use serde::Deserialize;

use super::{TokenList, bytes};
use crate::parts::Parts;
use crate::settings::{
    Added, Decoding, Leading, ModelKind, Normalizer, Pattern, PreTokenizer, Prepend, Settings, Stage,
};
use crate::vocab::Kind;
use crate::{Tokenizer, TokenizerError};

const PLACE: &str = "tokenizer.json";

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<FileToken>,
    #[serde(default)]
    normalizer: Option<Normalizer>,
    #[serde(default)]
    pre_tokenizer: Option<PreTokenizer>,
    #[serde(default)]
    post_processor: Option<PostProcessor>,
    #[serde(default)]
    decoder: Option<Decoder>,
    model: Model,
}

#[derive(Deserialize)]
struct FileToken {
    id: u32,
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

#[derive(Deserialize)]
struct Model {
    /// Old files lack it: the other fields decide.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    vocab: VocabField,
    #[serde(default)]
    merges: Option<Vec<Merge>>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    unk_id: Option<u32>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: Option<bool>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum VocabField {
    Ids(HashMap<String, u32>),
    Scores(Vec<(String, f64)>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PostProcessor {
    ByteLevel {},
    TemplateProcessing { single: Vec<Piece>, special_tokens: HashMap<String, TemplateToken> },
    RobertaProcessing { sep: (String, u32), cls: (String, u32) },
    BertProcessing { sep: (String, u32), cls: (String, u32) },
    Sequence { processors: Vec<PostProcessor> },
}

#[derive(Deserialize)]
enum Piece {
    Sequence { id: String },
    SpecialToken { id: String },
}

#[derive(Deserialize)]
struct TemplateToken {
    ids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Decoder {
    ByteLevel {},
    ByteFallback {},
    Fuse {},
    Replace {
        pattern: Pattern,
        content: String,
    },
    Strip {
        content: char,
        start: u32,
        stop: u32,
    },
    Metaspace {
        replacement: char,
        #[serde(default)]
        add_prefix_space: Option<bool>,
        #[serde(default)]
        prepend_scheme: Option<Prepend>,
    },
    Sequence {
        decoders: Vec<Decoder>,
    },
}

/// Reads a `tokenizer.json` with a BPE or unigram model.
pub fn from_tokenizer_json(bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
    let file: File =
        serde_json::from_slice(bytes).map_err(|error| TokenizerError::malformed(PLACE, error))?;
    let byte_level = file.pre_tokenizer.as_ref().is_some_and(is_byte_level);
    let mut reading = DecoderReading::default();
    match &file.decoder {
        Some(decoder) => reading.add(decoder)?,
        // Without a decoder, Hugging Face joins tokens with spaces.
        None => reading.decoding.separator = " ".into(),
    }
    let bytes_in_text = reading.byte_fallback || file.model.byte_fallback.unwrap_or(false);
    let spelling = Spelling { byte_level, byte_level_text: reading.byte_level, hex_bytes: bytes_in_text };
    let parts = match (file.model.kind.as_deref(), &file.model.vocab) {
        (Some("BPE") | None, VocabField::Ids(_)) if file.model.merges.is_some() => {
            bpe(file.model, &file.added_tokens, &spelling)?
        }
        (Some("Unigram") | None, VocabField::Scores(_)) => {
            unigram(file.model, &file.added_tokens, &spelling)?
        }
        (kind, _) => {
            return Err(TokenizerError::Unsupported {
                place: PLACE,
                found: format!("model {}", kind.unwrap_or("without a type, merges or scores")),
                supported: "BPE with vocab and merges, and Unigram",
            });
        }
    };
    let Read { model, tokens, ids, merges, scores } = parts;
    let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
    file.post_processor.iter().try_for_each(|processor| frame(processor, &mut prefix, &mut suffix))?;
    let added = file.added_tokens.into_iter().map(|token| Added {
        id: ids.get(&token.content).copied().unwrap_or(token.id),
        content: token.content,
        single_word: token.single_word,
        lstrip: token.lstrip,
        rstrip: token.rstrip,
        stage: if token.normalized { Stage::Normalized } else { Stage::Raw },
        special: token.special,
    });
    let added = added.filter(|added| !added.content.is_empty()).collect();
    let settings = Settings {
        model,
        normalizer: file.normalizer,
        pre_tokenizer: file.pre_tokenizer,
        added,
        prefix,
        suffix,
        decoding: reading.decoding,
    };
    Tokenizer::from_parts(Parts { settings, vocab: tokens.into_vocab()?, merges, scores })
}

/// A parsed model; `ids` has the model's own tokens.
struct Read {
    model: ModelKind,
    tokens: TokenList,
    ids: HashMap<String, u32>,
    merges: Vec<[u32; 3]>,
    scores: Vec<f64>,
}

/// Spelling of bytes in tokens.
struct Spelling {
    /// The model works on bytes.
    byte_level: bool,
    /// The decoder takes tokens as bytes.
    byte_level_text: bool,
    /// `<0x0A>` stands for a byte.
    hex_bytes: bool,
}

impl Spelling {
    /// A token of the model.
    fn model_token(&self, token: &str) -> (Kind, Vec<u8>) {
        match (self.byte_level, bytes::from_alphabet(token), bytes::from_hex(token)) {
            (true, Some(text), _) => (Kind::Text, text),
            (true, None, _) => (Kind::Literal, token.into()),
            (false, _, Some(byte)) if self.hex_bytes => (Kind::Byte, vec![byte]),
            (false, ..) => (Kind::Text, token.into()),
        }
    }

    /// A token outside the model's vocabulary.
    fn added_token(&self, token: &str) -> (Kind, Vec<u8>) {
        let mapped = if self.byte_level_text { bytes::from_alphabet(token) } else { None };
        (Kind::Literal, mapped.unwrap_or_else(|| token.into()))
    }
}

fn bpe(model: Model, added: &[FileToken], spelling: &Spelling) -> Result<Read, TokenizerError> {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let unsupported = |found: &str| TokenizerError::Unsupported {
        place: PLACE,
        found: found.into(),
        supported: "BPE without dropout, continuing_subword_prefix and end_of_word_suffix",
    };
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err(unsupported("dropout"));
    }
    if given(&model.continuing_subword_prefix) || given(&model.end_of_word_suffix) {
        return Err(unsupported("a subword prefix or suffix"));
    }
    let VocabField::Ids(ids) = model.vocab else { unreachable!("matched by the caller") };
    let mut tokens = TokenList::new(PLACE, ids.len() + added.len());
    for (token, id) in &ids {
        let (kind, text) = spelling.model_token(token);
        tokens.put(u64::from(*id), kind, &text)?;
    }
    put_added(&mut tokens, &ids, added, spelling)?;
    let unk = match model.unk_token {
        Some(unk) => {
            Some(*ids.get(&unk).ok_or(TokenizerError::MissingToken { place: "unk_token", token: unk })?)
        }
        None => None,
    };
    let pairs = model.merges.unwrap_or_default();
    let pairs = pairs.iter().map(|merge| match merge {
        Merge::Text(text) => text.split_once(' ').unwrap_or((text, "")),
        Merge::Pair(left, right) => (left.as_str(), right.as_str()),
    });
    let merges = merge_ids(&ids, pairs)?;
    let kind = ModelKind::Bpe {
        byte_level: spelling.byte_level,
        ignore_merges: model.ignore_merges.unwrap_or(false),
        byte_fallback: model.byte_fallback.unwrap_or(false),
        fuse_unk: model.fuse_unk.unwrap_or(false),
        unk,
    };
    Ok(Read { model: kind, tokens, ids, merges, scores: Vec::new() })
}

/// The merges as ids. Of two merges of one pair the later counts, as in Hugging Face's map.
pub(super) fn merge_ids<'a>(
    ids: &HashMap<String, u32>,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<[u32; 3]>, TokenizerError> {
    let id = |token: &str| {
        ids.get(token)
            .copied()
            .ok_or_else(|| TokenizerError::MissingToken { place: "merges", token: token.into() })
    };
    let mut merges = Vec::with_capacity(pairs.size_hint().0);
    let mut last = HashMap::new();
    let mut joined = String::new();
    for (left, right) in pairs {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let merge = [id(left)?, id(right)?, id(&joined)?];
        last.insert((merge[0], merge[1]), merges.len());
        merges.push(merge);
    }
    if last.len() < merges.len() {
        let mut index = 0;
        merges.retain(|merge| {
            index += 1;
            last[&(merge[0], merge[1])] == index - 1
        });
    }
    Ok(merges)
}

fn unigram(model: Model, added: &[FileToken], spelling: &Spelling) -> Result<Read, TokenizerError> {
    let VocabField::Scores(vocab) = model.vocab else { unreachable!("matched by the caller") };
    let mut tokens = TokenList::new(PLACE, vocab.len() + added.len());
    let mut scores = Vec::with_capacity(vocab.len());
    let mut ids = HashMap::with_capacity(vocab.len());
    for (id, (token, score)) in (0u32..).zip(vocab) {
        let (kind, text) = match spelling.model_token(&token) {
            // The unknown token is a last resort and never a match.
            (_, text) if model.unk_id == Some(id) => (Kind::Literal, text),
            (kind, text) => (kind, text),
        };
        tokens.put(u64::from(id), kind, &text)?;
        scores.push(score);
        ids.insert(token, id);
    }
    put_added(&mut tokens, &ids, added, spelling)?;
    // Added tokens beyond the model have no score and never match.
    let lowest = scores.iter().copied().fold(0.0, f64::min);
    scores.resize(tokens.tokens.len(), lowest);
    let byte_fallback = model.byte_fallback.unwrap_or(false);
    let kind = ModelKind::Unigram { unk: model.unk_id, byte_fallback, single_precision: false };
    Ok(Read { model: kind, tokens, ids, merges: Vec::new(), scores })
}

fn put_added(
    tokens: &mut TokenList,
    ids: &HashMap<String, u32>,
    added: &[FileToken],
    spelling: &Spelling,
) -> Result<(), TokenizerError> {
    added.iter().filter(|token| !ids.contains_key(&token.content)).try_for_each(|token| {
        let (kind, text) = spelling.added_token(&token.content);
        tokens.put(u64::from(token.id), kind, &text)
    })
}

fn is_byte_level(pre: &PreTokenizer) -> bool {
    match pre {
        PreTokenizer::ByteLevel { .. } => true,
        PreTokenizer::Sequence { pretokenizers } => pretokenizers.iter().any(is_byte_level),
        _ => false,
    }
}

/// Adds the tokens that a post-processor puts around a single text.
fn frame(
    processor: &PostProcessor,
    prefix: &mut Vec<u32>,
    suffix: &mut Vec<u32>,
) -> Result<(), TokenizerError> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    match processor {
        PostProcessor::ByteLevel {} => {}
        PostProcessor::RobertaProcessing { sep, cls } | PostProcessor::BertProcessing { sep, cls } => {
            before.push(cls.1);
            after.push(sep.1);
        }
        PostProcessor::Sequence { processors } => {
            return processors.iter().try_for_each(|processor| frame(processor, prefix, suffix));
        }
        PostProcessor::TemplateProcessing { single, special_tokens } => {
            let mut texts = 0;
            for piece in single {
                match piece {
                    Piece::Sequence { id } if id == "A" => texts += 1,
                    Piece::Sequence { id } => {
                        return Err(TokenizerError::malformed(
                            "post-processor",
                            format!("sequence {id:?} in `single`"),
                        ));
                    }
                    Piece::SpecialToken { id } => {
                        let token = special_tokens.get(id);
                        let place = "post-processor";
                        let token =
                            token.ok_or_else(|| TokenizerError::MissingToken { place, token: id.clone() })?;
                        if texts == 0 { &mut before } else { &mut after }.extend(&token.ids);
                    }
                }
            }
            if texts != 1 {
                return Err(TokenizerError::malformed(
                    "post-processor",
                    format!("the text stands {texts} times in it"),
                ));
            }
        }
    }
    before.append(prefix);
    *prefix = before;
    suffix.append(&mut after);
    Ok(())
}

/// Combined effect of a chain of decoders.
#[derive(Default)]
struct DecoderReading {
    decoding: Decoding,
    byte_level: bool,
    byte_fallback: bool,
    fused: bool,
}

impl DecoderReading {
    fn add(&mut self, decoder: &Decoder) -> Result<(), TokenizerError> {
        let unsupported = |found: &str| TokenizerError::Unsupported {
            place: "decoder",
            found: found.into(),
            supported: "ByteLevel, Metaspace, and sequences of Replace, ByteFallback, Fuse and Strip at the start",
        };
        match decoder {
            Decoder::Sequence { decoders } => decoders.iter().try_for_each(|decoder| self.add(decoder))?,
            Decoder::ByteLevel {} => {
                self.byte_level = true;
                self.fused = true;
            }
            Decoder::ByteFallback {} => self.byte_fallback = true,
            Decoder::Fuse {} => self.fused = true,
            Decoder::Replace { pattern: Pattern::Regex(_), .. } => {
                return Err(unsupported("Replace by a pattern"));
            }
            // After fusing, the text is one token. Replacing within each token gives the same
            // result only for single characters, which cannot span two tokens.
            Decoder::Replace { pattern: Pattern::String(from), .. }
                if self.fused && from.chars().count() > 1 =>
            {
                return Err(unsupported("Replace of a string after Fuse"));
            }
            Decoder::Replace { pattern: Pattern::String(from), content } => {
                self.decoding.replace.push((from.clone(), content.clone()));
            }
            Decoder::Strip { start: 0, stop: 0, .. } => {}
            &Decoder::Strip { content, start, stop: 0 } if self.fused => {
                self.decoding.leading = Leading::Strip { character: content, count: start };
            }
            Decoder::Strip { .. } => return Err(unsupported("Strip at the end, or of every token")),
            &Decoder::Metaspace { replacement, add_prefix_space, prepend_scheme } => {
                self.decoding.replace.push((replacement.into(), " ".into()));
                if Prepend::resolve(prepend_scheme, add_prefix_space) != Prepend::Never {
                    self.decoding.leading = Leading::FirstToken { character: ' ' };
                }
            }
        }
        Ok(())
    }
}
