//! `pith logits`

use crate::options::session::SessionArgs;
use crate::output::{self, Output};
use crate::text::parse_ids;
use anyhow::Context;
use clap::{Args, ValueHint};
use pith_format::refuse_inputs;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// `pith logits`
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// Token ids, separated by spaces or commas
    #[arg(long)]
    pub tokens: String,
    /// NumPy file to write: float32, tokens × vocabulary
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Feed the tokens one by one instead of as one prompt
    #[arg(long)]
    pub one_by_one: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// Writes the logits after every token of a sequence.
pub fn logits(args: LogitsArgs) -> anyhow::Result<()> {
    let tokens = parse_ids(&args.tokens)?;
    refuse_inputs(&args.output, std::slice::from_ref(&args.model))?;
    output::refuse_others(&args.output, "a NumPy array", &[b"\x93NUMPY"])?;
    let (model, mut session) = args.session.open(&args.model)?;
    let mut rows = Vec::with_capacity(tokens.len() * model.config().vocab_len);
    if args.one_by_one {
        for &token in &tokens {
            rows.extend_from_slice(session.step(token)?);
        }
    } else {
        session.logits_of(&tokens, |_, logits| rows.extend_from_slice(logits))?;
    }
    let place = || args.output.display().to_string();
    let mut out = BufWriter::new(Output::create(&args.output).with_context(place)?);
    output::write_npy_head(&mut out, tokens.len(), model.config().vocab_len).with_context(place)?;
    for value in rows {
        out.write_all(&value.to_le_bytes()).with_context(place)?;
    }
    out.flush().with_context(place)?;
    let (out, _) = out.into_parts();
    out.commit_unsynced().with_context(place)
}
