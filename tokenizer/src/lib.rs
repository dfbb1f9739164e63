//! Tokenizers: text to ids and back.
//!
//! A `.pith` file holds one tokenizer as a blob ([`Tokenizer::to_blob`], [`Tokenizer::from_blob`]); [`source`] makes
//! a tokenizer from `tokenizer.json`, a sentencepiece `tokenizer.model`, `vocab.json` with `merges.txt`, or the
//! vocabulary of a GGUF file. Normalizing and splitting text is the `tokenizers` crate's work; the vocabulary, the
//! merges and the scores are our own flat tables, since those decide how long opening takes.
//!
//! Nothing here panics on hostile input, and no table is larger than the bytes it was read from justify.
#![forbid(unsafe_code)]

mod added;
mod blob;
mod charsmap;
mod error;
mod model;
mod pattern;
mod pipeline;
mod recipe;
pub mod source;
mod stream;
mod table;
mod tokenizer;
mod vocab;

pub use error::TokenizerError;
pub use stream::{Decoder, Stream};
pub use tokenizer::Tokenizer;
