//! The tokenizer as bytes, little-endian:
//!
//! ```text
//!  0  8  magic "PITHTOK\0"
//!  8  4  version
//! 12  4  settings bytes
//! 16  4  token count
//! 20  4  token text bytes
//! 24  4  merge count
//! 28  4  score bytes: 0, or 4 or 8 for each token
//! 32  8  xxh3-64 of bytes 0..32 and 40..
//! 40     settings: JSON
//!        for each token a varint: length << 2 | kind
//!        token text
//!        for each merge three varints: left, right, zigzag of the result minus the one before
//!        for each token its score, f32 or f64
//! ```
//! Varints have seven bits a byte, the lowest first. Nothing follows the scores.

use xxhash_rust::xxh3::Xxh3;

use crate::TokenizerError;
use crate::parts::Parts;
use crate::settings::Settings;
use crate::vocab::{Kind, MAX_TOKEN_BYTES, Vocab};

const MAGIC: [u8; 8] = *b"PITHTOK\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 40;
const CHECKSUM_AT: usize = 32;

pub(crate) fn write(settings: &Settings, vocab: &Vocab, merges: &[[u32; 3]], scores: &[f64]) -> Vec<u8> {
    let settings = serde_json::to_vec(settings).expect("settings have string keys only");
    let score_bytes = match scores {
        [] => 0,
        scores if scores.iter().all(|score| f64::from(*score as f32) == *score) => 4,
        _ => 8,
    };
    let mut blob = Vec::with_capacity(HEADER_BYTES + settings.len() + vocab.text_bytes() + vocab.len() * 2);
    blob.extend(MAGIC);
    let counts = [settings.len(), vocab.len(), vocab.text_bytes(), merges.len(), score_bytes];
    blob.extend(VERSION.to_le_bytes());
    counts.iter().for_each(|count| blob.extend((*count as u32).to_le_bytes()));
    blob.extend([0; 8]);
    blob.extend(&settings);
    let tokens = || (0..vocab.len() as u32).map(|id| vocab.get(id).unwrap_or((Kind::Absent, &[])));
    tokens().for_each(|(kind, text)| put_varint(&mut blob, (text.len() as u64) << 2 | kind as u64));
    tokens().for_each(|(_, text)| blob.extend(text));
    let mut before = 0;
    for [left, right, result] in merges {
        put_varint(&mut blob, u64::from(*left));
        put_varint(&mut blob, u64::from(*right));
        let step = i64::from(*result) - before;
        put_varint(&mut blob, (step << 1 ^ step >> 63) as u64);
        before = i64::from(*result);
    }
    match score_bytes {
        4 => scores.iter().for_each(|score| blob.extend((*score as f32).to_le_bytes())),
        _ => scores.iter().for_each(|score| blob.extend(score.to_le_bytes())),
    }
    let checksum = checksum(&blob);
    blob[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    blob
}

pub(crate) fn read(blob: &[u8]) -> Result<Parts, TokenizerError> {
    let mut reader = Reader { blob, at: 0 };
    let mut found = [0; 8];
    let shown = blob.len().min(8);
    found[..shown].copy_from_slice(&blob[..shown]);
    if found != MAGIC {
        return Err(TokenizerError::Magic { expected: MAGIC, found });
    }
    reader.at = MAGIC.len();
    let version = reader.u32("the version")?;
    if version != VERSION {
        return Err(TokenizerError::Version { expected: VERSION, found: version });
    }
    let settings_bytes = reader.u32("the length of the settings")? as usize;
    let token_count = reader.u32("the token count")? as usize;
    let text_bytes = reader.u32("the token text's length")? as usize;
    let merge_count = reader.u32("the merge count")? as usize;
    let score_bytes = reader.u32("the score's length")? as usize;
    let expected = u64::from_le_bytes(reader.array("the checksum")?);
    let found = checksum(blob);
    if expected != found {
        return Err(TokenizerError::Checksum { expected, found });
    }
    let settings = reader.bytes(settings_bytes, "the settings")?;
    let settings: Settings = serde_json::from_slice(settings)
        .map_err(|error| TokenizerError::malformed("tokenizer blob, settings", error))?;
    let vocab = read_vocab(&mut reader, token_count, text_bytes)?;
    let merges = read_merges(&mut reader, merge_count, token_count)?;
    let scores = read_scores(&mut reader, token_count, score_bytes)?;
    reader.limit("the length", blob.len() as u64, reader.at as u64)?;
    Ok(Parts { settings, vocab, merges, scores })
}

fn read_vocab(reader: &mut Reader, token_count: usize, text_bytes: usize) -> Result<Vocab, TokenizerError> {
    reader.room(token_count, 1, "the token count")?;
    reader.room(text_bytes, 1, "the token text's length")?;
    let mut lengths = Reader { ..*reader };
    for _ in 0..token_count {
        reader.varint("a token's length")?;
    }
    let text_at = reader.at;
    let text = reader.bytes(text_bytes, "the token text")?;
    let mut vocab = Vocab::with_room(token_count, text_bytes);
    let mut from = 0;
    for _ in 0..token_count {
        let field = lengths.varint("a token's length")?;
        let (len, kind) = (field >> 2, Kind::from_bits(field));
        let limit = match kind {
            Kind::Absent => 0,
            Kind::Byte => 1,
            _ => MAX_TOKEN_BYTES.min(text.len() - from) as u64,
        };
        lengths.limit("a token's length", len, limit)?;
        let end = from + len as usize;
        let token = text.get(from..end).filter(|token| kind != Kind::Byte || token.len() == 1);
        let token =
            token.ok_or(TokenizerError::Truncated { offset: text_at + from, what: "a token's text" })?;
        vocab.push(kind, token);
        from = end;
    }
    lengths.limit("the token text's length", text_bytes as u64, from as u64)?;
    Ok(vocab)
}

fn read_merges(
    reader: &mut Reader,
    count: usize,
    token_count: usize,
) -> Result<Vec<[u32; 3]>, TokenizerError> {
    reader.room(count, 3, "the merge count")?;
    let last_id = (token_count as u64).saturating_sub(1);
    let mut merges = Vec::with_capacity(count);
    let mut before = 0u64;
    for _ in 0..count {
        let left = reader.varint("a merge's left token")?;
        reader.limit("a merge's left token", left, last_id)?;
        let right = reader.varint("a merge's right token")?;
        reader.limit("a merge's right token", right, last_id)?;
        let step = reader.varint("a merge's result")?;
        let result = before.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg());
        reader.limit("a merge's result", result, last_id)?;
        merges.push([left as u32, right as u32, result as u32]);
        before = result;
    }
    Ok(merges)
}

