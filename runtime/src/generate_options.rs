//! Options and outcome of a generation.

use crate::context::FullContext;

/// Options of a generation.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate. Default: as many as the context holds. Required where a full
    /// context shifts.
    pub max_tokens: Option<usize>,
    /// Stop strings: the text ends before the first that appears.
    pub stops: Vec<String>,
    /// Continues after a token that ends a reply.
    pub ignore_eos: bool,
    /// Policy for a full context.
    pub full_context: FullContext,
}

/// Reason for the end of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended its reply with this token.
    EndOfText(u32),
    /// This stop string appeared.
    StopString(String),
    /// The requested number of tokens was reached.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// The caller asked for no more tokens, or an error ended the generation.
    Interrupted,
}

/// Outcome of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Reason for the end.
    pub reason: StopReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that the session already had.
    pub reused_tokens: usize,
    /// Generated tokens, without the one that ended the reply.
    pub tokens: Vec<u32>,
    /// Text of the tokens up to a stop string, without special tokens. It continues the prompt's
    /// text, so it may begin with a space.
    pub text: String,
    /// Speculation figures.
    pub speculation: Speculation,
    /// Number of context shifts, for the prompt and the reply.
    pub shifts: usize,
}

/// Speculation figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speculation {
    /// Passes over the model's weights after the prompt; one per token without speculation.
    pub passes: usize,
    /// Tokens drafted and checked.
    pub drafted: usize,
    /// Drafted tokens that became part of the reply; each saved a pass.
    pub accepted: usize,
}

impl Speculation {
    /// Share of drafted tokens that were accepted; `None` where nothing was drafted.
    pub fn acceptance(&self) -> Option<f64> {
        (self.drafted > 0).then(|| self.accepted as f64 / self.drafted as f64)
    }
}
