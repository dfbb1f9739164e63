//! `pith run`

use crate::interrupt;
use crate::options::prompt_cache::PromptCacheArgs;
use crate::options::recording::{LedgerArgs, Recording};
use crate::options::reply::{self, ReplyArgs};
use crate::options::sampler::SamplerArgs;
use crate::options::session::SessionArgs;
use crate::options::template::{TemplateArgs, system_message};
use crate::text::read_text;
use clap::{Args, ValueHint};
use pith_boards::{Stretch, Watch};
use pith_runtime::{
    FullContext, GenerateOptions, Ledger, Message, Model, Outcome, Phase, Sampler, StopReason,
};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `pith run`
#[derive(Debug, Args)]
#[command(mut_arg("template", |arg| arg.requires("chat")))]
#[command(mut_arg("template_arg", |arg| arg.requires("chat")))]
pub struct RunArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// The prompt [default: standard input, without its last newline]
    #[arg(short, long, conflicts_with = "file")]
    pub prompt: Option<String>,
    /// Keep backslashes in --prompt; by default \n, \t, \\ and \" stand for their characters
    #[arg(long)]
    pub no_escape: bool,
    /// Read the prompt from a file; - is standard input
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Send the prompt as a user's message of a chat, by the model's template, and print the reply
    #[arg(long, conflicts_with = "no_special")]
    pub chat: bool,
    /// System message before the prompt
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub system: Option<String>,
    #[command(flatten)]
    pub template: TemplateArgs,
    /// Maximum number of tokens to generate
    #[arg(short = 'n', long, default_value_t = 256, value_name = "N")]
    pub max_tokens: usize,
    /// Stop at this text (may be repeated)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Continue after end-of-text tokens
    #[arg(long)]
    pub ignore_eos: bool,
    /// Do not add the tokenizer's special tokens to the prompt
    #[arg(long)]
    pub no_special: bool,
    /// Print the reply without the prompt
    #[arg(long)]
    pub no_echo: bool,
    /// Print no statistics
    #[arg(long)]
    pub no_stats: bool,
    /// Print text and statistics as JSON at the end
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub ledger: LedgerArgs,
    #[command(flatten)]
    pub cache: PromptCacheArgs,
    #[command(flatten)]
    pub sampler: SamplerArgs,
    #[command(flatten)]
    pub reply: ReplyArgs,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// Continues a prompt on standard output; prints statistics on standard error.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let two_stage = |model: &Model| args.sampler.two_stage_logits(&args.sampler.options(model));
    let (model, mut session) = args.session.open_with(&args.model, two_stage)?;
    let mut sampler = Sampler::new(args.sampler.options(&model))?;
    let mut drafter = args.reply.drafter(&args.session, &session)?;
    let prompt = prompt(&args)?;
    anyhow::ensure!(!prompt.is_empty(), "the prompt is empty; give --prompt, --file or standard input");
    let (tokens, begin) = tokens(&args, &model, &prompt)?;
    let full_context = args.reply.full_context(begin);
    // Before the prompt is echoed.
    anyhow::ensure!(
        full_context != FullContext::Stop || tokens.len() <= session.context_len(),
        "the prompt has {} tokens, the context holds {}; shorten it, raise --context, or take --context-full shift",
        tokens.len(),
        session.context_len()
    );
    let restored = args.cache.restore(&mut session, &tokens)?;
    let options = GenerateOptions {
        max_tokens: Some(args.max_tokens),
        stops: args.stop.clone(),
        ignore_eos: args.ignore_eos,
        full_context,
    };
    let mut recording = Recording::begin(&args.ledger, &session, &inputs(&args))?;
    let ledger = &mut recording.ledger;
    interrupt::listen()?;
    let mut out = std::io::stdout().lock();
    if !args.json && !args.no_echo && !args.chat {
        write!(out, "{prompt}")?;
        out.flush()?;
    }
    let drafter = drafter.as_mut();
    let mut watch = Watch::begin(Path::new("/"));
    let generation = session.generate(&tokens, &mut sampler, options);
    let mut generation = generation.with_drafter(drafter).with_ledger(ledger);
    // A chat's reply is shown without the prompt, and so without the white space between them.
    let mut begun = !args.chat;
    let mut saved = false;
    while let Some(token) = generation.next() {
        let text = token?.text;
        let text = if begun { &text } else { text.trim_start() };
        begun |= !text.is_empty();
        watch.look();
        if !args.json && !text.is_empty() {
            write!(out, "{text}").and_then(|()| out.flush())?;
        }
        if !std::mem::replace(&mut saved, true) {
            args.cache.save_prompt(generation.session(), tokens.len(), restored)?;
        }
        if interrupt::pressed() {
            break;
        }
    }
    if !saved {
        args.cache.save_prompt(generation.session(), tokens.len(), restored)?;
    }
    let outcome = generation.finish();
    let heat = watch.finish();
    args.cache.save_all(&session)?;
    if args.json {
        writeln!(out, "{:#}", to_json(&prompt, &outcome, ledger, &heat))?;
    } else {
        writeln!(out)?;
        if !args.no_stats {
            eprint!("{}", reply::statistics(&model, &outcome, ledger, &heat));
        }
    }
    note_chat(&args, &model, &outcome);
    recording.finish()?;
    Ok(if interrupt::pressed() { ExitCode::from(interrupt::exit_code()) } else { ExitCode::SUCCESS })
}

