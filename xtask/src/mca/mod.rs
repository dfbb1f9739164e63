//! `cargo xtask mca`: a static model of the ARM kernels' inner loops.
//!
//! ```text
//! assembly   the compiler's functions and loops
//! kernel     the kernel of each loop, and its unwanted instructions
//! model      llvm-mca's cycles, and the resulting speed of a board
//! ```

mod assembly;
mod kernel;
mod model;

use crate::document;
use anyhow::Context;
use clap::Args;
use kernel::Kernel;
use model::{BOARDS, Board, CORES, MODEL, Mca, bytes_per_weight};
use pith_format::Encoding;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `cargo xtask mca`
#[derive(Debug, Args)]
pub struct McaArgs {
    /// LLVM's machine code analyser [default: the newest installed]
    #[arg(long, value_name = "PATH")]
    llvm_mca: Option<PathBuf>,
    /// Assembly to read [default: built here]
    #[arg(long, value_name = "FILE")]
    assembly: Option<PathBuf>,
    /// Also write the loops into this folder, one file each
    #[arg(long, value_name = "FOLDER")]
    loops: Option<PathBuf>,
    /// The text that gets the result
    #[arg(long, default_value = "docs/performance.md", value_name = "FILE")]
    out: PathBuf,
}

/// One kernel on one board.
struct Row<'a> {
    board: &'static Board,
    encoding: Encoding,
    kernel: Option<(&'a Kernel, f64)>,
}

/// Builds the assembly, finds the loops, models them and writes the section.
pub fn mca(args: McaArgs) -> anyhow::Result<()> {
    let mca = Mca::find(args.llvm_mca.as_deref())?;
    let root = workspace()?;
    let path = match args.assembly {
        Some(path) => path,
        None => build(&root)?,
    };
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let kernels = kernel::kernels(&assembly::functions(&text));
    anyhow::ensure!(!kernels.is_empty(), "{} holds no loop that multiplies int8", path.display());
    if let Some(folder) = &args.loops {
        write_loops(folder, &kernels)?;
    }
    let text = render(&rows(&kernels, &mca)?, &kernels, &mca.version);
    document::write_section(&args.out, "mca", "On paper for ARM", &text)?;
    print!("{text}");
    Ok(())
}

fn rows<'a>(kernels: &'a [Kernel], mca: &Mca) -> anyhow::Result<Vec<Row<'a>>> {
    let mut rows = Vec::new();
    for board in &BOARDS {
        for encoding in kernel::encodings() {
            let kernel = match kernel::mat_vec(kernels, board.kernels, encoding) {
                Some(kernel) => Some((kernel, mca.cycles_per_64(kernel, board.processor)?)),
                None => {
                    eprintln!("no loop of {encoding} found for {}", board.kernels);
                    None
                }
            };
            rows.push(Row { board, encoding, kernel });
        }
    }
    Ok(rows)
}

