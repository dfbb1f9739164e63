//! Tokens drafted ahead, and a context that fills up: what `pith run` and `pith chat` share of a reply.

use crate::args::SessionArgs;
use crate::output::{bytes, rounded};
use crate::session::open_model;
use clap::{Args, ValueEnum, ValueHint};
use pith_runtime::{
    DEFAULT_DRAFT_TOKENS, DraftModel, Drafter, FullContext, Lookup, NoDrafter, Outcome, Session,
    SessionOptions, Totals,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// How a reply is drafted, and what it does in a full context.
#[derive(Debug, Args)]
pub struct ReplyArgs {
    /// Draft what followed the last time the same words stood there, and check several tokens at once: faster where
    /// text is copied, and the same text
    #[arg(long, conflicts_with = "draft", help_heading = "Speculation")]
    pub lookup: bool,
    /// Draft by a smaller model with the same vocabulary, and check several tokens at once: the same text where it is
    /// greedy, text from the same distribution otherwise
    #[arg(
        long,
        visible_alias = "model-draft",
        value_name = "MODEL",
        value_hint = ValueHint::FilePath,
        help_heading = "Speculation"
    )]
    pub draft: Option<PathBuf>,
    /// Most tokens drafted for one check; more than 10 are not used
    #[arg(
        long,
        visible_alias = "draft-max",
        value_name = "N",
        default_value_t = DEFAULT_DRAFT_TOKENS,
        help_heading = "Speculation"
    )]
    pub draft_tokens: usize,
    /// What happens when the context is full
    #[arg(long, value_enum, default_value_t = FullArg::Stop, value_name = "WHAT")]
    pub context_full: FullArg,
    /// Tokens at the beginning that a shift keeps [default: the tokenizer's own; in a chat, all before the first
    /// message]
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
}

/// What happens when the context is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FullArg {
    /// The reply ends
    Stop,
    /// The first tokens stay (--keep), half of the others is dropped, and the rest is computed anew in its new place
    Shift,
}

impl ReplyArgs {
    /// What a full context leads to, keeping `begin` tokens unless told otherwise.
    pub fn full_context(&self, begin: usize) -> FullContext {
        match self.context_full {
            FullArg::Stop => FullContext::Stop,
            FullArg::Shift => FullContext::Shift { keep: self.keep.unwrap_or(begin) },
        }
    }
}

/// What drafts for `session`, by the options; nothing without them.
pub fn drafter(
    args: &ReplyArgs,
    options: &SessionArgs,
    session: &Session,
) -> anyhow::Result<Box<dyn Drafter>> {
    anyhow::ensure!(
        args.keep.is_none() || args.context_full == FullArg::Shift,
        "--keep says what a shift keeps, and needs --context-full shift"
    );
    let Some(path) = &args.draft else {
        return Ok(if args.lookup { Box::new(Lookup::new(args.draft_tokens)?) } else { Box::new(NoDrafter) });
    };
    let model = Arc::new(open_model(path)?);
    let options = SessionOptions {
        // As long as it can follow; behind that nothing is drafted.
        context_len: Some(session.context_len().min(model.config().context_len)),
        kv_type: options.kv.into(),
        batch: options.batch,
        ..SessionOptions::default()
    };
    // Models take turns, so one set of threads does for both.
    let draft = Session::with_engine(session.engine(), model, options)?;
    Ok(Box::new(DraftModel::new(draft, session.model(), args.draft_tokens)?))
}

/// Lines for people: what was drafted, and how often the context was shifted.
pub fn lines(outcome: &Outcome, decode: &Totals) -> String {
    let mut lines = String::new();
    let speculation = &outcome.speculation;
    if let Some(acceptance) = speculation.acceptance() {
        lines += &format!(
            "draft   {:>5} tokens, {} accepted ({:.1} %): {:.2} tokens a pass, {} a token kept\n",
            speculation.drafted,
            speculation.accepted,
            100.0 * acceptance,
            tokens_per_pass(outcome, decode).unwrap_or_default(),
            bytes(moved_bytes(decode)),
        );
    }
    if outcome.shifts > 0 {
        lines += &format!("context {:>5} times half of it was dropped\n", outcome.shifts);
    }
    lines
}

/// The same for programs; null where nothing was drafted.
pub fn to_json(outcome: &Outcome, decode: &Totals) -> Value {
    let speculation = &outcome.speculation;
    let Some(acceptance) = speculation.acceptance() else { return Value::Null };
    json!({
        "passes": speculation.passes,
        "drafted": speculation.drafted,
        "accepted": speculation.accepted,
        "acceptance": rounded(acceptance, 4),
        "tokens_per_pass": tokens_per_pass(outcome, decode).map(|rate| rounded(rate, 3)),
        "bytes_per_token": moved_bytes(decode),
    })
}

/// Bytes of weights and cache, of both models, for every token of the reply.
fn moved_bytes(decode: &Totals) -> u64 {
    let traffic = &decode.traffic;
    let cache = traffic.kv_read_bytes + traffic.kv_write_bytes;
    (traffic.weight_bytes + traffic.embedding_bytes + cache) / decode.tokens.max(1) as u64
}

fn tokens_per_pass(outcome: &Outcome, decode: &Totals) -> Option<f64> {
    let passes = outcome.speculation.passes;
    (passes > 0).then(|| decode.tokens as f64 / passes as f64)
}
