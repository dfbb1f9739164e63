//! Trial of settings, then rounds: every tool runs once in every cell.

use super::files::{Files, Pairing};
use super::head;
use super::load::Moment;
use super::record::{Run, is_disturbed, kv_bytes_per_token};
use super::shape::Shape;
use super::tool::Tool;
use pith_bench::Test;
use pith_kernels::probe::{self, ReadProbe};
use std::path::PathBuf;
use std::time::Duration;

/// Far larger than any cache.
const PROBE_BYTES: usize = 512 << 20;
const READ_TIME: Duration = Duration::from_millis(240);
const PEAK_TIME: Duration = Duration::from_millis(20);

/// One comparison, with the candidates of each tool.
pub struct Cell<'a> {
    shape: &'a Shape,
    encoding: String,
    test: Test,
    threads: usize,
    /// One list per tool.
    candidates: Vec<Vec<Candidate>>,
}

/// A file and additional arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    format: String,
    model: PathBuf,
    setting: String,
}

/// The tools, the probes and all runs so far.
pub struct Bench<'a> {
    tools: &'a [Tool],
    probe: ReadProbe,
    foreign_limit: f64,
    repeats: usize,
    runs: Vec<Run>,
}

impl<'a> Bench<'a> {
    /// A bench without runs.
    pub fn new(tools: &'a [Tool], foreign_limit: f64, repeats: usize) -> Self {
        Self { tools, probe: ReadProbe::new(PROBE_BYTES), foreign_limit, repeats, runs: Vec::new() }
    }

