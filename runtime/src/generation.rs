//! Text generation: choose a token, hand it out, run it.

use crate::context::FullContext;
use crate::distribution::Distribution;
use crate::error::RuntimeError;
use crate::generate_options::{GenerateOptions, Outcome, Speculation, StopReason};
use crate::ledger::{Ledger, Phase};
use crate::reply::Reply;
use crate::sampler::Sampler;
use crate::session::Session;
use crate::speculate::{Draft, Drafter, verify};
use pith_kernels::FEW_TOKENS;
use pith_meter::Traffic;
use std::sync::Arc;

/// A token of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Token id.
    pub id: u32,
    /// Text that is certain with this token: whole characters, no part of a stop string, no special
    /// tokens. Empty while a character or a possible stop string is incomplete. The pieces of all
    /// tokens concatenate to [`Outcome::text`].
    pub text: String,
    /// Whether this token ended the reply ([`StopReason::EndOfText`]). It is then not in
    /// [`Outcome::tokens`], and its text is the text held back until now.
    pub is_end: bool,
}

/// Iterator over the tokens of a reply.
///
/// Made by [`Session::generate`]. Each call of `next` computes one more token. The caller may stop
/// at any token. A generation that is dropped or [finished](Generation::finish) after its first
/// token leaves in the session the prompt and all tokens handed out except the last, whose logits were not needed yet.
/// After an error there are no more tokens.
///
/// ```no_run
/// # use pith_runtime::{GenerateOptions, Sampler, Session};
/// # fn reply(session: &mut Session, prompt: &[u32], sampler: &mut Sampler) -> Result<(), pith_runtime::RuntimeError> {
/// let mut generation = session.generate(prompt, sampler, GenerateOptions::default());
/// for token in &mut generation {
///     print!("{}", token?.text);
/// }
/// println!("\n{:?}", generation.finish().reason);
/// # Ok(())
/// # }
/// ```
pub struct Generation<'a> {
    session: &'a mut Session,
    sampler: &'a mut Sampler,
    drafter: Option<&'a mut dyn Drafter>,
    ledger: Option<&'a mut Ledger>,
    prompt: &'a [u32],
    options: GenerateOptions,
    /// `None` before the first token is requested.
    reply: Option<Reply>,
    state: State,
    reason: Option<StopReason>,
    reused_tokens: usize,
    draft: Draft,
    /// Working memory of [`verify`].
    scratch: Distribution,
    speculation: Speculation,
    shifts: usize,
}

/// The work needed for the next token.
#[derive(Clone, Copy)]
enum State {
    /// Run the prompt.
    Begin,
    /// Hand out this token, already chosen.
    Chosen(u32),
    /// Run this token, already handed out.
    Taken(u32),
    /// Check the draft's token `index`. The pass that computed its logits began at position
    /// `first`, with the token before the draft.
    Check {
        first: usize,
        index: usize,
    },
    Done,
}

