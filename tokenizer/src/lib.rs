//! Tokenizers: text to ids and back.
//!
//! A `.pith` file holds one tokenizer as a blob ([`Tokenizer::to_blob`], [`Tokenizer::from_blob`]).
//! [`source`] makes a tokenizer from `tokenizer.json`, a sentencepiece `tokenizer.model`,
//! `vocab.json` with `merges.txt`, or the vocabulary of a GGUF file. The `tokenizers` crate
//! normalizes and splits text; vocabulary, merges and scores are flat tables of this crate, since
//! they decide how long opening takes.
//!
//! Hostile input never causes a panic, and no table is larger than the bytes it was read from
//! justify.
#![forbid(unsafe_code)]

mod added;
mod blob;
mod charsmap;
mod error;
mod guard;
mod model;
mod parts;
mod pattern;
mod pipeline;
mod settings;
pub mod source;
mod stream;
mod table;
mod tokenizer;
mod vocab;

pub use added::without_marks;
pub use error::TokenizerError;
pub use stream::{Decoder, Stream};
pub use tokenizer::Tokenizer;
