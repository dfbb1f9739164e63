//! Runs, and the figures of each cell derived from them.

use super::head::Head;
use super::shape::{HEAD_DIM, Shape};
use pith_bench::Test;
use pith_meter::statistics::MedianRange;
use serde::Serialize;

/// One run of one tool.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub shape: &'static str,
    /// Pith's encoding, which names the comparison.
    pub encoding: String,
    pub test: String,
    pub threads: usize,
    /// Round number from 1; `None` for a trial of settings.
    pub round: Option<usize>,
    pub tool: String,
    /// Encoding of the tool's own file.
    pub format: String,
    pub setting: String,
    /// The head that the tool read.
    pub head: Head,
    pub tokens_per_s: f64,
    /// For decode: weights, keys and values.
    pub bytes_per_token: Option<f64>,
    /// For prefill: multiplications and additions with the layers' weights.
    pub ops_per_token: Option<f64>,
    /// Bandwidth probed just before, with as many threads.
    pub probe_bytes_per_s: f64,
    /// Speed of the probe's int8 loop just before, with as many threads.
    pub peak_ops_per_s: Option<f64>,
    /// Processors kept busy by others during the run.
    pub foreign_cores: f64,
    /// Whether others exceeded the limit; such a run enters no median.
    pub disturbed: bool,
}

impl Run {
    /// Bytes per second; for decode only.
    pub fn bytes_per_s(&self) -> Option<f64> {
        self.bytes_per_token.map(|bytes| bytes * self.tokens_per_s)
    }

    /// Share of the probed bandwidth (decode) or of the int8 peak (prefill).
    pub fn share(&self) -> Option<f64> {
        let bandwidth = self.bytes_per_s().map(|rate| rate / self.probe_bytes_per_s);
        let compute = self.ops_per_token.zip(self.peak_ops_per_s);
        bandwidth.or_else(|| compute.map(|(ops, peak)| ops * self.tokens_per_s / peak))
    }
}

/// Bytes of f16 keys and values that a decoded token reads, averaged over a test.
pub fn kv_bytes_per_token(shape: &Shape, test: Test) -> f64 {
    let position = (shape.layers * shape.kv_heads * HEAD_DIM * 2 * 2) as f64;
    position * (test.depth as f64 + (test.tokens as f64 + 1.0) / 2.0)
}

/// Whether others used too much for the run to count.
pub fn is_disturbed(foreign_cores: f64, limit_cores: f64) -> bool {
    foreign_cores > limit_cores
}

/// One tool in one cell.
#[derive(Debug, Serialize)]
pub struct Figure {
    pub tool: String,
    pub format: String,
    pub setting: String,
    pub head: Head,
    pub kept_count: usize,
    pub dropped_count: usize,
    pub tokens_per_s: Option<MedianRange>,
    pub gb_per_s: Option<MedianRange>,
    /// Share of the probed bandwidth (decode) or of the int8 peak (prefill).
    pub share: Option<MedianRange>,
}

/// One comparison: the same work by every tool.
#[derive(Debug, Serialize)]
pub struct Cell {
    pub shape: &'static str,
    pub encoding: String,
    pub test: String,
    pub threads: usize,
    /// Pith first.
    pub figures: Vec<Figure>,
    /// Pith's median over the best rival's.
    pub ratio: Option<f64>,
}

impl Cell {
    /// Summarises the runs of one comparison, without trials of settings.
    pub fn of(runs: &[&Run]) -> Option<Self> {
        let counted: Vec<&Run> = runs.iter().copied().filter(|run| run.round.is_some()).collect();
        let first = *counted.first()?;
        let mut names: Vec<&str> = Vec::new();
        for run in &counted {
            if !names.contains(&run.tool.as_str()) {
                names.push(&run.tool);
            }
        }
        // The tools alternate in going first.
        names.sort_by_key(|name| *name != super::tool::PITH);
        let figures: Vec<Figure> = names
            .into_iter()
            .map(|name| figure(&counted.iter().copied().filter(|run| run.tool == name).collect::<Vec<_>>()))
            .collect();
        let medians = |own: bool| {
            let of = figures.iter().filter(move |figure| (figure.tool == super::tool::PITH) == own);
            of.filter_map(|figure| figure.tokens_per_s).map(|spread| spread.median).max_by(f64::total_cmp)
        };
        let ratio = medians(true).zip(medians(false)).map(|(own, rival)| own / rival);
        Some(Self {
            shape: first.shape,
            encoding: first.encoding.clone(),
            test: first.test.clone(),
            threads: first.threads,
            figures,
            ratio,
        })
    }
}

