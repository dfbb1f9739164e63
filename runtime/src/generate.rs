//! From a prompt to text: choose, stream, stop.

use crate::context::FullContext;
use crate::distribution::Distribution;
use crate::error::RuntimeError;
use crate::ledger::{Ledger, Phase};
use crate::reply::Reply;
use crate::sampler::Sampler;
use crate::session::Session;
use crate::speculate::{Draft, Drafter, NoDrafter, verify};
use pith_kernels::FEW_TOKENS;
use pith_meter::Traffic;
use std::ops::ControlFlow;
use std::sync::Arc;

/// When to stop.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate; as many as the context holds. Must be given where a full context shifts.
    pub max_tokens: Option<usize>,
    /// Text ends before the first of these that appears.
    pub stops: Vec<String>,
    /// Goes on after a token that ends a reply.
    pub ignore_eos: bool,
    /// What happens when the context is full.
    pub full_context: FullContext,
}

/// Why it stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended its reply with this token.
    EndOfText(u32),
    /// This stop string appeared.
    StopString(String),
    /// As many tokens as asked for.
    MaxTokens,
    /// The context holds no more.
    ContextFull,
    /// The receiver of the text asked for it.
    Interrupted,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why it stopped.
    pub reason: StopReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of those, the ones that the session had already.
    pub reused_tokens: usize,
    /// Generated tokens, without the one that ended the reply.
    pub tokens: Vec<u32>,
    /// Their text, special tokens left out, up to a stop string.
    pub text: String,
    /// What speculation did.
    pub speculation: Speculation,
    /// How often half of the context was dropped, for the prompt or for the reply.
    pub shifts: usize,
}

/// What speculation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speculation {
    /// Passes over the model's weights after the prompt; without speculation one a token.
    pub passes: usize,
    /// Tokens that were drafted and checked.
    pub drafted: usize,
    /// Of those, the ones that the reply has: each saved a pass.
    pub accepted: usize,
}

impl Speculation {
    /// The share of drafted tokens that were accepted, `None` where nothing was drafted.
    pub fn acceptance(&self) -> Option<f64> {
        (self.drafted > 0).then(|| self.accepted as f64 / self.drafted as f64)
    }
}