fn render(rows: &[Row<'_>], kernels: &[Kernel], version: &str) -> String {
    let mut text = format!(
        "**Modelled**, not measured: `llvm-mca` ({version}) on the inner loops of `mat_vec`, every load a hit in the \
         first-level cache. Tokens/s are those of {}'s weights with a head in q8, keys and values left out: what memory \
         feeds, and what {CORES} cores could compute. Headroom is the loop's rate by the rate at which memory feeds it.\n\n\
         | board | kernels | encoding | cycles per 64 weights | bytes a cycle, of q4-g64's | headroom | tokens/s by memory | tokens/s by compute | `ext` | spills |\n\
         |---|---|---|---:|---:|---:|---:|---:|---:|---:|\n",
        MODEL.name
    );
    for row in rows {
        let cycles_of = |encoding: Encoding| {
            let same = |other: &&Row<'_>| other.encoding == encoding && other.board.name == row.board.name;
            rows.iter().find(same)?.kernel.map(|(_, cycles)| cycles)
        };
        let rate = |encoding: Encoding, cycles: f64| bytes_per_weight(encoding) / cycles;
        let baseline = cycles_of(Encoding::Q4G64).map(|cycles| rate(Encoding::Q4G64, cycles));
        let _ = write!(text, "| {} | `{}` | {} |", row.board.name, row.board.kernels, row.encoding);
        let Some((kernel, cycles)) = row.kernel else {
            text += " – | – | – | – | – | – | – |\n";
            continue;
        };
        let _ = write!(text, " {cycles:.2} |");
        let _ = match baseline {
            Some(baseline) => write!(text, " {:.2} |", rate(row.encoding, cycles) / baseline),
            None => write!(text, " – |"),
        };
        let _ = match cycles_of(Encoding::Q8) {
            Some(q8_cycles) => {
                let rates = row.board.rates(row.encoding, cycles, q8_cycles);
                write!(text, " {:.1} × | {:.1} | {:.1} |", rates.headroom, rates.memory, rates.compute)
            }
            None => write!(text, " – | – | – |"),
        };
        let _ = writeln!(text, " {} | {} |", kernel.extracts, kernel.spills);
    }
    let _ = writeln!(text, "\n{}", board_lines());
    let of = |wanted: fn(&Kernel) -> bool| kernels.iter().filter(|kernel| wanted(kernel)).count();
    let _ = writeln!(
        text,
        "Of all {} inner loops that multiply int8, those for several tokens included, {} hold an `ext` and {} move \
         vectors to the stack and back.",
        kernels.len(),
        of(|kernel| kernel.extracts > 0),
        of(|kernel| kernel.spills > 0)
    );
    let outside: Vec<&Row<'_>> =
        rows.iter().filter(|row| row.kernel.is_some_and(|(kernel, _)| kernel.conversions == 0)).collect();
    for row in outside {
        let _ = writeln!(
            text,
            "\nThe loop of {} in `{}` holds no conversion to f32: what happens outside of it is not counted.",
            row.encoding, row.board.kernels
        );
    }
    text
}

fn board_lines() -> String {
    let line = |board: &Board| {
        format!(
            "{}: LLVM's model of {}, {CORES} cores of {} GHz, {:.1} GB/s.",
            board.name, board.processor, board.clock_ghz, board.bandwidth_gb_per_s
        )
    };
    BOARDS.iter().map(|board| line(board) + "\n").collect()
}

fn write_loops(folder: &Path, kernels: &[Kernel]) -> anyhow::Result<()> {
    for (index, kernel) in kernels.iter().enumerate() {
        let name = format!("{index:02}-{}-{}.s", kernel.kernels, kernel.encoding);
        let text: String =
            kernel.instructions.iter().map(|instruction| format!("{}\n", instruction.text)).collect();
        document::write(&folder.join(name), &text)?;
    }
    Ok(())
}

fn workspace() -> anyhow::Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("this crate lies in no workspace")?.to_path_buf())
}

/// Builds the assembly.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let folder = root.join("target/mca");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("kernels.s");
    let (program, arguments): (PathBuf, &[&str]) = match std::env::consts::ARCH {
        "aarch64" => (std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into(), &[]),
        _ => (root.join(".ci/aarch64"), &[]),
    };
    let emit = format!("asm={}", path.display());
    let status = Command::new(&program)
        .args(arguments)
        .args(["rustc", "--release", "--package", "pith-kernels", "--lib", "--", "--emit", &emit])
        .args(["-C", "codegen-units=1", "-C", "symbol-mangling-version=v0"])
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    anyhow::ensure!(status.success(), "{} ended with {status}", program.display());
    anyhow::ensure!(
        path.is_file(),
        "no {}: the compiler had nothing to do; touch kernels/src/lib.rs and call again",
        path.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(kernels: &'static str, encoding: Encoding) -> Kernel {
        Kernel {
            kernels,
            encoding,
            one_token: true,
            products: 512,
            loaded_bytes: 300,
            spills: 0,
            extracts: 0,
            conversions: 4,
            instructions: Vec::new(),
        }
    }

    #[test]
    fn a_table_has_a_row_for_every_kernel_found_or_not() {
        let found = [kernel("neon", Encoding::Q4), kernel("neon", Encoding::Q8)];
        let rows: Vec<Row<'_>> = [Encoding::Q4, Encoding::Q4G64, Encoding::Q8]
            .into_iter()
            .map(|encoding| {
                let kernel = kernel::mat_vec(&found, "neon", encoding).map(|kernel| (kernel, 8.0));
                Row { board: &BOARDS[0], encoding, kernel }
            })
            .collect();
        let text = render(&rows, &found, "LLVM version 1");
        assert!(text.contains("| Raspberry Pi 4 | `neon` | q4-g64 | – | – | – | – | – | – | – |"), "{text}");
        // 4 cores of 1.8 GHz take 57.6e9 weights a second; 4 GB/s are 7.11e9 of 4.5 bits, or 3.76e9
        // of 8.5.
        assert!(
            text.contains("| q4 | 8.00 | – | 8.1 × |") && text.contains("| q8 | 8.00 | – | 15.3 × |"),
            "{text}"
        );
        assert!(text.contains("Of all 2 inner loops") && text.contains("**Modelled**"), "{text}");
        assert!(!text.contains("not counted"), "{text}");
    }
}
