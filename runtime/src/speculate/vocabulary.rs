//! Check that two models share their tokens.

use crate::error::RuntimeError;
use crate::model::Model;
use pith_format::{Role, TensorId};
use pith_tokenizer::Tokenizer;

/// Fails if a token of `draft` differs in `model`.
pub(super) fn agree(draft: &Model, model: &Model) -> Result<(), RuntimeError> {
    let (ours, theirs) = (draft.tokenizer()?, model.tokenizer()?);
    // Most draft models come from the same family, with a byte-identical tokenizer.
    if blob(draft).is_some() && blob(draft) == blob(model) {
        return Ok(());
    }
    let count = ours.vocab_len().max(theirs.vocab_len());
    let differs = |&id: &u32| {
        ours.token_bytes(id) != theirs.token_bytes(id) || ours.is_special(id) != theirs.is_special(id)
    };
    match (0..count as u32).find(differs) {
        None => Ok(()),
        Some(id) => Err(RuntimeError::Vocabulary {
            draft: draft.name().into(),
            model: model.name().into(),
            token: id,
            found: describe(ours, id),
            expected: describe(theirs, id),
        }),
    }
}

fn blob(model: &Model) -> Option<&[u8]> {
    model.index().bytes(model.bytes(), TensorId::model(Role::Tokenizer)).ok()
}

fn describe(tokenizer: &Tokenizer, id: u32) -> String {
    let kind = if tokenizer.is_special(id) { "special " } else { "" };
    match tokenizer.token_bytes(id) {
        Some(bytes) => format!("{kind}{:?}", String::from_utf8_lossy(&bytes)),
        None => "missing".into(),
    }
}