/// Generates a continuation of `prompt`, the whole sequence from its beginning: what the session has of it already is
/// not computed again, so a conversation goes on cheaply.
///
/// `on_text` receives the text piece by piece, never a part of a character and never one of a stop string; it can
/// break off. The session afterwards holds the prompt and the generated tokens but the last, whose logits nobody
/// asked for. `ledger` records the forward calls: the prompt's as one, then one a token; choosing a token and
/// handing out its text are not in it.
pub fn generate(
    session: &mut Session,
    sampler: &mut Sampler,
    prompt: &[u32],
    options: &GenerateOptions,
    ledger: &mut Ledger,
    on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Outcome, RuntimeError> {
    generate_with(session, &mut NoDrafter, sampler, prompt, options, ledger, on_text)
}

/// [`generate`] with tokens drafted by `drafter` and checked several at a time.
///
/// The text is the same where the choice is greedy, or where the drafter is a [`Lookup`](crate::Lookup), whatever the
/// temperature; with a [`DraftModel`](crate::DraftModel) and a temperature it is another text from the same
/// distribution. A call of the ledger then stands for all tokens that were accepted in it, and holds the time and the
/// bytes of drafting too.
pub fn generate_with(
    session: &mut Session,
    drafter: &mut dyn Drafter,
    sampler: &mut Sampler,
    prompt: &[u32],
    options: &GenerateOptions,
    ledger: &mut Ledger,
    on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Outcome, RuntimeError> {
    let model = Arc::clone(session.model());
    let (sequence, shifts) = options.full_context.fit(prompt, session.context_len())?;
    if options.full_context != FullContext::Stop && options.max_tokens.is_none() {
        let (found, expected) = ("not given".into(), "a number where a full context shifts".into());
        return Err(RuntimeError::Option { option: "number of tokens to generate", found, expected });
    }
    let reply = Reply::new(&model, options, on_text)?;

    ledger.start();
    let reused_tokens = session.resume(&sequence)?;
    drafter.begin(&sequence)?;
    let mut traffic = session.last_traffic();
    traffic += drafter.take_traffic();
    ledger.record(Phase::Prefill, sequence.len() - reused_tokens, traffic);
    prompt.iter().for_each(|&token| sampler.accept(token));

    let (draft, scratch) = (Draft::default(), Distribution::default());
    let speculation = Speculation::default();
    let mut run = Run { session, drafter, sampler, ledger, reply, draft, scratch, speculation, shifts };
    let reason = run.finish()?;
    let (speculation, shifts) = (run.speculation, run.shifts);
    let (reason, tokens, text) = run.reply.finish(reason);
    Ok(Outcome { reason, prompt_tokens: prompt.len(), reused_tokens, tokens, text, speculation, shifts })
}

/// A reply that is being generated.
struct Run<'a, F> {
    session: &'a mut Session,
    drafter: &'a mut dyn Drafter,
    sampler: &'a mut Sampler,
    ledger: &'a mut Ledger,
    reply: Reply<'a, F>,
    draft: Draft,
    /// What [`verify`] computes in.
    scratch: Distribution,
    speculation: Speculation,
    shifts: usize,
}

/// What a token led to.
enum Next {
    /// This token was chosen to follow, and has not been looked at.
    Token(u32),
    Stop(StopReason),
}

impl<F: FnMut(&str) -> ControlFlow<()>> Run<'_, F> {
    fn finish(&mut self) -> Result<StopReason, RuntimeError> {
        if self.reply.is_long_enough() {
            return Ok(StopReason::MaxTokens);
        }
        let mut token = self.sampler.sample(self.session.logits())?;
        loop {
            if let Some(reason) = self.take(token) {
                return Ok(reason);
            }
            let is_full = self.session.position() == self.session.context_len();
            if is_full && self.reply.options.full_context == FullContext::Stop {
                return Ok(StopReason::ContextFull);
            }
            if self.reply.is_long_enough() {
                return Ok(StopReason::MaxTokens);
            }
            self.ledger.start();
            let next = if is_full { self.shift(token)? } else { self.pass(token)? };
            token = match next {
                Next::Token(token) => token,
                Next::Stop(reason) => return Ok(reason),
            };
        }
    }

    /// A chosen token becomes part of the reply, or ends it.
    fn take(&mut self, token: u32) -> Option<StopReason> {
        if self.reply.ends_with(token) {
            return Some(StopReason::EndOfText(token));
        }
        self.sampler.accept(token);
        self.drafter.push(token);
        self.reply.push(token)
    }

    /// Runs `token` in a full context: half of it is dropped, and the other half is run again.
    fn shift(&mut self, token: u32) -> Result<Next, RuntimeError> {
        let sequence = [self.session.tokens(), &[token]].concat();
        let (sequence, blocks) =
            self.reply.options.full_context.fit(&sequence, self.session.context_len())?;
        self.session.resume(&sequence)?;
        self.drafter.shift(&sequence)?;
        self.shifts += blocks;
        self.record();
        self.sampler.sample(self.session.logits()).map(Next::Token)
    }

    /// Runs `token` and what is drafted to follow it; the session keeps what was right.
    fn pass(&mut self, token: u32) -> Result<Next, RuntimeError> {
        self.draft.clear();
        let most = self.drafter.most().min(self.room());
        if most > 0 {
            self.drafter.draft(most, self.sampler, &mut self.draft)?;
        }
        self.draft.truncate(most);
        let drafted = self.draft.tokens().len();
        if drafted == 0 {
            self.session.step(token)?;
            self.record();
            return self.sampler.sample(self.session.logits()).map(Next::Token);
        }
        let first = self.session.position();
        let tokens = [&[token], self.draft.tokens()].concat();
        // A drafter may speak of tokens that the model does not have; then the session is as it was.
        self.session.step_all(&tokens)?;
        let traffic = self.traffic();
        self.ledger.measure(Phase::Decode, 1, traffic);
        let (next, accepted) = self.check();
        self.session.truncate(first + 1 + accepted);
        self.ledger.share(drafted, accepted);
        self.drafter.judged(drafted, accepted);
        self.speculation.drafted += drafted;
        self.speculation.accepted += accepted;
        next
    }

    /// Goes through the logits of the draft's pass until the model would go on otherwise, and says how and where.
    fn check(&mut self) -> (Result<Next, RuntimeError>, usize) {
        let drafted = self.draft.tokens().len();
        for index in 0..drafted {
            let logits = self.session.logits_at(index);
            let token = match verify(self.sampler, logits, &self.draft, index, &mut self.scratch) {
                Ok(token) => token,
                Err(error) => return (Err(error), index),
            };
            if token != self.draft.tokens()[index] {
                return (Ok(Next::Token(token)), index);
            }
            if let Some(reason) = self.take(token) {
                return (Ok(Next::Stop(reason)), index);
            }
        }
        (self.sampler.sample(self.session.logits_at(drafted)).map(Next::Token), drafted)
    }

    /// Most tokens that can be drafted: what fits in a call that gives the bits of single steps, in the context, and in
    /// the reply, whose last token is the model's own.
    fn room(&self) -> usize {
        let context = self.session.context_len() - self.session.position();
        let reply = self.reply.options.max_tokens.map_or(usize::MAX, |most| most - self.reply.tokens.len());
        context.min(reply).min(self.session.batch()).min(FEW_TOKENS - 1) - 1
    }

    fn record(&mut self) {
        let traffic = self.traffic();
        self.ledger.record(Phase::Decode, 1, traffic);
    }

    /// What the last pass and the drafting for it moved.
    fn traffic(&mut self) -> Traffic {
        self.speculation.passes += 1;
        let mut traffic = self.session.last_traffic();
        traffic += self.drafter.take_traffic();
        traffic
    }
}
