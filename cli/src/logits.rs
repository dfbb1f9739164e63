//! `pith logits`

use crate::args::LogitsArgs;
use crate::output::Output;
use crate::{output, session, tokenize};
use anyhow::Context;
use std::io::{BufWriter, Write};

/// Writes the logits after every token of a sequence.
pub fn logits(args: LogitsArgs) -> anyhow::Result<()> {
    let tokens = tokenize::parse_ids(&args.tokens)?;
    let (model, mut session) = session::open(&args.model, &args.session, false)?;
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
