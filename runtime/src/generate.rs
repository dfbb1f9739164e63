//! What a reply is asked to be, and what became of it.

use crate::context::FullContext;

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
    /// No more tokens were asked for, or an error ended it.
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
