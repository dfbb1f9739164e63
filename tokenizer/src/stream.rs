//! Decodes ids to text, all at once or one at a time.

use crate::settings::Leading;
use crate::{Tokenizer, TokenizerError};

/// Decodes ids as they arrive. The concatenated output equals that of [`Tokenizer::decode`].
///
/// A character whose bytes are spread over several tokens is returned with its last byte. Bytes
/// that cannot become UTF-8 are returned as U+FFFD as soon as that is certain.
pub struct Stream<'t> {
    tokenizer: &'t Tokenizer,
    decoder: Decoder,
}

/// A [`Stream`] that takes its tokenizer at every call, for owners that cannot hold a borrow.
pub struct Decoder {
    skip_special: bool,
    /// Bytes of an incomplete character.
    pending: Vec<u8>,
    leading: Leading,
    any_token: bool,
}

impl Tokenizer {
    /// The text of `ids`, without the special ones if `skip_special`.
    ///
    /// Bytes that are not UTF-8 become U+FFFD. Fails on an id that has no token.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        let mut text = String::with_capacity(ids.len() * 4);
        let mut stream = self.stream().skip_special(skip_special);
        for &id in ids {
            if !self.has_token(id) {
                return Err(TokenizerError::MissingId { place: "decode", id, vocab_len: self.vocab_len() });
            }
            stream.push_to(id, &mut text);
        }
        text.push_str(&stream.finish());
        Ok(text)
    }

    /// A decoder for one id at a time. It leaves out special tokens unless [`Stream::skip_special`]
    /// says otherwise.
    pub fn stream(&self) -> Stream<'_> {
        Stream::new(self)
    }
}

impl<'t> Stream<'t> {
    fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, decoder: Decoder::new(tokenizer) }
    }

    /// Sets whether special tokens are left out.
    pub fn skip_special(mut self, skip: bool) -> Self {
        self.decoder.skip_special = skip;
        self
    }

    /// Takes the next id; returns the text that is certain now, if any. An id without a token adds
    /// nothing.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.decoder.push(self.tokenizer, id)
    }

    /// Ends the text; returns an incomplete character, if any, as U+FFFD.
    pub fn finish(mut self) -> String {
        self.decoder.finish()
    }

    fn push_to(&mut self, id: u32, text: &mut String) {
        self.decoder.push_to(self.tokenizer, id, text);
    }
}

impl Decoder {
    /// For ids of `tokenizer`, which every call must pass; leaves out special tokens.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let leading = tokenizer.settings().decoding.leading;
        Self { skip_special: true, pending: Vec::new(), leading, any_token: false }
    }

    /// For the ids that continue `prompt`. The text of the prompt and the text of this decoder
    /// together equal [`Tokenizer::decode`] of all ids, so a space at the beginning of the
    /// continuation stays.
    pub fn continuing(tokenizer: &Tokenizer, prompt: &[u32]) -> Self {
        let mut decoder = Self::new(tokenizer);
        let mut text = String::new();
        for &id in prompt {
            decoder.push_to(tokenizer, id, &mut text);
            text.clear();
        }
        decoder
    }

    /// See [`Stream::push`].
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Option<String> {
        let mut text = String::new();
        self.push_to(tokenizer, id, &mut text);
        (!text.is_empty()).then_some(text)
    }

    /// See [`Stream::finish`]. Do not push afterwards.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    fn push_to(&mut self, tokenizer: &Tokenizer, id: u32, text: &mut String) {
        if self.skip_special && tokenizer.is_special(id) {
            return;
        }
        let before = self.pending.len();
        if self.any_token {
            self.pending.extend(tokenizer.settings().decoding.separator.as_bytes());
        }
        if !tokenizer.append_bytes(id, &mut self.pending) {
            self.pending.truncate(before);
            return;
        }
        let mut complete = self.take_complete();
        match &mut self.leading {
            Leading::Keep => {}
            Leading::FirstToken { .. } if self.any_token => {}
            Leading::FirstToken { character } => complete = complete.replace(*character, ""),
            Leading::Strip { character, count } => {
                let kept = (0..*count)
                    .try_fold(complete.as_str(), |rest, _| rest.strip_prefix(*character).ok_or(rest));
                let kept_bytes = kept.unwrap_or_else(|rest| rest).len();
                let stripped = complete[..complete.len() - kept_bytes].chars().count() as u32;
                // The first character that stays begins the text.
                *count = if kept_bytes > 0 { 0 } else { *count - stripped };
                complete.drain(..complete.len() - kept_bytes);
            }
        }
        self.any_token = true;
        text.push_str(&complete);
    }

    /// Takes all complete or invalid characters; leaves the bytes of one that may still be
    /// completed.
    fn take_complete(&mut self) -> String {
        let mut text = String::with_capacity(self.pending.len());
        let mut bytes = self.pending.as_slice();
        loop {
            match std::str::from_utf8(bytes) {
                Ok(rest) => {
                    text.push_str(rest);
                    bytes = &[];
                    break;
                }
                Err(error) => {
                    let (valid, rest) = bytes.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(invalid_bytes) = error.error_len() else {
                        bytes = rest;
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    bytes = &rest[invalid_bytes..];
                }
            }
        }
        let left = bytes.len();
        self.pending.drain(..self.pending.len() - left);
        text
    }
}
