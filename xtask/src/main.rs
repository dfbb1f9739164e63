//! `cargo xtask`: measurements of Pith for `docs/performance.md` and `docs/quality.md`.
#![forbid(unsafe_code)]

mod costs;
#[cfg(test)]
mod docs;
mod document;
mod encodings;
mod mca;
mod program;
mod quality;
mod rival;
mod wall;

use clap::{Parser, Subcommand};

/// Pith's own measurements
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure Pith beside other runtimes, on one random checkpoint and in runs that take turns
    Rival(Box<rival::RivalArgs>),
    /// Model the speed of the ARM kernels' inner loops with llvm-mca
    Mca(mca::McaArgs),
    /// Measure the speed of each encoding
    Encodings(encodings::EncodingsArgs),
    /// Measure time and memory of calibrating, rounding and searching
    Costs(costs::CostsArgs),
    /// Measure the loss of knowledge by quantization, beside llama.cpp's types
    Quality(quality::QualityArgs),
    /// Take the time of a decoded token apart: memory, unpacking, threads, the rest
    Wall(wall::WallArgs),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Rival(args) => rival::rival(*args),
        Command::Mca(args) => mca::mca(args),
        Command::Encodings(args) => encodings::encodings(args),
        Command::Costs(args) => costs::costs(args),
        Command::Quality(args) => quality::quality(args),
        Command::Wall(args) => wall::wall(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
