//! sentencepiece's `tokenizer.model`, a protocol buffer. Reads only the fields that encoding needs.

use super::{TokenList, TokenizerConfig, bytes};
use crate::parts::Parts;
use crate::settings::{Added, Decoding, Leading, ModelKind, Normalizer, Settings, Stage};
use crate::vocab::Kind;
use crate::{Tokenizer, TokenizerError};

const PLACE: &str = "sentencepiece model";

/// Piece types by sentencepiece's numbers.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;
const BYTE: u64 = 6;

struct Piece {
    text: String,
    score: f32,
    kind: u64,
}

/// The trainer's and normalizer's spec, with sentencepiece's defaults.
struct Spec {
    unigram: bool,
    treat_whitespace_as_suffix: bool,
    byte_fallback: bool,
    bos: i32,
    eos: i32,
    charsmap: Vec<u8>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

/// Reads a BPE or unigram `tokenizer.model`.
///
/// Control tokens (`<s>`) are recognised in text, as Hugging Face does; with `special`, encoding
/// puts the beginning-of-sequence token first if the model has one, unless `config` says otherwise.
pub fn from_sentencepiece(model: &[u8], config: &TokenizerConfig) -> Result<Tokenizer, TokenizerError> {
    let (mut pieces, spec) = read(model)?;
    if spec.unigram {
        score_user_defined(&mut pieces);
    }
    let mut tokens = TokenList::new(PLACE, pieces.len() + config.added_tokens.len());
    let mut added = Vec::new();
    for (id, piece) in pieces.iter().enumerate() {
        let (kind, text) = match piece.kind {
            NORMAL => (Kind::Text, piece.text.as_bytes().to_vec()),
            // A unigram model weighs these like other pieces; BPE never splits or joins them.
            USER_DEFINED if spec.unigram => (Kind::Text, piece.text.as_bytes().to_vec()),
            UNUSED if !spec.unigram => (Kind::Text, piece.text.as_bytes().to_vec()),
            BYTE => {
                let reason =
                    || TokenizerError::malformed(PLACE, format!("byte piece {id} is {:?}", piece.text));
                (Kind::Byte, vec![bytes::from_hex(&piece.text).ok_or_else(reason)?])
            }
            _ => (Kind::Literal, piece.text.as_bytes().to_vec()),
        };
        tokens.put(id as u64, kind, &text)?;
        let special = matches!(piece.kind, UNKNOWN | CONTROL);
        let frozen = piece.kind == USER_DEFINED && !spec.unigram;
        if (special || frozen) && !piece.text.is_empty() {
            let stage = if special { Stage::Raw } else { Stage::Frozen };
            let content = piece.text.clone();
            let flags = (false, false, false);
            let (single_word, lstrip, rstrip) = flags;
            added.push(Added { id: id as u32, content, single_word, lstrip, rstrip, stage, special });
        }
    }
    for token in config.added_tokens.iter().filter(|token| !token.content.is_empty()) {
        let known = pieces.iter().any(|piece| piece.text == token.content);
        if !known {
            tokens.put(u64::from(token.id), Kind::Literal, token.content.as_bytes())?;
            added.push(Added::from(token));
        }
    }
    let (prefix, suffix) = frame(&pieces, &spec, config)?;
    let unk = pieces.iter().position(|piece| piece.kind == UNKNOWN).map(|id| id as u32);
    let mut scores: Vec<f64> = pieces.iter().map(|piece| f64::from(piece.score)).collect();
    scores.resize(tokens.tokens.len(), 0.0);
    let settings = Settings {
        model: match spec.unigram {
            true => ModelKind::Unigram { unk, byte_fallback: spec.byte_fallback, single_precision: true },
            false => ModelKind::Spm { unk },
        },
        normalizer: Some(Normalizer::SentencePiece {
            precompiled_charsmap: base64::encode(&spec.charsmap),
            add_dummy_prefix: spec.add_dummy_prefix,
            remove_extra_whitespaces: spec.remove_extra_whitespaces,
            escape_whitespaces: spec.escape_whitespaces,
            treat_whitespace_as_suffix: spec.treat_whitespace_as_suffix,
        }),
        pre_tokenizer: None,
        added,
        prefix,
        suffix,
        decoding: Decoding {
            replace: vec![("▁".into(), " ".into())],
            leading: Leading::Strip { character: ' ', count: spec.add_dummy_prefix.into() },
            ..Decoding::default()
        },
    };
    Tokenizer::from_parts(Parts { settings, vocab: tokens.into_vocab()?, merges: Vec::new(), scores })
}

/// Scores a user-defined piece of a unigram model above every other way to spell it.
fn score_user_defined(pieces: &mut [Piece]) {
    let normal = pieces.iter().filter(|piece| piece.kind == NORMAL).map(|piece| piece.score);
    let largest = normal.fold(f32::MIN_POSITIVE, f32::max);
    for piece in pieces.iter_mut().filter(|piece| piece.kind == USER_DEFINED) {
        piece.score = piece.text.len() as f32 * largest - 0.1;
    }
}

fn frame(
    pieces: &[Piece],
    spec: &Spec,
    config: &TokenizerConfig,
) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    let of_model = |id: i32| {
        let id = usize::try_from(id).ok()?;
        pieces.get(id).filter(|piece| piece.kind == CONTROL).map(|_| id as u32)
    };
    let find = |token: &Option<String>, id: i32| match token {
        Some(token) => {
            let id = pieces.iter().position(|piece| piece.text == *token).map(|id| id as u32);
            id.or_else(|| {
                config.added_tokens.iter().find(|added| added.content == *token).map(|added| added.id)
            })
        }
        None => of_model(id),
    };
    let one = |wanted: Option<bool>, default: bool, token: &Option<String>, id: i32, name: &str| match (
        wanted.unwrap_or(default),
        find(token, id),
    ) {
        (true, Some(id)) => Ok(vec![id]),
        (true, None) if wanted.is_some() => {
            let token = token.clone().unwrap_or_else(|| name.into());
            Err(TokenizerError::MissingToken { place: "tokenizer_config.json", token })
        }
        _ => Ok(Vec::new()),
    };
    Ok((
        one(config.add_bos_token, true, &config.bos_token, spec.bos, "bos_token")?,
        one(config.add_eos_token, false, &config.eos_token, spec.eos, "eos_token")?,
    ))
}

