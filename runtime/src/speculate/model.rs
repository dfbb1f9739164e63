//! A smaller model that drafts for a larger one.

use super::vocabulary::agree;
use super::{Draft, Drafter, at_least_one};
use crate::error::RuntimeError;
use crate::model::Model;
use crate::sampler::Sampler;
use crate::session::Session;
use pith_meter::Traffic;

/// Length of the first draft.
const FIRST: usize = 4;

/// Drafts with a second model, sampling as the main sampler does.
///
/// A fully accepted draft makes the next one two tokens longer; any other makes it one shorter. The
/// draft model's cache follows the sequence: tokens that the larger model rejected are removed, and
/// its own token is computed. Drafting ends where the smaller model's context ends.
pub struct DraftModel {
    session: Session,
    sequence: Vec<u32>,
    /// Size of the vocabulary that both models share.
    vocab_len: usize,
    /// Tokens that end a reply.
    ends: Vec<u32>,
    most: usize,
    length: usize,
    /// Part of [`Session::traffic`] that was already reported.
    handed_out: Traffic,
}

impl DraftModel {
    /// A drafter of at most `most` tokens, at least 1, for `model`.
    ///
    /// Fails where the vocabularies differ, naming both files and the first token that differs. The
    /// number of logits may differ: models pad their vocabulary.
    pub fn new(session: Session, model: &Model, most: usize) -> Result<Self, RuntimeError> {
        let most = at_least_one(most)?;
        agree(session.model(), model)?;
        Ok(Self {
            vocab_len: session.model().config().vocab_len.min(model.config().vocab_len),
            ends: model.config().eos.clone(),
            length: FIRST.min(most),
            most,
            sequence: Vec::new(),
            handed_out: session.traffic(),
            session,
        })
    }

    /// The smaller model's session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    fn knows(&self, tokens: &[u32]) -> bool {
        tokens.iter().all(|&token| (token as usize) < self.vocab_len)
    }

    /// Runs the tokens of the sequence that the session lacks; always the last token, for its
    /// logits. Returns whether they fit the model.
    fn catch_up(&mut self) -> Result<bool, RuntimeError> {
        let fits = self.sequence.len() <= self.session.context_len();
        let from = self.session.position().min(self.sequence.len().saturating_sub(1));
        if !fits || self.sequence.is_empty() || !self.knows(&self.sequence[from..]) {
            return Ok(false);
        }
        self.session.truncate(from);
        self.session.prefill(&self.sequence[from..])?;
        Ok(true)
    }
}

impl Drafter for DraftModel {
    fn most(&self) -> usize {
        self.most
    }

    fn begin(&mut self, sequence: &[u32]) -> Result<(), RuntimeError> {
        self.sequence.clear();
        self.sequence.extend_from_slice(sequence);
        let pairs = self.session.tokens().iter().zip(sequence);
        let common = pairs.take_while(|(old, new)| old == new).count();
        self.session.truncate(common);
        // Leave the last token for the first draft, so that it is run only once.
        let ready = sequence.len().saturating_sub(1);
        let new = sequence.get(common..ready).unwrap_or_default();
        if !new.is_empty() && ready <= self.session.context_len() && self.knows(new) {
            self.session.prefill(new)?;
        }
        Ok(())
    }

    fn push(&mut self, token: u32) {
        let at = self.sequence.len();
        if self.session.tokens().get(at).is_some_and(|&drafted| drafted != token) {
            self.session.truncate(at);
        }
        self.sequence.push(token);
    }

    fn draft(&mut self, most: usize, sampler: &mut Sampler, draft: &mut Draft) -> Result<(), RuntimeError> {
        let most = most.min(self.length);
        if most == 0 || !self.catch_up()? {
            return Ok(());
        }
        loop {
            let token = draft.draw(sampler, &self.session.logits()[..self.vocab_len])?;
            let is_last = draft.tokens().len() == most || self.ends.contains(&token);
            if is_last || self.session.position() == self.session.context_len() {
                return Ok(());
            }
            self.session.step(token)?;
        }
    }

    fn judged(&mut self, drafted: usize, accepted: usize) {
        self.length = match drafted == accepted {
            true => (self.length + 2).min(self.most),
            false => (self.length - 1).max(1),
        };
    }

    fn take_traffic(&mut self) -> Traffic {
        let traffic = self.session.traffic() - self.handed_out;
        self.handed_out = self.session.traffic();
        traffic
    }
}