/// Summarises a tool's runs in a cell; there must be at least one.
fn figure(runs: &[&Run]) -> Figure {
    let kept: Vec<&Run> = runs.iter().copied().filter(|run| !run.disturbed).collect();
    Figure {
        tool: runs[0].tool.clone(),
        format: runs[0].format.clone(),
        setting: runs[0].setting.clone(),
        head: runs[0].head.clone(),
        kept_count: kept.len(),
        dropped_count: runs.len() - kept.len(),
        tokens_per_s: MedianRange::of(kept.iter().map(|run| run.tokens_per_s)),
        gb_per_s: MedianRange::of(kept.iter().filter_map(|run| run.bytes_per_s()).map(|rate| rate / 1e9)),
        share: MedianRange::of(kept.iter().filter_map(|run| run.share())),
    }
}

/// All cells, in the order of their first measurement.
pub fn cells(runs: &[Run]) -> Vec<Cell> {
    let key = |run: &Run| (run.shape, run.encoding.clone(), run.test.clone(), run.threads);
    let mut keys = Vec::new();
    for run in runs {
        if !keys.contains(&key(run)) {
            keys.push(key(run));
        }
    }
    let of = |wanted| runs.iter().filter(|run| key(run) == wanted).collect::<Vec<_>>();
    keys.into_iter().filter_map(|wanted| Cell::of(&of(wanted))).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A run of `tg128` with 2 threads.
    pub fn run(tool: &str, round: usize, tokens_per_s: f64) -> Run {
        Run {
            shape: "1.2b",
            encoding: "q4".into(),
            test: "tg128".into(),
            threads: 2,
            round: Some(round),
            tool: tool.into(),
            format: if tool == "pith" { "q4".into() } else { "Q4_0".into() },
            setting: if tool == "pith" { "".into() } else { "-fa on".into() },
            head: Head {
                encoding: if tool == "pith" { "q8".into() } else { "Q6_K".into() },
                bits_per_weight: if tool == "pith" { 8.5 } else { 6.5625 },
                logits: "exact".into(),
            },
            tokens_per_s,
            bytes_per_token: Some(0.8e9),
            ops_per_token: None,
            probe_bytes_per_s: 40e9,
            peak_ops_per_s: Some(1.8e12),
            foreign_cores: 0.0,
            disturbed: false,
        }
    }

    #[test]
    fn a_run_is_disturbed_above_the_limit() {
        assert!(!is_disturbed(0.1, 0.1));
        assert!(is_disturbed(0.11, 0.1));
        assert!(!is_disturbed(0.0, 0.0));
    }

    #[test]
    fn disturbed_runs_are_counted_and_left_out() {
        let mut runs = vec![run("llama.cpp", 1, 40.0), run("pith", 1, 50.0), run("pith", 2, 5.0)];
        runs[2].disturbed = true;
        let cells = cells(&runs);
        assert_eq!(cells.len(), 1);
        let pith = &cells[0].figures[0];
        assert_eq!((pith.tool.as_str(), pith.kept_count, pith.dropped_count), ("pith", 1, 1));
        assert_eq!(pith.tokens_per_s.unwrap().min, 50.0);
        assert_eq!(cells[0].ratio, Some(1.25));
        assert_eq!(pith.gb_per_s.unwrap().median, 40.0);
        assert_eq!(pith.share.unwrap().median, 1.0);
    }

    #[test]
    fn the_better_rival_counts() {
        let runs = [run("pith", 1, 60.0), run("a", 1, 40.0), run("b", 1, 50.0)];
        assert_eq!(cells(&runs)[0].ratio, Some(1.2));
    }

    #[test]
    fn without_a_run_that_counts_there_is_no_figure() {
        let mut runs = [run("pith", 1, 60.0), run("a", 1, 40.0)];
        runs[1].disturbed = true;
        let cell = &cells(&runs)[0];
        assert_eq!((cell.ratio, cell.figures[1].tokens_per_s), (None, None));
        let mut tried = run("pith", 1, 1.0);
        tried.round = None;
        assert!(cells(&[tried]).is_empty());
    }

    #[test]
    fn prefill_is_held_against_the_peak() {
        let mut prefill = run("pith", 1, 500.0);
        (prefill.bytes_per_token, prefill.ops_per_token) = (None, Some(1.8e9));
        assert_eq!(prefill.share(), Some(0.5));
        prefill.peak_ops_per_s = None;
        assert_eq!((prefill.share(), prefill.bytes_per_s()), (None, None));
    }

    #[test]
    fn keys_and_values_grow_with_the_context() {
        let shape = Shape::named("1.2b").unwrap();
        let bytes = kv_bytes_per_token(shape, "tg128@2048".parse().unwrap());
        assert_eq!(bytes, 16.0 * 8.0 * 64.0 * 4.0 * (2048.0 + 64.5));
    }
}
