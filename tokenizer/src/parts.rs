//! A tokenizer's content before it is put together.

use crate::TokenizerError;
use crate::added::MAX_ADDED_BYTES;
use crate::settings::{ModelKind, Settings};
use crate::vocab::Vocab;

/// Content of a source or a blob.
pub(crate) struct Parts {
    pub settings: Settings,
    pub vocab: Vocab,
    /// By rank: left, right, result.
    pub merges: Vec<[u32; 3]>,
    pub scores: Vec<f64>,
}

impl Parts {
    /// Checks everything that later code relies on.
    pub fn check(&self) -> Result<(), TokenizerError> {
        let Self { settings, vocab, merges, scores } = self;
        let vocab_len = vocab.len();
        if vocab_len == 0 {
            return Err(TokenizerError::malformed("vocabulary", "it is empty"));
        }
        let exists = |place: &'static str, id: u32| match vocab.get(id) {
            Some(_) => Ok(()),
            None => Err(TokenizerError::MissingId { place, id, vocab_len }),
        };
        merges.iter().flatten().try_for_each(|id| exists("merges", *id))?;
        settings.prefix.iter().chain(&settings.suffix).try_for_each(|id| exists("post-processor", *id))?;
        for added in &settings.added {
            exists("added tokens", added.id)?;
            if added.content.is_empty() || added.content.len() > MAX_ADDED_BYTES {
                let reason = format!(
                    "token {} has {} bytes, 1 to {MAX_ADDED_BYTES} fit",
                    added.id,
                    added.content.len()
                );
                return Err(TokenizerError::malformed("added tokens", reason));
            }
        }
        if settings.decoding.replace.iter().any(|(from, to)| from.is_empty() || to.len() > from.len()) {
            return Err(TokenizerError::malformed(
                "decoder",
                "a replacement is of nothing, or is longer than what it replaces",
            ));
        }
        let (unk, expected_scores) = match settings.model {
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
}