impl Session {
    /// Generates a continuation of `prompt`, which is the whole sequence from its beginning. The
    /// part that the session already holds is not computed again, so a conversation continues
    /// cheaply.
    ///
    /// Nothing is computed before the first token is requested; errors of the prompt and of the
    /// options are returned then.
    pub fn generate<'a>(
        &'a mut self,
        prompt: &'a [u32],
        sampler: &'a mut Sampler,
        options: GenerateOptions,
    ) -> Generation<'a> {
        Generation {
            session: self,
            sampler,
            drafter: None,
            ledger: None,
            prompt,
            options,
            reply: None,
            state: State::Begin,
            reason: None,
            reused_tokens: 0,
            draft: Draft::default(),
            scratch: Distribution::default(),
            speculation: Speculation::default(),
            shifts: 0,
        }
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Token, RuntimeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let advanced = match self.state {
                State::Begin => self.begin().map(|()| None),
                State::Chosen(token) => Ok(Some(self.hand_out(token))),
                State::Taken(token) => self.run(token).map(|()| None),
                State::Check { first, index } => self.check(first, index),
                State::Done => return None,
            };
            match advanced {
                Ok(None) => {}
                Ok(Some(token)) => return Some(Ok(token)),
                Err(error) => {
                    self.state = State::Done;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::iter::FusedIterator for Generation<'_> {}

impl<'a> Generation<'a> {
    /// Speculates: `drafter` proposes tokens, and one pass checks several.
    ///
    /// The text is the same under greedy choice, or with a [`Lookup`](crate::Lookup) drafter at any
    /// temperature. With a [`DraftModel`](crate::DraftModel) and a temperature it is another text
    /// from the same distribution. One entry of the ledger then covers all tokens accepted in a
    /// pass, and includes the time and bytes of drafting.
    pub fn with_drafter(mut self, drafter: &'a mut dyn Drafter) -> Self {
        self.drafter = Some(drafter);
        self
    }

    /// Records the forward passes in `ledger`: one entry for the prompt, then one per token. The
    /// time of choosing a token, and the caller's time between tokens, are not included.
    pub fn with_ledger(mut self, ledger: &'a mut Ledger) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// The session. After the first token it holds the prompt and the logits after it.
    pub fn session(&self) -> &Session {
        self.session
    }

    /// Ends the generation, complete or not, and returns the result.
    pub fn finish(mut self) -> Outcome {
        self.leave();
        let reply = self.reply.take();
        let (tokens, text) = reply.map(|reply| (reply.tokens, reply.text)).unwrap_or_default();
        Outcome {
            reason: self.reason.take().unwrap_or(StopReason::Interrupted),
            prompt_tokens: self.prompt.len(),
            reused_tokens: self.reused_tokens,
            tokens,
            text,
            speculation: self.speculation,
            shifts: self.shifts,
        }
    }

    /// Runs the prompt.
    fn begin(&mut self) -> Result<(), RuntimeError> {
        let (full_context, context_len) = (self.options.full_context, self.session.context_len());
        let (sequence, shifts) = full_context.fit(self.prompt, context_len)?;
        if full_context != FullContext::Stop && self.options.max_tokens.is_none() {
            let (found, expected) = ("not given".into(), "a number where a full context shifts".into());
            return Err(RuntimeError::Option { option: "number of tokens to generate", found, expected });
        }
        let stops = std::mem::take(&mut self.options.stops);
        self.reply = Some(Reply::new(Arc::clone(self.session.model()), self.prompt, stops)?);
        self.shifts = shifts;

        self.start_ledger();
        self.reused_tokens = self.session.resume(&sequence)?;
        if let Some(drafter) = &mut self.drafter {
            drafter.begin(&sequence)?;
        }
        let traffic = self.traffic();
        if let Some(ledger) = &mut self.ledger {
            ledger.record(Phase::Prefill, sequence.len() - self.reused_tokens, traffic);
        }
        self.prompt.iter().for_each(|&token| self.sampler.accept(token));
        if self.options.max_tokens == Some(0) {
            self.end(StopReason::MaxTokens);
            return Ok(());
        }
        self.state = State::Chosen(self.sampler.sample(self.session.logits())?);
        Ok(())
    }

    /// Adds a chosen token to the reply, or ends the reply with it.
    fn hand_out(&mut self, id: u32) -> Token {
        let mut token = self.take(id);
        if let State::Done = self.state {
            return token;
        }
        self.state = State::Taken(id);
        let is_full = self.session.position() == self.session.context_len();
        let token_count = self.reply().tokens.len();
        if is_full && self.options.full_context == FullContext::Stop {
            token.text += &self.end(StopReason::ContextFull);
        } else if self.options.max_tokens == Some(token_count) {
            token.text += &self.end(StopReason::MaxTokens);
        }
        token
    }

    fn take(&mut self, id: u32) -> Token {
        let is_end = self.session.model().config().eos.contains(&id) && !self.options.ignore_eos;
        if is_end {
            return Token { id, text: self.end(StopReason::EndOfText(id)), is_end };
        }
        self.sampler.accept(id);
        if let Some(drafter) = &mut self.drafter {
            drafter.push(id);
        }
        let (text, stop) = self.reply().push(id);
        if stop.is_some() {
            (self.state, self.reason) = (State::Done, stop);
        }
        Token { id, text, is_end }
    }

    /// Ends the reply. Returns the text held back, which may turn out to be a stop string.
    fn end(&mut self, reason: StopReason) -> String {
        let (text, stop) = self.reply().finish();
        (self.state, self.reason) = (State::Done, Some(stop.unwrap_or(reason)));
        text
    }

    /// Runs a token that was handed out, then chooses or drafts the following ones.
    fn run(&mut self, token: u32) -> Result<(), RuntimeError> {
        self.start_ledger();
        if self.session.position() == self.session.context_len() {
            return self.shift(token);
        }
        self.draft.clear();
        let room = self.room();
        if let Some(drafter) = &mut self.drafter {
            let most = drafter.most().min(room);
            if most > 0 {
                drafter.draft(most, self.sampler, &mut self.draft)?;
            }
            self.draft.truncate(most);
        }
        if self.draft.tokens().is_empty() {
            self.session.step(token)?;
            return self.choose();
        }
        let first = self.session.position();
        let tokens = [&[token], self.draft.tokens()].concat();
        // A drafter may propose tokens outside the model's vocabulary; the session is then
        // unchanged.
        self.session.step_all(&tokens)?;
        let traffic = self.pass_traffic();
        if let Some(ledger) = &mut self.ledger {
            ledger.measure(Phase::Decode, 1, traffic);
        }
        self.state = State::Check { first, index: 0 };
        Ok(())
    }

    /// Runs `token` in a full context: drops half of the context and runs the other half again.
    fn shift(&mut self, token: u32) -> Result<(), RuntimeError> {
        let sequence = [self.session.tokens(), &[token]].concat();
        let (sequence, blocks) = self.options.full_context.fit(&sequence, self.session.context_len())?;
        self.session.resume(&sequence)?;
        if let Some(drafter) = &mut self.drafter {
            drafter.shift(&sequence)?;
        }
        self.shifts += blocks;
        self.choose()
    }

    /// Ends a pass over a single token.
    fn choose(&mut self) -> Result<(), RuntimeError> {
        let traffic = self.pass_traffic();
        if let Some(ledger) = &mut self.ledger {
            ledger.record(Phase::Decode, 1, traffic);
        }
        self.state = State::Chosen(self.sampler.sample(self.session.logits())?);
        Ok(())
    }

    /// Checks one token of the draft against its logits. Hands it out if the model accepts it;
    /// otherwise ends the check.
    fn check(&mut self, first: usize, index: usize) -> Result<Option<Token>, RuntimeError> {
        let Some(&drafted) = self.draft.tokens().get(index) else {
            let next = self.sampler.sample(self.session.logits_at(index));
            self.settle(first, index);
            self.state = State::Chosen(next?);
            return Ok(None);
        };
        let logits = self.session.logits_at(index);
        let verified = verify(self.sampler, logits, &self.draft, index, &mut self.scratch);
        if !matches!(verified, Ok(token) if token == drafted) {
            self.settle(first, index);
            self.state = State::Chosen(verified?);
            return Ok(None);
        }
        self.state = State::Check { first, index: index + 1 };
        let token = self.take(drafted);
        if let State::Done = self.state {
            self.settle(first, index);
        }
        Ok(Some(token))
    }

    /// Ends the check of a draft; its first `accepted` tokens stay in the session.
    fn settle(&mut self, first: usize, accepted: usize) {
        let drafted = self.draft.tokens().len();
        self.session.truncate(first + 1 + accepted);
        if let Some(ledger) = &mut self.ledger {
            ledger.share(drafted, accepted);
        }
        if let Some(drafter) = &mut self.drafter {
            drafter.judged(drafted, accepted);
        }
        self.speculation.drafted += drafted;
        self.speculation.accepted += accepted;
    }

    /// Brings the session to its final state, wherever the caller stopped.
    fn leave(&mut self) {
        if let State::Check { first, index } = std::mem::replace(&mut self.state, State::Done) {
            // As everywhere, the last token handed out stays unrun.
            self.settle(first, index.saturating_sub(1));
        }
    }

    /// Most tokens that can be drafted. They must fit in a call that is bit-identical to single
    /// steps, in the context, and in the reply, whose last token comes from the model itself.
    fn room(&mut self) -> usize {
        let context = self.session.context_len() - self.session.position();
        let token_count = self.reply().tokens.len();
        let reply = self.options.max_tokens.map_or(usize::MAX, |most| most - token_count);
        context.min(reply).min(self.session.batch()).min(FEW_TOKENS - 1) - 1
    }

    fn reply(&mut self) -> &mut Reply {
        self.reply.as_mut().expect("a reply begins before its first token")
    }

    fn start_ledger(&mut self) {
        if let Some(ledger) = &mut self.ledger {
            ledger.start();
        }
    }

    /// [`Generation::traffic`] after one more pass over the weights.
    fn pass_traffic(&mut self) -> Traffic {
        self.speculation.passes += 1;
        self.traffic()
    }

    /// Traffic of the last call, drafting included.
    fn traffic(&mut self) -> Traffic {
        let mut traffic = self.session.last_traffic();
        if let Some(drafter) = &mut self.drafter {
            traffic += drafter.take_traffic();
        }
        traffic
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
