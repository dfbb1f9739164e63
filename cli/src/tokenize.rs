//! `pith tokenize` and `pith detokenize`

use crate::options::session::open_model;
use crate::output;
use crate::text::{parse_ids, read_text};
use anyhow::Context;
use clap::{Args, ValueHint};
use pith_tokenizer::Tokenizer;
use serde_json::json;
use std::path::{Path, PathBuf};

/// `pith tokenize`
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// .pith file, Hugging Face folder, tokenizer.json, tokenizer.model or .gguf file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub source: PathBuf,
    /// The text
    #[arg(short, long, required_unless_present = "file", conflicts_with = "file")]
    pub text: Option<String>,
    /// Read the text from a file; - is standard input
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Do not add the tokenizer's special tokens to the text
    #[arg(long)]
    pub no_special: bool,
    /// Print each id with its bytes as JSON
    #[arg(long)]
    pub json: bool,
}

/// `pith detokenize`
#[derive(Debug, Args)]
pub struct DetokenizeArgs {
    /// .pith file, Hugging Face folder, tokenizer.json, tokenizer.model or .gguf file
    #[arg(value_hint = ValueHint::AnyPath)]
    pub source: PathBuf,
    /// Token ids, separated by spaces or commas [default: standard input]
    #[arg(long)]
    pub tokens: Option<String>,
    /// Leave special tokens out of the text
    #[arg(long)]
    pub skip_special: bool,
}

/// Prints the ids of a text.
pub fn tokenize(args: TokenizeArgs) -> anyhow::Result<()> {
    let tokenizer = open(&args.source)?;
    let text = match (&args.text, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read_text(path)?,
        (None, None) => unreachable!("the command line asks for one"),
    };
    let ids = tokenizer.encode(&text, !args.no_special)?;
    let line = if args.json {
        let pieces: Vec<_> = ids
            .iter()
            .map(|&id| tokenizer.token_bytes(id).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
            .collect();
        format!("{}\n", json!({"ids": ids, "pieces": pieces}))
    } else {
        ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ") + "\n"
    };
    output::print(&line)?;
    Ok(())
}

/// Prints the text of ids, without a line feed at the end.
pub fn detokenize(args: DetokenizeArgs) -> anyhow::Result<()> {
    let tokenizer = open(&args.source)?;
    let ids = match args.tokens {
        Some(tokens) => parse_ids(&tokens)?,
        None => parse_ids(&read_text(Path::new("-"))?)?,
    };
    output::print(&tokenizer.decode(&ids, args.skip_special)?)?;
    Ok(())
}

/// The tokenizer of a `.pith` file, a checkpoint or a tokenizer file.
fn open(source: &Path) -> anyhow::Result<Tokenizer> {
    let place = || source.display().to_string();
    if source.extension().is_some_and(|extension| extension == "pith") {
        let model = open_model(source)?;
        let id = pith_format::TensorId::model(pith_format::Role::Tokenizer);
        let blob = model.index().bytes(model.bytes(), id).with_context(place)?;
        return Tokenizer::from_blob(blob).with_context(place);
    }
    Ok(pith_converter::load_tokenizer(source)?)
}
