//! Options of a reply: drafted tokens and a full context; and the statistics of a finished reply.

use super::session::SessionArgs;
use crate::output::{bytes, rounded};
use clap::{Args, ValueEnum, ValueHint};
use pith_boards::Stretch;
use pith_runtime::{
    DEFAULT_DRAFT_TOKENS, DraftModel, Drafter, FullContext, Ledger, Lookup, Model, NoDrafter, Outcome, Phase,
    Session, SessionOptions, StopReason, Totals,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Drafting of a reply, and its behaviour in a full context.
#[derive(Debug, Args)]
pub struct ReplyArgs {
    /// Draft the tokens that followed the same words earlier, and check several in one pass: the
    /// same text, but faster where text is copied
    #[arg(long, conflicts_with = "draft", help_heading = "Speculation")]
    pub lookup: bool,
    /// Draft with a smaller model of the same vocabulary, and check several tokens in one pass: the
    /// same text with --greedy, text of the same distribution otherwise
    #[arg(
        long,
        visible_alias = "model-draft",
        value_name = "MODEL",
        value_hint = ValueHint::FilePath,
        help_heading = "Speculation"
    )]
    pub draft: Option<PathBuf>,
    /// Maximum number of tokens drafted per pass; more than 10 are not used
    #[arg(
        long,
        visible_alias = "draft-max",
        value_name = "N",
        default_value_t = DEFAULT_DRAFT_TOKENS,
        help_heading = "Speculation"
    )]
    pub draft_tokens: usize,
    /// Behaviour when the context is full
    #[arg(long, value_enum, default_value_t = FullArg::Stop, value_name = "WHAT")]
    pub context_full: FullArg,
    /// Number of first tokens that a shift keeps [default: the tokenizer's own; in a chat, all
    /// before the first message]
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
}

/// Behaviour when the context is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FullArg {
    /// End the reply
    Stop,
    /// Keep the first tokens (--keep), drop half of the others, and recompute the remaining ones in
    /// their new place
    Shift,
}

impl ReplyArgs {
    /// The runtime's setting for a full context; keeps `begin` tokens by default.
    pub fn full_context(&self, begin: usize) -> FullContext {
        match self.context_full {
            FullArg::Stop => FullContext::Stop,
            FullArg::Shift => FullContext::Shift { keep: self.keep.unwrap_or(begin) },
        }
    }

    /// The requested drafter for `session`.
    pub fn drafter(&self, options: &SessionArgs, session: &Session) -> anyhow::Result<Box<dyn Drafter>> {
        anyhow::ensure!(
            self.keep.is_none() || self.context_full == FullArg::Shift,
            "--keep says what a shift keeps, and needs --context-full shift"
        );
        let Some(path) = &self.draft else {
            return Ok(if self.lookup {
                Box::new(Lookup::new(self.draft_tokens)?)
            } else {
                Box::new(NoDrafter)
            });
        };
        let pass = &options.pass;
        let options = |context_len| SessionOptions {
            context_len,
            kv_type: pass.cache.kv.into(),
            batch: pass.batch,
            ..SessionOptions::default()
        };
        let model = Arc::new(pass.open(path, &options(None))?);
        // As far as it can follow; beyond that nothing is drafted.
        let context_len = session.context_len().min(model.config().context_len);
        // The models take turns, so they share one set of threads.
        let draft = Session::with_engine(session.engine(), model, options(Some(context_len)))?;
        Ok(Box::new(DraftModel::new(draft, session.model(), self.draft_tokens)?))
    }
}

/// Lines about where the weights lie; about the prompt and the reply, in tokens per second and bytes per token; about drafted
/// tokens; and about throttling.
pub fn statistics(model: &Model, outcome: &Outcome, ledger: &Ledger, heat: &Stretch) -> String {
    // The first token of a reply comes from the prompt's pass, so it has no pass of its own.
    let line = |name: &str, phase: Phase, tokens: usize| {
        let totals = ledger.totals(phase);
        let rate = totals.tokens_per_second().map_or("-".into(), |rate| format!("{rate:.1}"));
        let each = |count: u64| bytes(count / totals.tokens.max(1) as u64);
        let traffic = &totals.traffic;
        format!(
            "{name:<7} {tokens:>5} tokens {rate:>8} tokens/s  {} a token (weights {}, cache {})\n",
            each(
                traffic.weight_bytes
                    + traffic.embedding_bytes
                    + traffic.kv_read_bytes
                    + traffic.kv_write_bytes
            ),
            each(traffic.weight_bytes + traffic.embedding_bytes),
            each(traffic.kv_read_bytes + traffic.kv_write_bytes),
        )
    };
    let reason = reason(&outcome.reason);
    let prompt = line("prompt", Phase::Prefill, ledger.totals(Phase::Prefill).tokens);
    let reply = line("reply", Phase::Decode, outcome.tokens.len());
    let extra = lines(outcome, &ledger.totals(Phase::Decode));
    let heat = heat.warning().map(|warning| format!("heat    {warning}\n")).unwrap_or_default();
    let pages = format!("weights {}\n", model.pages());
    format!("\n{pages}{prompt}{reply}{extra}{heat}stopped {reason}\n")
}

fn reason(reason: &StopReason) -> String {
    match reason {
        StopReason::EndOfText(_) => "at the end of the text".into(),
        StopReason::StopString(text) => format!("at the stop string {text:?}"),
        StopReason::MaxTokens => "after the most tokens allowed".into(),
        StopReason::ContextFull => "because the context is full".into(),
        StopReason::Interrupted => "by request".into(),
    }
}

/// Lines about drafted tokens and shifts of the context.
fn lines(outcome: &Outcome, decode: &Totals) -> String {
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

/// The same as JSON; null where nothing was drafted.
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

/// Bytes of weights and cache per token of the reply, for both models.
fn moved_bytes(decode: &Totals) -> u64 {
    let traffic = &decode.traffic;
    let cache = traffic.kv_read_bytes + traffic.kv_write_bytes;
    (traffic.weight_bytes + traffic.embedding_bytes + cache) / decode.tokens.max(1) as u64
}

fn tokens_per_pass(outcome: &Outcome, decode: &Totals) -> Option<f64> {
    let passes = outcome.speculation.passes;
    (passes > 0).then(|| decode.tokens as f64 / passes as f64)
}
