//! Makes a tokenizer from the files that models are published with.
//!
//! A damaged or hostile source gives an error that names the place. Nothing here panics, and no id
//! makes a table larger than the number of tokens justifies.

mod bytes;
mod config;
mod gguf;
mod named;
mod sentencepiece;
mod tokenizer_json;
mod vocab_and_merges;

use crate::TokenizerError;
use crate::vocab::{Kind, MAX_TOKEN_BYTES, Vocab};

pub use config::{AddedToken, TokenizerConfig};
pub use gguf::{GgufVocab, ends_by_name, from_gguf};
pub use named::PreTokenizer;
pub use sentencepiece::from_sentencepiece;
pub use tokenizer_json::from_tokenizer_json;
pub use vocab_and_merges::from_vocab_and_merges;

/// Tokens by id, while a source is read.
struct TokenList {
    place: &'static str,
    tokens: Vec<Option<(Kind, Vec<u8>)>>,
    limit: usize,
}

impl TokenList {
    /// `count` is the source's number of tokens. Ids may leave holes, but not many times that
    /// number.
    fn new(place: &'static str, count: usize) -> Self {
        Self {
            place,
            tokens: Vec::with_capacity(count),
            limit: count.saturating_mul(4).saturating_add(65_536),
        }
    }

    /// Stores a token at its id, unless the id is taken.
    fn put(&mut self, id: u64, kind: Kind, text: &[u8]) -> Result<(), TokenizerError> {
        let token = || String::from_utf8_lossy(&text[..text.len().min(100)]).into_owned();
        if id >= self.limit as u64 {
            return Err(TokenizerError::IdTooLarge {
                place: self.place,
                token: token(),
                id,
                limit: self.limit as u64,
            });
        }
        if text.len() > MAX_TOKEN_BYTES {
            let reason = format!("token {id} has {} bytes, at most {MAX_TOKEN_BYTES} fit", text.len());
            return Err(TokenizerError::malformed(self.place, reason));
        }
        let id = id as usize;
        if id >= self.tokens.len() {
            self.tokens.resize(id + 1, None);
        }
        self.tokens[id].get_or_insert_with(|| (kind, text.to_vec()));
        Ok(())
    }

    fn into_vocab(self) -> Result<Vocab, TokenizerError> {
        let text_bytes: usize = self.tokens.iter().flatten().map(|(_, text)| text.len()).sum();
        if u32::try_from(text_bytes).is_err() {
            return Err(TokenizerError::malformed(
                self.place,
                format!("its tokens have {text_bytes} bytes together"),
            ));
        }
        let mut vocab = Vocab::with_room(self.tokens.len(), text_bytes);
        for token in &self.tokens {
            match token {
                Some((kind, text)) => vocab.push(*kind, text),
                None => vocab.push(Kind::Absent, b""),
            }
        }
        Ok(vocab)
    }
}
