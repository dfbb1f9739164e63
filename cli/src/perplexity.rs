//! `pith perplexity`

use crate::options::session::SessionArgs;
use crate::output;
use anyhow::Context;
use clap::{Args, ValueHint};
use pith_eval::Perplexity;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// `pith perplexity`
#[derive(Debug, Args)]
pub struct PerplexityArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// The text, UTF-8
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Read only the first N bytes
    #[arg(long, value_name = "N")]
    pub bytes: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// Scores a text in windows of the session's context.
pub fn perplexity(args: PerplexityArgs) -> anyhow::Result<()> {
    let (model, mut session) = args.session.open(&args.model)?;
    let text = read_text(&args)?;
    let tokens = model.tokenizer()?.encode(&text, false)?;
    let room = session.context_len() - usize::from(model.config().bos.is_some());
    let context_len = session.context_len();
    anyhow::ensure!(
        room > 1,
        "a context of {context_len} tokens leaves a window of {room} beside the token that begins a text, a score \
         needs 2; raise --context"
    );
    anyhow::ensure!(tokens.len() > 1, "the text gives {} tokens, a score needs 2", tokens.len());
    let started = Instant::now();
    let found = Perplexity::of(&mut session, &tokens)?;
    let found = found.with_context(|| format!("no token of {} could be scored", args.file.display()))?;
    let seconds = started.elapsed().as_secs_f64();
    let text = if args.json {
        let json = json!({
            "perplexity": found.value(), "nats_per_token": found.nats_per_token, "tokens": found.tokens,
            "context": session.context_len(), "seconds": seconds,
        });
        format!("{json:#}\n")
    } else {
        format!("perplexity {:.5} over {} tokens in {seconds:.1} s\n", found.value(), found.tokens)
    };
    output::print(&text)?;
    Ok(())
}

fn read_text(args: &PerplexityArgs) -> anyhow::Result<String> {
    let place = || args.file.display().to_string();
    let mut bytes = std::fs::read(&args.file).with_context(place)?;
    if let Some(limit) = args.bytes {
        bytes.truncate(limit);
        // Drops a character that the limit cut in two.
        while !bytes.is_empty() && std::str::from_utf8(&bytes).is_err_and(|error| error.error_len().is_none())
        {
            bytes.pop();
        }
    }
    String::from_utf8(bytes).with_context(place)
}
