//! The types of llama.cpp and ik_llama.cpp, each with an importance matrix of the same calibration
//! text.

use super::{QualityArgs, Row, Rows, run, text_of};
use anyhow::Context;
use std::path::Path;
use std::time::Instant;

/// Name in the table.
pub const NAME: &str = "llama.cpp";

/// Name of the rival with more types.
pub const IK: &str = "ik_llama.cpp";

const TYPES: [&str; 16] = [
    "Q8_0", "Q6_K", "Q5_K_M", "Q4_0", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q3_K_M", "IQ3_M", "IQ3_S", "IQ3_XXS",
    "Q2_K", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS",
];

/// Types of ik_llama.cpp alone.
const IK_TYPES: [&str; 10] =
    ["IQ6_K", "IQ5_K", "IQ5_KS", "IQ4_K", "IQ4_KS", "IQ4_KSS", "IQ4_KT", "IQ3_K", "IQ3_KT", "IQ2_K"];

/// Start of the last line needed from llama-perplexity.
const LAST_FIGURE: &str = "Same top p";

/// Most runs of llama-perplexity until one is complete.
const ATTEMPTS: usize = 20;

/// Quantizes to every type and measures each.
pub fn measure(args: &QualityArgs, tools: &Path, ik: Option<&Path>, rows: &mut Rows) -> anyhow::Result<()> {
    let common_types = TYPES.iter().map(|name| (tools, NAME, name));
    let others = ik.into_iter().flat_map(|tools| IK_TYPES.iter().map(move |name| (tools, IK, name)));
    let wanted: Vec<_> = common_types.chain(others).filter(|(_, _, name)| rows.wants(name)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let gguf = text_of(args.gguf.as_deref().context("--gguf is missing")?)?;
    let (matrix, base) = (args.work.join("imatrix.dat"), args.work.join("base.kld"));
    let (matrix, base) = (text_of(&matrix)?, text_of(&base)?);
    let (context, threads) = (args.context.to_string(), args.threads.to_string());
    let (calibration, text) = (text_of(&args.calibration)?, text_of(&args.text)?);
    let common = ["-c", &context, "-t", &threads];
    run(
        &tools.join("llama-imatrix"),
        &[&["-m", gguf, "-f", calibration, "-o", matrix, "--output-format", "dat"], &common[..]].concat(),
    )?;
    // llama.cpp's windows are called chunks.
    let windows = args.windows.map(|windows| windows.to_string());
    let chunks: Vec<&str> = windows.as_deref().map_or(Vec::new(), |windows| vec!["--chunks", windows]);
    let common = [&common[..], &chunks].concat();
    let perplexity = |tools: &Path| tools.join("llama-perplexity");
    run(
        &perplexity(tools),
        &[&["-m", gguf, "-f", text, "--kl-divergence-base", base], &common[..]].concat(),
    )?;
    let one = |tools: &Path, tool: &'static str, name: &str| -> anyhow::Result<Row> {
        eprintln!("{tool} {name}");
        let started = Instant::now();
        let file = args.work.join("candidate.gguf");
        let path = text_of(&file)?;
        let quantize = ["--imatrix", matrix, gguf, path, name, &threads];
        let said = run(&tools.join("llama-quantize"), &quantize)?;
        let bits = bits_of(&(said.0 + &said.1)).context("llama-quantize's sizes")?;
        let seconds = started.elapsed().as_secs_f64();
        let judge = ["-m", path, "-f", text, "--kl-divergence-base", base, "--kl-divergence"];
        let said = whole(|| run(&perplexity(tools), &[&judge, &common[..]].concat()))?;
        let line = |start: &str| {
            said.lines().find(|line| line.starts_with(start)).map(numbers).with_context(|| start.to_string())
        };
        let (kl, top) = (line("Mean    KLD")?, line(LAST_FIGURE)?);
        Ok(Row {
            tool: tool.into(),
            name: name.into(),
            bits,
            file_bytes: std::fs::metadata(&file).with_context(|| path.to_string())?.len(),
            kl: *kl.first().context("Mean KLD")?,
            kl_error: kl.get(1).copied(),
            same_top: top.first().context("Same top p")? / 100.0,
            perplexity_ratio: *line("Mean PPL(Q)/PPL(base)")?.first().context("Mean PPL(Q)/PPL(base)")?,
            tasks: Vec::new(),
            seconds,
        })
    };
    wanted.into_iter().try_for_each(|(tools, tool, name)| rows.add(one(tools, tool, name)?))
}

/// Bits per weight, as llama-quantize prints them, or from the sizes of the F16 model and the new one.
fn bits_of(said: &str) -> Option<f64> {
    let size = |mark| number_before(said, mark, " MB");
    number_before(said, "quant size", " BPW")
        .or_else(|| Some(16.0 * size("quant size")? / size("model size")?))
}

/// A complete output of llama-perplexity: with small models it may end before it prints the last
/// figures.
fn whole(mut judge: impl FnMut() -> anyhow::Result<(String, String)>) -> anyhow::Result<String> {
    for _ in 0..ATTEMPTS {
        let (out, errors) = judge()?;
        let said = out + &errors;
        if said.lines().any(|line| line.starts_with(LAST_FIGURE)) {
            return Ok(said);
        }
    }
    anyhow::bail!("llama-perplexity ended {ATTEMPTS} times without \"{LAST_FIGURE}\"")
}

/// The numbers after the colon of a line.
fn numbers(line: &str) -> Vec<f64> {
    let values = line.split_once(':').map_or("", |(_, values)| values);
    values.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The number before `unit` in the last line that has `mark`.
fn number_before(text: &str, mark: &str, unit: &str) -> Option<f64> {
    let line = text.lines().rfind(|line| line.contains(mark) && line.contains(unit))?;
    let before = &line[..line.find(unit)?];
    before.rsplit(|c: char| c != '.' && !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_lost_its_last_lines_is_repeated() {
        let runs = ["Mean    KLD: 1\n", "", "Mean    KLD: 1\nSame top p: 2 %\n"];
        let mut left = runs.iter();
        let said = whole(|| Ok((left.next().unwrap().to_string(), String::new()))).unwrap();
        assert_eq!((said.as_str(), left.len()), (runs[2], 0));
        let mut count = 0;
        let error = whole(|| {
            count += 1;
            Ok((runs[0].into(), String::new()))
        });
        assert!(error.unwrap_err().to_string().contains("Same top p") && count == ATTEMPTS);
    }

    #[test]
    fn figures_are_read_as_llama_cpp_prints_them() {
        let text = "llama_model_quantize_impl: quant size  =     2.71 MiB (4.45 BPW)\n";
        assert_eq!(bits_of(text), Some(4.45));
        let text = "model size  =   256.00 MB\nquant size  =    64.00 MB\n";
        assert_eq!(bits_of(text), Some(4.0));
        assert_eq!(numbers("Mean    KLD:   0.002652 ±   0.000197"), [0.002652, 0.000197]);
        assert_eq!(numbers("Same top p: 95.334 ± 0.111 %"), [95.334, 0.111]);
    }
}