    /// All runs, in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Every combination.
    pub fn cells<'b>(
        &self,
        shape: &'b Shape,
        files: &Files,
        pairings: &[Pairing],
        tests: &[Test],
        threads: &[usize],
    ) -> Vec<Cell<'b>> {
        let mut cells = Vec::new();
        for pairing in pairings {
            for &test in tests {
                let candidates: Vec<_> =
                    self.tools.iter().map(|tool| candidates(tool, files, pairing, test)).collect();
                for &threads in threads {
                    let encoding = pairing.encoding.clone();
                    cells.push(Cell { shape, encoding, test, threads, candidates: candidates.clone() });
                }
            }
        }
        cells
    }

    /// The fastest candidate of each tool in each cell, at the highest thread count. A failing
    /// candidate is reported and dropped; a tool without any is an error. Disturbed trials count
    /// only if there are no others.
    pub fn choose(&mut self, cells: &[Cell<'_>], tries: usize) -> anyhow::Result<Vec<Vec<Candidate>>> {
        let most = cells.iter().map(|cell| cell.threads).max().unwrap_or_default();
        let mut known: Vec<(String, Test, Vec<Candidate>)> = Vec::new();
        for cell in cells.iter().filter(|cell| cell.threads == most) {
            let mut chosen = Vec::new();
            for tool in 0..self.tools.len() {
                chosen.push(self.fastest(cell, tool, tries)?);
            }
            known.push((cell.encoding.clone(), cell.test, chosen));
        }
        let of = |cell: &Cell<'_>| {
            let same =
                known.iter().find(|(encoding, test, _)| *encoding == cell.encoding && *test == cell.test);
            same.map(|(_, _, chosen)| chosen.clone()).expect("every encoding and test has all thread counts")
        };
        Ok(cells.iter().map(of).collect())
    }

    fn fastest(&mut self, cell: &Cell<'_>, tool: usize, tries: usize) -> anyhow::Result<Candidate> {
        let candidates = &cell.candidates[tool];
        if let [only] = candidates.as_slice() {
            return Ok(only.clone());
        }
        // Undisturbed before disturbed, then fast before slow.
        let mut best: Option<((bool, f64), &Candidate)> = None;
        let mut problem = None;
        for candidate in std::iter::repeat_n(candidates, tries).flatten() {
            match self.repeat(cell, tool, candidate, None) {
                Ok(run) => {
                    let rank = (!run.disturbed, run.tokens_per_s);
                    if best.is_none_or(|(other, _)| rank > other) {
                        best = Some((rank, candidate));
                    }
                }
                Err(error) => {
                    eprintln!("left out: {error:#}");
                    problem = Some(error);
                }
            }
        }
        match (best, problem) {
            (Some((_, candidate)), _) => Ok(candidate.clone()),
            (None, Some(problem)) => Err(problem),
            (None, None) => anyhow::bail!("no settings of {} to try", self.tools[tool].name),
        }
    }

    /// Runs every tool once in every cell and repeats disturbed runs. The first tool changes with
    /// the round.
    pub fn round(
        &mut self,
        cells: &[Cell<'_>],
        chosen: &[Vec<Candidate>],
        round: usize,
    ) -> anyhow::Result<()> {
        for (cell, chosen) in cells.iter().zip(chosen) {
            for turn in 0..self.tools.len() {
                let tool = (turn + round) % self.tools.len();
                self.repeat(cell, tool, &chosen[tool], Some(round))?;
            }
        }
        Ok(())
    }

    /// Runs until a run is undisturbed or the repeats are used up; keeps all, returns the last.
    fn repeat(
        &mut self,
        cell: &Cell<'_>,
        tool: usize,
        candidate: &Candidate,
        round: Option<usize>,
    ) -> anyhow::Result<Run> {
        let mut run = self.run(cell, tool, candidate, round)?;
        for _ in 0..self.repeats {
            if !run.disturbed {
                break;
            }
            self.runs.push(run);
            run = self.run(cell, tool, candidate, round)?;
        }
        self.runs.push(run.clone());
        Ok(run)
    }

    fn run(
        &self,
        cell: &Cell<'_>,
        tool: usize,
        candidate: &Candidate,
        round: Option<usize>,
    ) -> anyhow::Result<Run> {
        let tool = &self.tools[tool];
        let (probe_bytes_per_s, _) = self.probe.bytes_per_s(cell.threads, READ_TIME);
        let peak = probe::int8_peak(cell.threads, PEAK_TIME);
        let before = Moment::now()?;
        let reading = tool.run(&candidate.model, cell.test, cell.threads, &candidate.setting)?;
        let foreign_cores = before.foreign_cores()?;
        let decode_bytes = match tool.dialect {
            // Some builds count a tied embedding twice; a token reads it once.
            Some(_) => {
                let file =
                    std::fs::metadata(&candidate.model).map_or(f64::INFINITY, |file| file.len() as f64);
                reading.bytes.min(file) + kv_bytes_per_token(cell.shape, cell.test)
            }
            None => reading.bytes,
        };
        let head = match reading.head {
            Some(head) => head,
            None => head::of_gguf(&candidate.model)?,
        };
        let run = Run {
            shape: cell.shape.name,
            encoding: cell.encoding.clone(),
            test: cell.test.to_string(),
            threads: cell.threads,
            round,
            tool: tool.name.clone(),
            format: candidate.format.clone(),
            setting: candidate.setting.clone(),
            head,
            tokens_per_s: reading.tokens_per_s,
            bytes_per_token: (!cell.test.prefill).then_some(decode_bytes),
            ops_per_token: cell.test.prefill.then_some(2.0 * cell.shape.body_weights() as f64),
            probe_bytes_per_s,
            peak_ops_per_s: peak.map(|peak| peak.ops_per_s),
            foreign_cores,
            disturbed: is_disturbed(foreign_cores, self.foreign_limit),
        };
        eprintln!("{}", line(&run));
        Ok(run)
    }
}

fn candidates(tool: &Tool, files: &Files, pairing: &Pairing, test: Test) -> Vec<Candidate> {
    let files: Vec<(String, PathBuf)> = match tool.dialect {
        None => vec![(pairing.encoding.clone(), files.own(&pairing.encoding))],
        Some(_) => {
            let count = if test.prefill { pairing.formats.len() } else { pairing.same_bits };
            pairing.formats[..count].iter().map(|format| (format.clone(), files.rival(format))).collect()
        }
    };
    let with = |(format, model): &(String, PathBuf)| {
        let (format, model) = (format.clone(), model.clone());
        let each = tool.settings.iter();
        each.map(|setting| Candidate {
            format: format.clone(),
            model: model.clone(),
            setting: setting.clone(),
        })
        .collect::<Vec<_>>()
    };
    files.iter().flat_map(with).collect()
}

fn line(run: &Run) -> String {
    let round = run.round.map_or("try".into(), |round| format!("round {round}"));
    let share = run.share().map_or(String::new(), |share| format!(", {:.0} %", 100.0 * share));
    let disturbed =
        if run.disturbed { format!(", disturbed: {:.2} cores", run.foreign_cores) } else { String::new() };
    format!(
        "{round}: {} {} {} with {} threads: {} {} {}: {:.1} tokens/s{share}{disturbed}",
        run.shape, run.encoding, run.test, run.threads, run.tool, run.format, run.setting, run.tokens_per_s
    )
}
