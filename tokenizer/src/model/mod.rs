//! From a piece of text to ids: three models behind one interface.

mod bpe;
mod spm;
mod unigram;

use crate::TokenizerError;
use crate::settings::ModelKind;
use crate::vocab::{Kind, Vocab};

pub(crate) use bpe::Bpe;
use spm::Spm;
use unigram::Unigram;

/// A model with its tables.
pub(crate) enum Model {
    Bpe(Bpe),
    Spm(Spm),
    Unigram(Unigram),
}

/// Buffers reused for all pieces of a text.
#[derive(Default)]
pub(crate) struct Scratch {
    bpe: bpe::Scratch,
    spm: spm::Scratch,
    unigram: unigram::Scratch,
}

impl Model {
    /// `merges` and `scores` must be checked against `vocab`.
    pub fn new(kind: &ModelKind, vocab: &Vocab, merges: Vec<[u32; 3]>, scores: Vec<f64>) -> Self {
        match kind {
            ModelKind::Bpe { .. } => Self::Bpe(Bpe::new(kind, vocab, merges)),
            &ModelKind::Spm { unk } => Self::Spm(Spm::new(vocab, scores, unk)),
            &ModelKind::Unigram { unk, byte_fallback, single_precision } => {
                Self::Unigram(Unigram::new(vocab, scores, unk, byte_fallback, single_precision))
            }
        }
    }

    /// Appends the ids of `piece` to `ids`.
    pub fn encode(
        &self,
        vocab: &Vocab,
        piece: &str,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if u32::try_from(piece.len()).is_err() {
            return Err(TokenizerError::encode(piece, "a piece of it is 4 GiB or longer"));
        }
        match self {
            Self::Bpe(model) => {
                model.encode(vocab, piece, &mut scratch.bpe, ids);
                Ok(())
            }
            Self::Spm(model) => model.encode(vocab, piece, &mut scratch.spm, ids),
            Self::Unigram(model) => model.encode(vocab, piece, &mut scratch.unigram, ids),
        }
    }

    /// The merges in rank order; empty for other models.
    pub fn merges(&self) -> &[[u32; 3]] {
        match self {
            Self::Bpe(model) => model.merges(),
            _ => &[],
        }
    }

    /// The scores by id; empty for other models.
    pub fn scores(&self) -> &[f64] {
        match self {
            Self::Bpe(_) => &[],
            Self::Spm(model) => &model.scores,
            Self::Unigram(model) => &model.scores,
        }
    }
}

/// The ids of the bytes of `text`, if every byte has one.
fn byte_ids<'a>(bytes: &'a [Option<u32>; 256], text: &'a [u8]) -> Option<impl Iterator<Item = u32> + 'a> {
    text.iter()
        .all(|byte| bytes[*byte as usize].is_some())
        .then(|| text.iter().filter_map(|byte| bytes[*byte as usize]))
}

fn byte_fallback_table(vocab: &Vocab) -> Box<[Option<u32>; 256]> {
    vocab.single_bytes(Kind::Byte)
}
