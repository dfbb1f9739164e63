//! What a decoded token's time goes into, beside plain reading of the same bytes.

use anyhow::Context;
use clap::Args;
use pith_bench::{Parts, Wall};
use pith_runtime::{Model, Session, SessionOptions};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

/// `cargo xtask wall`
#[derive(Debug, Args)]
pub struct WallArgs {
    /// Models to take apart
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// Tokens decoded twice a round
    #[arg(long, default_value_t = 48)]
    tokens: usize,
    /// Rounds
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Threads
    #[arg(short, long, default_value_t = 2)]
    threads: usize,
    /// Kernels, by name
    #[arg(long)]
    kernels: Option<String>,
    /// Read the mapped file, not a copy in large pages
    #[arg(long)]
    mmap: bool,
}

/// Prints the table of each model.
pub fn wall(args: WallArgs) -> anyhow::Result<()> {
    for path in &args.models {
        let name = path.display();
        let large = Arc::new(Model::load(path).with_context(|| name.to_string())?);
        let model = if args.mmap { Arc::new(Model::open(path)?) } else { Arc::clone(&large) };
        let options = SessionOptions {
            context_len: Some(args.tokens + 16),
            threads: Some(args.threads),
            kernels: args.kernels.clone(),
            beyond_model: true,
            ..SessionOptions::default()
        };
        let mut session = Session::new(Arc::clone(&model), options)?;
        let large = args.mmap.then_some(&*large);
        let wall = Wall::measure(&mut session, large, &[1, 2], args.tokens, args.rounds)
            .with_context(|| name.to_string())?;
        print!("{}", table(&name.to_string(), session.kernels(), args.threads, &wall));
    }
    Ok(())
}

/// The parts with their names, in the order of the table.
fn rows(parts: &Parts) -> [(&'static str, f64); 8] {
    [
        ("memory", parts.memory),
        ("page walks", parts.page_walks),
        ("unpacking", parts.unpacking),
        ("uneven threads", parts.uneven),
        ("barriers", parts.barriers),
        ("attention", parts.attention),
        ("norms, rounding", parts.norms),
        ("sampling, text", parts.sampling),
    ]
}

fn table(name: &str, kernels: &str, threads: usize, wall: &Wall) -> String {
    let rows = rows(&wall.parts);
    let explained: f64 = rows.iter().map(|(_, seconds)| seconds).sum();
    let mut text = format!(
        "{name}, {kernels}, {threads} threads: {:.3} ms a token, {:.3} ms with notes, {} jobs, {:.1} MB, {:.1} GB/s; {:.1} % explained\n\n| part | ms | of a token |\n|---|---:|---:|\n",
        wall.plain * 1e3,
        wall.recorded * 1e3,
        wall.jobs,
        wall.bytes as f64 / 1e6,
        wall.bytes as f64 / wall.plain / 1e9,
        100.0 * explained / wall.plain,
    );
    for (part, seconds) in rows {
        let share = 100.0 * seconds / wall.plain;
        writeln!(text, "| {part} | {:.3} | {share:.1} % |", seconds * 1e3).expect("a string takes all");
    }
    text += "\n| matrices | MB a token | GB/s a thread | in plain reading |\n|---|---:|---:|---:|\n";
    for role in &wall.roles {
        let [megabytes, product, read] = [role.bytes as f64 / 1e6, role.product / 1e9, role.read / 1e9];
        writeln!(text, "| {} | {megabytes:.1} | {product:.1} | {read:.1} |", role.role)
            .expect("a string takes all");
    }
    text + "\n"
}
