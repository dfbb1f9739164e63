//! `pith perplexity`

use crate::options::session::SessionArgs;
use crate::output;
use anyhow::Context;
use clap::{Args, ValueHint};
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
    /// Read the first N bytes of it only
    #[arg(long, value_name = "N")]
    pub bytes: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// Scores a text in windows of the session's context, each beginning with the model's first token where it has one.
pub fn perplexity(args: PerplexityArgs) -> anyhow::Result<()> {
    let (model, mut session) = args.session.open(&args.model)?;
    let text = read_text(&args)?;
    let tokens = model.tokenizer()?.encode(&text, false)?;
    let first = model.config().bos;
    let window = session.context_len() - usize::from(first.is_some());
    anyhow::ensure!(
        window > 1 && tokens.len() > 1,
        "the text gives {} tokens, a score needs 2",
        tokens.len()
    );
    let started = Instant::now();
    let (mut loss, mut count) = (0.0f64, 0usize);
    for part in tokens.chunks(window) {
        let fed: Vec<u32> = first.iter().chain(part).copied().collect();
        session.reset();
        session.logits_of(&fed, |position, logits| {
            if let Some(&next) = fed.get(position + 1) {
                loss -= log_probability(logits, next as usize);
                count += 1;
            }
        })?;
    }
    anyhow::ensure!(count > 0, "no token of {} could be scored", args.file.display());
    let mean = loss / count as f64;
    let seconds = started.elapsed().as_secs_f64();
    let text = if args.json {
        let json = json!({
            "perplexity": mean.exp(), "nats_per_token": mean, "tokens": count, "context": session.context_len(),
            "seconds": seconds,
        });
        format!("{json:#}\n")
    } else {
        format!("perplexity {:.5} over {count} tokens in {seconds:.1} s\n", mean.exp())
    };
    output::print(&text)?;
    Ok(())
}

fn read_text(args: &PerplexityArgs) -> anyhow::Result<String> {
    let place = || args.file.display().to_string();
    let mut bytes = std::fs::read(&args.file).with_context(place)?;
    if let Some(limit) = args.bytes {
        bytes.truncate(limit);
        // A character that the limit cuts in two is left out.
        while !bytes.is_empty() && std::str::from_utf8(&bytes).is_err_and(|error| error.error_len().is_none())
        {
            bytes.pop();
        }
    }
    String::from_utf8(bytes).with_context(place)
}

/// `log softmax(logits)[token]`, in f64.
fn log_probability(logits: &[f32], token: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    f64::from(logits[token] - largest) - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let logits = [1.0, -2.0, 0.5, 100.0];
        let sum: f64 = (0..4).map(|token| log_probability(&logits, token).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert!((log_probability(&[0.0; 8], 3) + 8f64.ln()).abs() < 1e-12);
    }
}