fn read_scores(reader: &mut Reader, token_count: usize, width: usize) -> Result<Vec<f64>, TokenizerError> {
    let what = "the scores";
    match width {
        0 => Ok(Vec::new()),
        4 => {
            reader.room(token_count, 4, what)?;
            let bytes = reader.bytes(token_count * 4, what)?.as_chunks::<4>().0;
            Ok(bytes.iter().map(|score| f64::from(f32::from_le_bytes(*score))).collect())
        }
        8 => {
            reader.room(token_count, 8, what)?;
            let bytes = reader.bytes(token_count * 8, what)?.as_chunks::<8>().0;
            Ok(bytes.iter().map(|score| f64::from_le_bytes(*score)).collect())
        }
        _ => {
            let found = width as u64;
            Err(TokenizerError::Field { offset: 28, what: "the score's length", limit: 8, found })
        }
    }
}

fn checksum(blob: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&blob[..CHECKSUM_AT.min(blob.len())]);
    hasher.update(&blob[HEADER_BYTES.min(blob.len())..]);
    hasher.digest()
}

fn put_varint(blob: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        blob.push(value as u8 | 0x80);
        value >>= 7;
    }
    blob.push(value as u8);
}

struct Reader<'a> {
    blob: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], TokenizerError> {
        let end = self.at.checked_add(len);
        let bytes = end.and_then(|end| self.blob.get(self.at..end));
        let bytes = bytes.ok_or(TokenizerError::Truncated { offset: self.at, what })?;
        self.at += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], TokenizerError> {
        Ok(self.bytes(N, what)?.try_into().expect("as many bytes as asked for"))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, TokenizerError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn varint(&mut self, what: &'static str) -> Result<u64, TokenizerError> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let [byte] = self.array(what)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(TokenizerError::Field { offset: self.at, what, limit: u64::MAX >> 1, found: u64::MAX })
    }

    /// Refuses a count that the remaining bytes cannot hold, before allocating for it.
    fn room(&self, count: usize, width: usize, what: &'static str) -> Result<(), TokenizerError> {
        self.limit(what, count as u64, ((self.blob.len() - self.at) / width) as u64)
    }

    fn limit(&self, what: &'static str, found: u64, limit: u64) -> Result<(), TokenizerError> {
        if found > limit {
            return Err(TokenizerError::Field { offset: self.at, what, limit, found });
        }
        Ok(())
    }
}

