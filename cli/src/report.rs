//! `pith report`

use crate::output;
use anyhow::Context;
use clap::{Args, ValueHint};
use pith_report::{Bandwidth, LedgerFile, page};
use std::path::{Path, PathBuf};

/// `pith report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Ledgers, in the order of the page
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub ledgers: Vec<PathBuf>,
    /// Page to write; - is standard output
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Memory bandwidth in bytes per second, as in 14.5GB, for ledgers that do not record it
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes)]
    pub bandwidth: Option<u64>,
}

/// Draws ledgers as one page; reports omitted parts on standard error.
pub fn report(args: ReportArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        !args.ledgers.iter().any(|ledger| is_same(ledger, &args.output)),
        "{} is a ledger; give the page another name",
        args.output.display()
    );
    output::refuse_others(&args.output, "a page", &[b"<!DOCTYPE html>"])?;
    let mut ledgers = Vec::with_capacity(args.ledgers.len());
    for path in &args.ledgers {
        let mut ledger = LedgerFile::read(path)?;
        for warning in &ledger.warnings {
            eprintln!("warning: {}, {warning}", path.display());
        }
        if let (None, Some(rate)) = (&ledger.header.bandwidth, args.bandwidth) {
            anyhow::ensure!(rate > 0, "--bandwidth is 0; leave it out where it is not known");
            ledger.header.bandwidth = Some(Bandwidth {
                bytes_per_second: rate as f64,
                threads: None,
                source: "given with the report".into(),
            });
        }
        ledgers.push(ledger);
    }
    let text = page(&ledgers)?;
    if args.output == Path::new("-") {
        return Ok(output::print(&text)?);
    }
    output::replace(&args.output, text.as_bytes()).with_context(|| args.output.display().to_string())
}

fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(one, other)| one == other)
}
