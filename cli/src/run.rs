//! `pith run`

use crate::args::{RunArgs, SamplerArgs};
use crate::ledger::Recording;
use crate::{interrupt, output, prompt_cache, session, speculate, tokenize};
use pith_boards::{Stretch, Watch};
use pith_runtime::{
    FullContext, GenerateOptions, Ledger, Outcome, Phase, Sampler, SamplerOptions, StopReason,
};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

/// Continues a prompt on standard output; statistics go to standard error.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let mut sampler = sampler(&args.sampler)?;
    let (model, mut session) = session::open(&args.model, &args.session, session::two_stage(&args.sampler))?;
    let mut drafter = speculate::drafter(&args.reply, &args.session, &session)?;
    let prompt = prompt(&args)?;
    anyhow::ensure!(!prompt.is_empty(), "the prompt is empty; give --prompt, --file or standard input");
    let tokens = model.tokenizer()?.encode(&prompt, !args.no_special)?;

    let begin = if args.no_special { 0 } else { model.tokenizer()?.prefix_ids().len() };
    let full_context = args.reply.full_context(begin);
    // Before the prompt is echoed.
    anyhow::ensure!(
        full_context != FullContext::Stop || tokens.len() <= session.context_len(),
        "the prompt has {} tokens, the context holds {}; shorten it, raise --context, or take --context-full shift",
        tokens.len(),
        session.context_len()
    );
    let restored = prompt_cache::restore(&args.cache, &mut session, &tokens)?;
    let options = GenerateOptions {
        max_tokens: Some(args.max_tokens),
        stops: args.stop.clone(),
        ignore_eos: args.ignore_eos,
        full_context,
    };
    let mut recording = Recording::begin(&args.ledger, &session)?;
    let ledger = &mut recording.ledger;
    interrupt::listen()?;
    let mut out = std::io::stdout().lock();
    if !args.json && !args.no_echo {
        write!(out, "{prompt}")?;
        out.flush()?;
    }
    let drafter = drafter.as_mut();
    let mut watch = Watch::begin(Path::new("/"));
    let generation = session.generate(&tokens, &mut sampler, options);
    let mut generation = generation.with_drafter(drafter).with_ledger(ledger);
    for token in &mut generation {
        let text = token?.text;
        watch.look();
        if !args.json && !text.is_empty() {
            write!(out, "{text}").and_then(|()| out.flush())?;
        }
        if interrupt::pressed() {
            break;
        }
    }
    let outcome = generation.finish();
    let heat = watch.finish();
    prompt_cache::save_prompt(&args.cache, &session, tokens.len(), restored)?;
    prompt_cache::save_all(&args.cache, &session)?;
    if args.json {
        writeln!(out, "{:#}", to_json(&prompt, &outcome, ledger, &heat))?;
    } else {
        writeln!(out)?;
        if !args.no_stats {
            eprint!("{}", statistics(&outcome, ledger, &heat));
        }
    }
    recording.finish()?;
    Ok(if interrupt::pressed() { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// A sampler from options; the seed is the clock's where none is given.
pub fn sampler(args: &SamplerArgs) -> anyhow::Result<Sampler> {
    let clock =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let options = SamplerOptions {
        temperature: if args.greedy { 0.0 } else { args.temperature },
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repeat_penalty: args.repeat_penalty,
        repeat_window: args.repeat_last,
        seed: args.seed.unwrap_or_else(clock),
    };
    Ok(Sampler::new(options)?)
}

fn prompt(args: &RunArgs) -> anyhow::Result<String> {
    match (&args.prompt, &args.file) {
        (Some(prompt), _) if args.no_escape => Ok(prompt.clone()),
        (Some(prompt), _) => Ok(unescape(prompt)),
        (None, Some(path)) => tokenize::read_text(path),
        (None, None) => {
            if std::io::stdin().is_terminal() {
                eprintln!("reading the prompt from standard input; end it with Ctrl-D");
            }
            tokenize::read_text(Path::new("-"))
        }
    }
}

/// `\n`, `\t`, `\r`, `\\`, `\"` and `\'` as the characters they stand for; any other backslash stays.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let escaped = match (c, rest.clone().next()) {
            ('\\', Some('n')) => Some('\n'),
            ('\\', Some('t')) => Some('\t'),
            ('\\', Some('r')) => Some('\r'),
            ('\\', Some(same @ ('\\' | '"' | '\''))) => Some(same),
            _ => None,
        };
        if escaped.is_some() {
            rest.next();
        }
        out.push(escaped.unwrap_or(c));
    }
    out
}

/// Lines for the prompt and the reply, in tokens per second and bytes per token, for what was drafted, and for what
/// slowed the machine down.
pub fn statistics(outcome: &Outcome, ledger: &Ledger, heat: &Stretch) -> String {
    let line = |name: &str, phase: Phase| {
        let totals = ledger.totals(phase);
        let rate = totals.tokens_per_second().map_or("-".into(), |rate| format!("{rate:.1}"));
        let each = |bytes: u64| output::bytes(bytes / totals.tokens.max(1) as u64);
        let traffic = &totals.traffic;
        format!(
            "{name:<7} {:>5} tokens {rate:>8} tokens/s  {} a token (weights {}, cache {})\n",
            totals.tokens,
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
    let (prompt, reply) = (line("prompt", Phase::Prefill), line("reply", Phase::Decode));
    let extra = speculate::lines(outcome, &ledger.totals(Phase::Decode));
    let heat = heat.warning().map(|warning| format!("heat    {warning}\n")).unwrap_or_default();
    format!("\n{prompt}{reply}{extra}{heat}stopped {reason}\n")
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

/// The reason as a program reads it.
fn reason_name(reason: &StopReason) -> &'static str {
    match reason {
        StopReason::EndOfText(_) => "end_of_text",
        StopReason::StopString(_) => "stop_string",
        StopReason::MaxTokens => "max_tokens",
        StopReason::ContextFull => "context_full",
        StopReason::Interrupted => "interrupted",
    }
}

fn to_json(prompt: &str, outcome: &Outcome, ledger: &Ledger, heat: &Stretch) -> Value {
    json!({
        "prompt": prompt,
        "text": outcome.text,
        "ids": outcome.tokens,
        "prompt_tokens": outcome.prompt_tokens,
        "reused_tokens": outcome.reused_tokens,
        "stopped": reason_name(&outcome.reason),
        "prefill": ledger.totals(Phase::Prefill),
        "decode": ledger.totals(Phase::Decode),
        "speculation": speculate::to_json(outcome, &ledger.totals(Phase::Decode)),
        "context_shifts": outcome.shifts,
        "heat": heat,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_characters() {
        assert_eq!(unescape(r#"a\nb\\n\t\"\q\"#), "a\nb\\n\t\"\\q\\");
    }
}