/// Writes the checksum of the current bytes, for tests that change them.
#[cfg(test)]
pub(crate) fn seal(blob: &mut [u8]) {
    if blob.len() >= HEADER_BYTES {
        let checksum = checksum(blob);
        blob[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokenizer;
    use crate::source::{GgufVocab, from_gguf, from_tokenizer_json};

    fn bpe() -> Vec<u8> {
        let json = r#"{"added_tokens": [{"id": 3, "content": "<s>", "special": true}],
            "pre_tokenizer": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#;
        from_tokenizer_json(json.as_bytes()).unwrap().to_blob()
    }

    fn spm() -> Vec<u8> {
        let tokens = ["<unk>", "<0x61>", "▁", "b", "▁b"].map(String::from);
        let types = [2, 6, 1, 1, 1];
        let scores = [0.0, 0.0, -1.0, -2.0, -0.5];
        let vocab = GgufVocab {
            model: "llama",
            tokens: &tokens,
            token_types: &types,
            scores: &scores,
            ..GgufVocab::default()
        };
        from_gguf(&vocab).unwrap().to_blob()
    }

    fn try_out(blob: &[u8]) {
        if let Ok(tokenizer) = Tokenizer::from_blob(blob) {
            let ids = tokenizer.encode("ab <s> b", true).unwrap_or_default();
            let _ = tokenizer.decode(&ids, false);
            let _ = tokenizer.decode(&[0, 1, 2, 3], true);
            let _ = tokenizer.to_blob();
        }
    }

    #[test]
    fn blob_survives_the_round() {
        for blob in [bpe(), spm()] {
            assert_eq!(Tokenizer::from_blob(&blob).unwrap().to_blob(), blob);
        }
        assert_eq!(Tokenizer::from_blob(&bpe()).unwrap().encode("abb<s>", false).unwrap(), [2, 1, 3]);
        assert_eq!(Tokenizer::from_blob(&spm()).unwrap().encode("b ab", false).unwrap(), [4, 2, 1, 3]);
    }

    #[test]
    fn truncation_at_every_length_is_an_error() {
        for blob in [bpe(), spm()] {
            for len in 0..blob.len() {
                assert!(Tokenizer::from_blob(&blob[..len]).is_err());
                let mut sealed = blob[..len].to_vec();
                seal(&mut sealed);
                assert!(Tokenizer::from_blob(&sealed).is_err(), "{len} bytes of {}", blob.len());
            }
        }
    }

    #[test]
    fn every_changed_byte_is_an_error_and_harmless_even_with_a_valid_checksum() {
        for blob in [bpe(), spm()] {
            for at in 0..blob.len() {
                for change in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
                    let mut changed = blob.clone();
                    changed[at] ^= change;
                    assert!(Tokenizer::from_blob(&changed).is_err(), "byte {at}");
                    seal(&mut changed);
                    try_out(&changed);
                }
            }
        }
    }

    #[test]
    fn huge_counts_are_refused_before_anything_is_allocated() {
        for at in [12, 16, 20, 24, 28] {
            let mut blob = bpe();
            blob[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            seal(&mut blob);
            let error = Tokenizer::from_blob(&blob).expect_err("a huge count");
            assert!(
                matches!(error, TokenizerError::Field { .. } | TokenizerError::Truncated { .. }),
                "{at}: {error}"
            );
        }
    }

    #[test]
    fn magic_version_and_checksum_are_told_apart() {
        let mut blob = bpe();
        blob[3] ^= 1;
        assert!(matches!(Tokenizer::from_blob(&blob), Err(TokenizerError::Magic { .. })));
        let mut blob = bpe();
        blob[8] = 2;
        assert!(matches!(
            Tokenizer::from_blob(&blob),
            Err(TokenizerError::Version { expected: 1, found: 2 })
        ));
        let mut blob = bpe();
        *blob.last_mut().unwrap() ^= 1;
        assert!(matches!(Tokenizer::from_blob(&blob), Err(TokenizerError::Checksum { .. })));
        let mut blob = bpe();
        blob.push(0);
        seal(&mut blob);
        assert!(matches!(Tokenizer::from_blob(&blob), Err(TokenizerError::Field { what: "the length", .. })));
    }
}