fn read(model: &[u8]) -> Result<(Vec<Piece>, Spec), TokenizerError> {
    let mut pieces = Vec::new();
    let mut spec = Spec {
        unigram: true,
        treat_whitespace_as_suffix: false,
        byte_fallback: false,
        bos: 1,
        eos: 2,
        charsmap: Vec::new(),
        add_dummy_prefix: true,
        remove_extra_whitespaces: true,
        escape_whitespaces: true,
    };
    each_field(model, |number, value| {
        match (number, value) {
            (1, Value::Bytes(bytes)) => pieces.push(read_piece(bytes)?),
            (2, Value::Bytes(bytes)) => {
                each_field(bytes, |number, value| read_trainer(&mut spec, number, value))?
            }
            (3, Value::Bytes(bytes)) => each_field(bytes, |number, value| {
                match (number, value) {
                    (2, Value::Bytes(map)) => spec.charsmap = map.to_vec(),
                    (3, Value::Number(flag)) => spec.add_dummy_prefix = flag != 0,
                    (4, Value::Number(flag)) => spec.remove_extra_whitespaces = flag != 0,
                    (5, Value::Number(flag)) => spec.escape_whitespaces = flag != 0,
                    _ => {}
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((pieces, spec))
}

fn read_piece(bytes: &[u8]) -> Result<Piece, TokenizerError> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: NORMAL };
    each_field(bytes, |number, value| {
        match (number, value) {
            (1, Value::Bytes(text)) => {
                let text =
                    std::str::from_utf8(text).map_err(|error| TokenizerError::malformed(PLACE, error))?;
                piece.text = text.to_owned();
            }
            (2, Value::Fixed(bits)) => piece.score = f32::from_bits(bits),
            (3, Value::Number(kind)) => piece.kind = kind,
            _ => {}
        }
        Ok(())
    })?;
    Ok(piece)
}

fn read_trainer(spec: &mut Spec, number: u64, value: Value<'_>) -> Result<(), TokenizerError> {
    match (number, value) {
        (3, Value::Number(1)) => spec.unigram = true,
        (3, Value::Number(2)) => spec.unigram = false,
        (3, Value::Number(other)) => {
            return Err(TokenizerError::Unsupported {
                place: PLACE,
                found: format!("model type {other}"),
                supported: "1 (unigram) and 2 (BPE)",
            });
        }
        (24, Value::Number(flag)) => spec.treat_whitespace_as_suffix = flag != 0,
        (35, Value::Number(flag)) => spec.byte_fallback = flag != 0,
        (41, Value::Number(id)) => spec.bos = id as i32,
        (42, Value::Number(id)) => spec.eos = id as i32,
        _ => {}
    }
    Ok(())
}

/// Value of a field; eight-byte values are skipped.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Fixed(u32),
    Bytes(&'a [u8]),
}

/// Calls `each` with every field of a message.
fn each_field<'a>(
    message: &'a [u8],
    mut each: impl FnMut(u64, Value<'a>) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let mut rest = message;
    while !rest.is_empty() {
        let at = message.len() - rest.len();
        let ends = |what: &str| {
            TokenizerError::malformed(PLACE, format!("byte {at} of a message of {}: {what}", message.len()))
        };
        let key = varint(&mut rest).ok_or_else(|| ends("it ends inside a field's key"))?;
        let value = match key & 7 {
            0 => Some(Value::Number(varint(&mut rest).ok_or_else(|| ends("it ends inside a number"))?)),
            1 => take(&mut rest, 8)
                .ok_or_else(|| ends("it ends inside a fixed number"))?
                .is_empty()
                .then_some(Value::Number(0)),
            2 => {
                let len = varint(&mut rest).ok_or_else(|| ends("it ends inside a length"))?;
                let bytes = usize::try_from(len).ok().and_then(|len| take(&mut rest, len));
                Some(Value::Bytes(
                    bytes.ok_or_else(|| ends(&format!("a field has {len} bytes, fewer follow")))?,
                ))
            }
            5 => {
                let bytes = take(&mut rest, 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
                Some(Value::Fixed(u32::from_le_bytes(bytes.ok_or_else(|| ends("it ends inside a score"))?)))
            }
            other => return Err(ends(&format!("wire type {other} is none of 0, 1, 2 and 5"))),
        };
        value.map_or(Ok(()), |value| each(key >> 3, value))?;
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
