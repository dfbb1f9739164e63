//! Speculation: tokens drafted cheaply and checked together, in one pass over the weights.
//!
//! A [`Drafter`] proposes the next tokens. The model computes its logits for all of them in one
//! pass and discards the tokens that it would not have produced ([`verify`]). The text is therefore
//! the text without speculation: the same tokens under greedy choice or with a deterministic
//! drafter, the same distribution otherwise.

mod lookup;
mod model;
mod verify;
mod vocabulary;

pub use lookup::Lookup;
pub use model::DraftModel;
pub(crate) use verify::verify;

use crate::distribution::Distribution;
use crate::error::RuntimeError;
use crate::sampler::Sampler;
use pith_meter::Traffic;

/// Default for the most tokens drafted per pass.
pub const DEFAULT_DRAFT_TOKENS: usize = 8;

/// Proposes continuations of a sequence.
///
/// One drafter may serve several sequences in turn; it keeps what it has learned.
pub trait Drafter {
    /// Most tokens that it ever proposes at once.
    fn most(&self) -> usize;

    /// Starts a new sequence, whatever came before.
    fn begin(&mut self, sequence: &[u32]) -> Result<(), RuntimeError>;

    /// The context was full; `sequence` is the part that remains. The text continues.
    fn shift(&mut self, sequence: &[u32]) -> Result<(), RuntimeError> {
        self.begin(sequence)
    }

    /// The sequence continues with `token`.
    fn push(&mut self, token: u32);

    /// Adds up to `most` tokens to the empty `draft`. `sampler` has accepted the sequence; random
    /// draws must use its random numbers and its distribution.
    fn draft(&mut self, most: usize, sampler: &mut Sampler, draft: &mut Draft) -> Result<(), RuntimeError>;

    /// Reports that the model accepted the first `accepted` of the last draft's `drafted` tokens.
    fn judged(&mut self, _drafted: usize, _accepted: usize) {}

    /// Traffic of drafting since the last call.
    fn take_traffic(&mut self) -> Traffic {
        Traffic::default()
    }
}

/// Drafted tokens, each with the distribution it was drawn from.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    tokens: Vec<u32>,
    /// One per token, and unused ones kept for reuse. Empty where the drafter had no other choice.
    distributions: Vec<Distribution>,
}

impl Draft {
    /// The drafted tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Adds a token that the drafter is certain of.
    pub fn push(&mut self, token: u32) {
        self.next_distribution().clear();
        self.tokens.push(token);
    }

    /// Adds a token drawn from `sampler`'s distribution for a drafter's `logits`.
    pub fn draw(&mut self, sampler: &mut Sampler, logits: &[f32]) -> Result<u32, RuntimeError> {
        self.next_distribution();
        let next = &mut self.distributions[self.tokens.len()];
        sampler.distribution(logits, &self.tokens, next)?;
        let token = sampler.draw(next)?;
        self.tokens.push(token);
        Ok(token)
    }

    /// Distribution of the draft's token `index`; empty where the drafter was certain.
    pub(crate) fn distribution(&self, index: usize) -> &Distribution {
        &self.distributions[index]
    }

    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
    }

    fn next_distribution(&mut self) -> &mut Distribution {
        let index = self.tokens.len();
        if self.distributions.len() == index {
            self.distributions.push(Distribution::default());
        }
        &mut self.distributions[index]
    }
}

/// A drafter that drafts nothing: plain decoding.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDrafter;

impl Drafter for NoDrafter {
    fn most(&self) -> usize {
        0
    }

    fn begin(&mut self, _sequence: &[u32]) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn push(&mut self, _token: u32) {}

    fn draft(&mut self, _: usize, _: &mut Sampler, _: &mut Draft) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// Checks the number of tokens to draft.
fn at_least_one(most: usize) -> Result<usize, RuntimeError> {
    let (option, found) = ("number of tokens to draft", most.to_string());
    if most > 0 {
        Ok(most)
    } else {
        Err(RuntimeError::Option { option, found, expected: "at least 1".into() })
    }
}