/// Says what the model is made for where a raw prompt ended at once.
fn note_chat(args: &RunArgs, model: &Model, outcome: &Outcome) {
    let ended_at_once = outcome.text.trim().is_empty() && matches!(outcome.reason, StopReason::EndOfText(_));
    if ended_at_once && !args.chat && model.metadata().chat_template.is_some() {
        let path = args.model.display();
        eprintln!(
            "note: the model ended the text at once; it is made for chats: try --chat, or pith chat {path}"
        );
    }
}

/// The prompt's tokens, and the number of those at its beginning that a shift of the context keeps.
fn tokens(args: &RunArgs, model: &Model, prompt: &str) -> anyhow::Result<(Vec<u32>, usize)> {
    let tokenizer = model.tokenizer()?;
    if !args.chat {
        let begin = if args.no_special { 0 } else { tokenizer.prefix_ids().len() };
        return Ok((tokenizer.encode(prompt, !args.no_special)?, begin));
    }
    let mut messages = system_message(args.system.as_deref());
    messages.push(Message::new("user", prompt));
    let template = args.template.open(&args.model, model)?;
    let tokens = template.encode(tokenizer, &messages, true)?;
    let begin = usize::from(tokens.first().copied() == model.config().bos);
    Ok((tokens, begin))
}

/// The files that a run reads.
fn inputs(args: &RunArgs) -> Vec<PathBuf> {
    let optional = [&args.file, &args.reply.draft, &args.cache.session, &args.template.template];
    iter::once(&args.model).chain(optional.into_iter().flatten()).cloned().collect()
}

fn prompt(args: &RunArgs) -> anyhow::Result<String> {
    match (&args.prompt, &args.file) {
        (Some(prompt), _) if args.no_escape => Ok(prompt.clone()),
        (Some(prompt), _) => Ok(unescape(prompt)),
        (None, Some(path)) if path != Path::new("-") => read_text(path),
        (None, _) => {
            if std::io::stdin().is_terminal() {
                eprintln!("reading the prompt from standard input; end it with Ctrl-D");
            }
            Ok(without_final_newline(read_text(Path::new("-"))?))
        }
    }
}

/// A shell's `echo` ends a piped prompt with a newline, which is no part of it. Removes one.
fn without_final_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// Replaces `\n`, `\t`, `\r`, `\\`, `\"` and `\'` with their characters; keeps any other backslash.
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

/// The name of the reason in JSON.
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
        "reply_tokens": outcome.tokens.len(),
        "stopped": reason_name(&outcome.reason),
        "prefill": ledger.totals(Phase::Prefill),
        "decode": ledger.totals(Phase::Decode),
        "speculation": reply::to_json(outcome, &ledger.totals(Phase::Decode)),
        "context_shifts": outcome.shifts,
        "heat": heat,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_at_the_end_of_a_piped_prompt_is_dropped() {
        for (piped, prompt) in
            [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a"), ("\n", ""), ("", "")]
        {
            assert_eq!(without_final_newline(piped.into()), prompt, "{piped:?}");
        }
    }

    #[test]
    fn escapes_become_characters() {
        assert_eq!(unescape(r#"a\nb\\n\t\"\q\"#), "a\nb\\n\t\"\\q\\");
    }
}
