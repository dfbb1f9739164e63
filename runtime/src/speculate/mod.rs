//! Speculation: tokens that are guessed cheaply and checked together, in one pass over the weights.
//!
//! A [`Drafter`] proposes what may follow. The model computes its own logits for all of it at once, and what it would
//! not have said itself is thrown away ([`verify`]), so that the text is the text without speculation: the same
//! tokens where the choice is greedy or the drafter says one thing only, the same distribution otherwise.

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

/// Most tokens drafted for one pass, unless asked otherwise.
pub const DEFAULT_DRAFT_TOKENS: usize = 8;

/// Proposes tokens that may follow a sequence.
///
/// It may be used for one sequence after another, and keeps what it has learned.
pub trait Drafter {
    /// Most tokens it ever proposes at once.
    fn most(&self) -> usize;

    /// The sequence is `sequence` now, whatever it was before.
    fn begin(&mut self, sequence: &[u32]) -> Result<(), RuntimeError>;

    /// The context was full, and of the sequence `sequence` is left. The text goes on.
    fn shift(&mut self, sequence: &[u32]) -> Result<(), RuntimeError> {
        self.begin(sequence)
    }

    /// The sequence goes on with `token`.
    fn push(&mut self, token: u32);

    /// Adds to `draft`, which is empty, at most `most` tokens that may follow. `sampler` has accepted the sequence;
    /// what is drawn must be drawn with its random numbers from its distribution.
    fn draft(&mut self, most: usize, sampler: &mut Sampler, draft: &mut Draft) -> Result<(), RuntimeError>;

    /// Of the last draft's `drafted` tokens the model would have said the first `accepted`.
    fn judged(&mut self, _drafted: usize, _accepted: usize) {}

    /// What drafting touched since this was last asked.
    fn take_traffic(&mut self) -> Traffic {
        Traffic::default()
    }
}

/// Tokens that may follow a sequence, and what each was drawn from.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    tokens: Vec<u32>,
    /// One a token, and more that wait to be used again. Empty where the drafter had no other choice.
    distributions: Vec<Distribution>,
}

impl Draft {
    /// The tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Adds a token that the drafter was certain of.
    pub fn push(&mut self, token: u32) {
        self.next_distribution().clear();
        self.tokens.push(token);
    }

    /// Adds a token drawn from what `sampler` makes of a drafter's `logits`.
    pub fn draw(&mut self, sampler: &mut Sampler, logits: &[f32]) -> Result<u32, RuntimeError> {
        self.next_distribution();
        let next = &mut self.distributions[self.tokens.len()];
        sampler.distribution(logits, &self.tokens, next)?;
        let token = sampler.draw(next)?;
        self.tokens.push(token);
        Ok(token)
    }

    /// What the token of that index was drawn from; without any probability where the drafter was certain.
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

/// Drafts nothing: plain decoding.
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

/// Checks a number of tokens to draft.
fn at_least_one(most: usize) -> Result<usize, RuntimeError> {
    let (option, found) = ("number of tokens to draft", most.to_string());
    if most > 0 {
        Ok(most)
    } else {
        Err(RuntimeError::Option { option, found, expected: "at least 1".into() })
    }
}
