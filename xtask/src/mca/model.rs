//! `llvm-mca`, and the speed of a board that its cycles imply.

use super::kernel::Kernel;
use anyhow::Context;
use pith_format::Encoding;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Simulated iterations: enough to make the first and last few negligible.
const TURNS: usize = 1000;

/// A board, with the published bandwidth that decoding language models on four cores reaches.
pub struct Board {
    pub name: &'static str,
    /// Kernels that run on it.
    pub kernels: &'static str,
    /// LLVM's scheduling model.
    pub processor: &'static str,
    pub clock_ghz: f64,
    pub bandwidth_gb_per_s: f64,
}

/// Cores of both boards.
pub const CORES: f64 = 4.0;

/// A Cortex-A76 is a Neoverse N1 except for its caches; LLVM has a model of the latter only.
pub const BOARDS: [Board; 2] = [
    Board {
        name: "Raspberry Pi 4",
        kernels: "neon",
        processor: "cortex-a72",
        clock_ghz: 1.8,
        bandwidth_gb_per_s: 4.0,
    },
    Board {
        name: "Raspberry Pi 5",
        kernels: "neon-dotprod",
        processor: "neoverse-n1",
        clock_ghz: 2.4,
        bandwidth_gb_per_s: 11.5,
    },
];

/// Bytes per weight, with its share of the scales, from the format.
pub fn bytes_per_weight(encoding: Encoding) -> f64 {
    encoding.bits_per_weight() / 8.0
}

/// Weights of a model: its layers', and its head's in q8, the default of `pith convert`.
pub struct Model {
    pub name: &'static str,
    pub body: f64,
    pub head: f64,
}

/// Llama-3.2-1B.
pub const MODEL: Model = Model { name: "Llama-3.2-1B", body: 973_078_528.0, head: 262_668_288.0 };

/// Tokens per second that memory and the cores allow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    pub memory: f64,
    pub compute: f64,
    /// Weights per second of the inner loop over those that memory can supply.
    pub headroom: f64,
}

impl Board {
    /// Cycles are per 64 weights: in the body's encoding, and in q8.
    pub fn rates(&self, encoding: Encoding, cycles: f64, q8_cycles: f64) -> Rates {
        let (body, head) = (bytes_per_weight(encoding), bytes_per_weight(Encoding::Q8));
        let bandwidth = self.bandwidth_gb_per_s * 1e9;
        let cycles_per_s = CORES * self.clock_ghz * 1e9;
        Rates {
            memory: bandwidth / (MODEL.body * body + MODEL.head * head),
            compute: cycles_per_s / ((MODEL.body * cycles + MODEL.head * q8_cycles) / 64.0),
            headroom: (cycles_per_s / cycles * 64.0) / (bandwidth / body),
        }
    }
}

/// The program `llvm-mca`.
pub struct Mca {
    program: PathBuf,
    pub version: String,
}

impl Mca {
    /// The given program, or the newest one installed.
    pub fn find(given: Option<&Path>) -> anyhow::Result<Self> {
        let candidates: Vec<PathBuf> = match given {
            Some(path) => vec![path.into()],
            None => {
                let numbered = (14..=40).rev().map(|version| PathBuf::from(format!("llvm-mca-{version}")));
                numbered.chain([PathBuf::from("llvm-mca")]).collect()
            }
        };
        for program in candidates {
            let Ok(output) = Command::new(&program).arg("--version").output() else { continue };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if let Some(line) = text.lines().find(|line| line.contains("LLVM version")) {
                return Ok(Self { program, version: line.trim().to_string() });
            }
        }
        let named = given.map_or("llvm-mca".into(), |path| path.display().to_string());
        anyhow::bail!("no {named}: install LLVM's tools (Debian: llvm), or name it with --llvm-mca")
    }

    /// Cycles per 64 weights: an iteration's cycles over its products.
    pub fn cycles_per_64(&self, kernel: &Kernel, processor: &str) -> anyhow::Result<f64> {
        let text: String =
            kernel.instructions.iter().map(|instruction| format!("{}\n", instruction.text)).collect();
        let context = || format!("{} for {processor}", self.program.display());
        let turns = format!("-iterations={TURNS}");
        let mut child = Command::new(&self.program)
            .args(["-mtriple=aarch64", &format!("-mcpu={processor}"), &turns, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(context)?;
        child.stdin.take().expect("it is piped").write_all(text.as_bytes()).with_context(context)?;
        let output = child.wait_with_output().with_context(context)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(
            output.status.success(),
            "{}: {}",
            context(),
            errors.lines().next().unwrap_or_default()
        );
        let cycles = total_cycles(&String::from_utf8_lossy(&output.stdout)).with_context(context)?;
        Ok(cycles / TURNS as f64 / kernel.products as f64 * 64.0)
    }
}

fn total_cycles(report: &str) -> anyhow::Result<f64> {
    let line = report.lines().find_map(|line| line.strip_prefix("Total Cycles:"));
    let text = line.context("its report holds no \"Total Cycles:\"")?.trim();
    text.parse().with_context(|| format!("its total cycles are {text:?}, expected a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_a_report() {
        let report =
            "Iterations:        1000\nInstructions:      3000\nTotal Cycles:      1504\nTotal uOps: 3000\n";
        assert_eq!(total_cycles(report).unwrap(), 1504.0);
        assert!(total_cycles("").unwrap_err().to_string().contains("Total Cycles"));
        assert!(total_cycles("Total Cycles: x").unwrap_err().to_string().contains("\"x\""));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Mca::find(Some(Path::new("/nonexistent/llvm-mca"))).err().unwrap().to_string();
        assert!(error.starts_with("no /nonexistent/llvm-mca"), "{error}");
    }

    #[test]
    fn rates_follow_from_cycles_and_bandwidth() {
        let board = Board { name: "", kernels: "", processor: "", clock_ghz: 1.0, bandwidth_gb_per_s: 4.25 };
        let rates = board.rates(Encoding::Q8, 8.0, 8.0);
        // 4.25 GB/s are 4e9 weights of 8.5 bits a second; 4 cores take 8 weights a cycle each.
        assert!((rates.headroom - 8.0).abs() < 1e-9, "{rates:?}");
        assert!((rates.memory - 4e9 / 1_235_746_816.0).abs() < 1e-9, "{rates:?}");
        assert!((rates.compute / rates.memory - 8.0).abs() < 1e-9, "{rates:?}");
    }
}
