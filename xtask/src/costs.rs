//! The cost of compression: calibrating, rounding and searching one checkpoint, in seconds and
//! memory.

use crate::{document, program};
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

/// `cargo xtask costs`
#[derive(Debug, Args)]
pub struct CostsArgs {
    /// The checkpoint, with a tokenizer
    #[arg(long)]
    checkpoint: PathBuf,
    /// Text to calibrate with
    #[arg(long)]
    text: PathBuf,
    /// Tokens of it
    #[arg(long, default_value_t = 65536)]
    tokens: usize,
    /// Encodings to round to
    #[arg(long, value_delimiter = ',', default_value = "q4-nl,q3,q2")]
    encodings: Vec<String>,
    /// Time limit of a search for 3.4 bits per weight; without it, no search
    #[arg(long, value_name = "HOURS")]
    search_hours: Option<f64>,
    /// The pith program, built with --release
    #[arg(long, default_value = "target/release/pith")]
    pith: PathBuf,
    /// Folder for files, which stay: some three times the checkpoint, and while it searches seven
    /// times
    #[arg(long, default_value = "target/costs")]
    work: PathBuf,
    /// Page to write the table into
    #[arg(long, default_value = "docs/performance.md")]
    page: PathBuf,
}

/// One command and its cost.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    seconds: f64,
    peak_bytes: Option<u64>,
    /// Size of the file written; for a search also the predicted size.
    file_bytes: Option<u64>,
    predicted_bytes: Option<u64>,
}

/// Measures and writes the page's section.
pub fn costs(args: CostsArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.work).with_context(|| args.work.display().to_string())?;
    let [calibration, output, search] =
        ["calibration.safetensors", "candidate.pith", "search"].map(|name| args.work.join(name));
    let mut rows = Vec::new();
    let mut row = |what: String, arguments: &[&OsStr]| -> anyhow::Result<()> {
        eprintln!("{what}");
        let mut command = Command::new(&args.pith);
        command.args(arguments).args(["--force", "--json"]);
        let program::Ran { said, seconds, peak_bytes } = program::run(command)?;
        let bytes = |field: &str| said.get(field).and_then(Value::as_u64);
        let (file_bytes, predicted_bytes) = (bytes("file_bytes"), bytes("predicted_bytes"));
        rows.push(Row { what, seconds, peak_bytes, file_bytes, predicted_bytes });
        write(&args, &rows)
    };
    let (source, text, tokens) =
        (args.checkpoint.as_os_str(), args.text.as_os_str(), args.tokens.to_string());
    let os = OsStr::new;
    let into = [os("-o"), calibration.as_os_str()];
    let read = [source, os("--text"), text, os("--tokens"), os(&tokens)];
    row(
        format!("calibration of {tokens} tokens, with Hessians"),
        &[&[os("calibrate"), os("--hessians")], &read[..], &into].concat(),
    )?;
    for name in &args.encodings {
        let encodings = [os("-e"), os(name), os("--embedding"), os(name), os("--head"), os(name)];
        let convert = [&[os("convert"), source, output.as_os_str()], &encodings[..]].concat();
        row(format!("{name}, nearest"), &convert)?;
        let known = [&convert[..], &[os("--calibration"), calibration.as_os_str()]].concat();
        row(format!("{name}, nearest, weighted"), &known)?;
        row(format!("{name}, gptq"), &[&known[..], &[os("--quantizer"), os("gptq")]].concat())?;
    }
    if let Some(hours) = args.search_hours {
        let (hours_text, bits) = (hours.to_string(), [os("--bits-per-weight"), os("3.4")]);
        let places = [os("-o"), output.as_os_str(), os("--work"), search.as_os_str()];
        let limits = [os("search"), source, os("--text"), text, os("--hours"), os(&hours_text)];
        row(format!("search, 3.4 bits, {hours} hours"), &[&limits[..], &bits, &places].concat())?;
    }
    print!("{}", page(&args, &rows));
    Ok(())
}

/// Writes the rows measured so far.
fn write(args: &CostsArgs, rows: &[Row]) -> anyhow::Result<()> {
    document::write_section(&args.page, "costs", "What compressing takes", &page(args, rows))?;
    document::write(&args.page.with_extension("").join("costs.json"), &serde_json::to_string_pretty(rows)?)
}

fn page(args: &CostsArgs, rows: &[Row]) -> String {
    let mut text = format!(
        "{}, {} threads; weighted and gptq read the calibration of the first line.\n\n",
        args.checkpoint.file_name().unwrap_or_default().display(),
        std::thread::available_parallelism().map_or(1, usize::from),
    );
    text.push_str("| | s | memory, MB | file, bytes | foretold, bytes |\n|---|---|---|---|---|\n");
    let bytes = |bytes: Option<u64>| bytes.map_or("–".into(), |bytes| bytes.to_string());
    for row in rows {
        let memory = row.peak_bytes.map_or("–".into(), |bytes| format!("{:.0}", bytes as f64 / 1e6));
        let (file, foretold) = (bytes(row.file_bytes), bytes(row.predicted_bytes));
        let _ = writeln!(text, "| {} | {:.0} | {memory} | {file} | {foretold} |", row.what, row.seconds);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        costs: CostsArgs,
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let line = ["costs", "--checkpoint", "a/hf", "--text", "t"];
        let args = Line::parse_from(line).costs;
        let row = |what: &str, peak_bytes, file_bytes| Row {
            what: what.into(),
            seconds: 61.4,
            peak_bytes,
            file_bytes,
            predicted_bytes: None,
        };
        let text = page(&args, &[row("calibration", Some(1_652_284_000), None), row("q3", None, Some(7))]);
        assert!(text.starts_with("hf, "), "{text}");
        assert!(text.ends_with("| calibration | 61 | 1652 | – | – |\n| q3 | 61 | – | 7 | – |\n"), "{text}");
    }
}
