//! The search from a checkpoint to its file.

use crate::bench::{Bench, pick_windows};
use crate::budget::Budget;
use crate::choice::Choice;
use crate::error::SearchError;
use crate::evolution::{Evolution, Evolved, stages};
use crate::files::{FOUND, UNIFORM, remove_partials};
use crate::journal::{Journal, Subject};
use crate::knapsack::Frontier;
use crate::outcome::{FRONTIER, Outcome, Row};
use crate::plan::{Costs, LEAST_WINDOWS, Plan};
use crate::sensitivity::{Sensitivities, measure};
use crate::space::{Assignment, Space};
use crate::tiles::Tiles;
use pith_converter::checkpoint::Checkpoint;
use pith_converter::statistics::{CalibrationText, Statistics, TextOptions};
use pith_converter::{
    CompressOptions, Compression, ConvertError, ConvertOptions, QuantizedSource, Recipe, Rounder,
    SourceSummary, input_files, inspect_source,
};
use pith_format::{Encoding, Progress, ReplaceOptions, move_to};
use pith_runtime::{Model, SessionOptions};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Default number of generations of the evolution.
pub const DEFAULT_GENERATIONS: usize = 20;

/// Share of the time for calibrating.
const CALIBRATION_SHARE: f64 = 0.1;

/// Estimated cost of calibrating, in dense passes: the pass itself and the products of columns.
const CALIBRATION_PASSES: f64 = 3.0;

/// Share of the time left, writing deducted, for measuring sensitivities; evolution gets the rest.
const SENSITIVITY_SHARE: f64 = 0.7;

/// A uniform recipe is also written if its divergence, rounded once, is within this factor of the
/// search's.
const RIVAL: f64 = 2.0;

/// Fewest tokens per window.
const LEAST_CONTEXT: usize = 8;

/// Options of a search.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// Limit of the file's cost.
    pub budget: Budget,
    /// Choices for each matrix.
    pub choices: Vec<Choice>,
    /// Calibration text: plain, or JSON lines with a field `text`.
    pub text: PathBuf,
    /// Text for measuring divergence; `None`: a part of `text`.
    pub search_text: Option<PathBuf>,
    /// Tokens of that text; `None`: 4096, or fewer if time is short.
    pub eval_tokens: Option<usize>,
    /// Most tokens for calibrating; `None`: all, or fewer if time is short.
    pub calibration_tokens: Option<usize>,
    /// Tokens per window, in both texts.
    pub context_len: usize,
    /// Time for the whole search, in hours. Calibration, sensitivities and evolution are cut to
    /// fit.
    pub hours: f64,
    /// Most generations of the evolution.
    pub generations: usize,
    /// Seed of the evolution's random numbers.
    pub seed: u64,
    /// Whether files are rounded twice; see [`Recipe::refine`].
    pub refine: bool,
    /// Threads, CPUs and kernels.
    pub session: SessionOptions,
    /// Memory limit of rounding and calibrating, in bytes.
    pub memory: Option<u64>,
    /// Work folder, for measurements and intermediate files.
    pub work: PathBuf,
    /// Round the codes of a quantized checkpoint again; without it such a checkpoint is an error.
    pub requantize: bool,
    /// Overwrite the output.
    pub force: bool,
}

/// Finds a recipe within the budget and writes its file to `output`.
///
/// On the search's text the file diverges no more than the best uniform recipe that is no larger:
/// where the two are close, both are written and compared. After any interruption the same call
/// resumes from the journal.
pub fn search(
    source: &Path,
    output: &Path,
    options: &SearchOptions,
    progress: &dyn Progress,
) -> Result<Outcome, SearchError> {
    let clock = Clock { started: Instant::now(), seconds: options.hours * 3600.0 };
    check(source, output, options)?;
    fs::create_dir_all(&options.work).map_err(SearchError::io(&options.work, "create"))?;
    let known = Journal::subject_in(&options.work)?;
    let checksum = Checkpoint::open(source).and_then(|checkpoint| checkpoint.checksum());
    let model_checksum = format!("{:032x}", checksum.map_err(ConvertError::from)?);
    if let Some(known) = &known {
        // Checked first: a wrong folder must not cost an hour.
        let field = "the model's checksum";
        let (found, expected) = (known.model.clone(), model_checksum.clone());
        if found != expected {
            return Err(SearchError::OtherJournal {
                path: Journal::path_in(&options.work),
                field,
                found,
                expected,
            });
        }
    }
    if !options.requantize {
        let encoding = options.choices.first().map_or(Encoding::Q4, |choice| choice.encoding());
        let (recipe, quantized) = (Recipe::new(encoding), QuantizedSource::Refuse);
        Compression::check(source, &ConvertOptions { recipe, quantized, ..ConvertOptions::default() })?;
    }
    let choices = choices(source, options, progress)?;
    let dense = Arc::clone(compression(source, options, None, progress)?.dense());
    let space = Space::new(&dense, choices, options.memory)?;
    options.budget.check()?;
    check_least(&space, options)?;
    let text = Text::read(&dense, options)?;
    let seconds_per_token = time_pass(&dense, &text, options, progress)?;

    let calibration_tokens = match &known {
        Some(known) => known.calibration_tokens,
        None => options.calibration_tokens.or_else(|| clock.calibration_tokens(seconds_per_token, &text)),
    };
    let mut compression = compression(source, options, calibration_tokens, progress)?;
    let calibrating = Instant::now();
    let calibration_path = compression.calibration(true, progress)?;
    let calibration = Statistics::open(&calibration_path).map_err(ConvertError::from)?;
    let tokens = calibration.info().tokens as f64;
    let calibrating = calibrating.elapsed().as_secs_f64().max(tokens * seconds_per_token);

    let rounder = Rounder::new(dense.index(), dense.bytes(), &calibration)?;
    // Tiles depend on the calibration.
    let made_of = format!("{model_checksum} {}", calibration.info().tokens_checksum);
    let folder = options.work.join(format!("tiles-{:016x}", xxhash_rust::xxh3::xxh3_64(made_of.as_bytes())));
    let dense_path = dense.path().expect("the dense model was opened by its path");
    let mut tiles = Tiles::new(folder, dense_path, &space, rounder)?;
    let mut costs = Costs::of(&space, options.context_len, text.windows.len());
    costs.seconds_per_token = seconds_per_token;
    costs.rounding_seconds = time_rounding(&space, &mut tiles)?;
    let writing = costs.rounding_seconds * if options.refine { 2.0 } else { 1.0 }
        + if options.refine { 3.0 * calibrating } else { 0.0 };
    // Two files: the search's own and a uniform one.
    let reserve = 2.0 * writing;
    let plan = match &known {
        Some(known) => known_plan(known, &space, &costs),
        None => costs.plan(options.eval_tokens, (clock.left() - reserve) * SENSITIVITY_SHARE),
    };
    progress.say(&words(&plan, &space, &costs, reserve));
    let asked = options.eval_tokens.map(|tokens| costs.windows_of(tokens));
    let subject = Subject {
        version: Subject::VERSION,
        model: model_checksum,
        text: text.checksum.clone(),
        calibration: calibration.info().tokens_checksum.clone(),
        choices: space.choices().iter().map(ToString::to_string).collect(),
        context_len: options.context_len,
        eval_tokens: asked.unwrap_or(plan.windows) * options.context_len,
        calibration_tokens: options.calibration_tokens.or(calibration_tokens),
        measured: plan.choices.iter().map(|&choice| space.choices()[choice].to_string()).collect(),
    };
    let mut journal = Journal::open(&options.work, &subject)?;
    remove_partials(&options.work)?;
    let resumed = journal.measurement_count();
    let windows = pick_windows(&text.windows, options.context_len, plan.windows);
    let bench = Bench::new(
        Arc::clone(&dense),
        windows,
        &stages(plan.windows),
        options.session.clone(),
        options.work.clone(),
        progress,
    )?;
    let sensitivities = measure(&space, &bench, &mut tiles, &mut journal, &plan.choices)?;
    let mut run = Run {
        options,
        space: &space,
        bench: &bench,
        sensitivities: &sensitivities,
        inputs: inputs(source, options)?,
        notes: Vec::new(),
        rows: Vec::new(),
    };
    if !plan.fits {
        run.notes.push(format!(
            "even the least there is to measure takes about {:.0} s, more than --hours leaves",
            plan.seconds
        ));
    }
    let frontier = Frontier::new(&sensitivities.items(&space, &options.budget));
    let (assignment, rival, evolved) =
        run.choose(&frontier, &mut tiles, &mut journal, clock.deadline(reserve))?;
    let measurements = journal.measurement_count();
    drop(tiles);
    let written = run.write(&mut compression, assignment, rival, output, progress)?;
    Ok(Outcome {
        output: output.into(),
        recipe: space.recipe(&written.assignment, options.refine),
        predicted_bytes: space.file_bytes(&written.assignment, options.refine),
        file_bytes: written.file_bytes,
        assignment: written.assignment,
        frontier: run.frontier(&frontier),
        rows: run.rows,
        notes: run.notes,
        dense_perplexity: bench.perplexity(),
        eval_tokens: plan.windows * options.context_len,
        resumed,
        measurements,
        generations: evolved.generations,
        elapsed: clock.started.elapsed(),
    })
}

struct Clock {
    started: Instant,
    seconds: f64,
}

impl Clock {
    fn left(&self) -> f64 {
        self.seconds - self.started.elapsed().as_secs_f64()
    }

    /// The time at which evolution ends.
    fn deadline(&self, reserve: f64) -> Instant {
        Instant::now() + Duration::from_secs_f64((self.left() - reserve).max(0.0))
    }

    /// The number of tokens that time allows; `None` for the whole text.
    fn calibration_tokens(&self, seconds_per_token: f64, text: &Text) -> Option<usize> {
        let most = (CALIBRATION_SHARE * self.seconds / (CALIBRATION_PASSES * seconds_per_token)) as usize;
        (most < text.calibration_tokens).then_some(most.max(4096))
    }
}

/// The search's text, cut into windows.
struct Text {
    windows: Vec<Vec<u32>>,
    checksum: String,
    /// Tokens of the whole calibration text.
    calibration_tokens: usize,
}

impl Text {
    fn read(dense: &Model, options: &SearchOptions) -> Result<Self, SearchError> {
        let context_len = options.context_len;
        let wanted = TextOptions { tokens: None, window: Some(context_len) };
        let read = |path: &Path| CalibrationText::read(path, dense, wanted).map_err(ConvertError::from);
        let whole = read(&options.text)?;
        let calibration_tokens = whole.tokens();
        let text = options.search_text.as_deref().map(read).transpose()?.unwrap_or(whole);
        let windows: Vec<Vec<u32>> =
            text.sequences.into_iter().filter(|sequence| sequence.len() == context_len).collect();
        if windows.len() < LEAST_WINDOWS {
            return Err(SearchError::ShortText { found: windows.len(), context_len, least: LEAST_WINDOWS });
        }
        Ok(Self { windows, checksum: text.checksum.unwrap_or_default(), calibration_tokens })
    }
}

/// Input files, which the output must not replace.
fn inputs(source: &Path, options: &SearchOptions) -> Result<Vec<PathBuf>, SearchError> {
    let mut inputs = input_files(source)?;
    inputs.push(options.text.clone());
    inputs.extend(options.search_text.clone());
    Ok(inputs)
}

fn check(source: &Path, output: &Path, options: &SearchOptions) -> Result<(), SearchError> {
    if source.extension().is_some_and(|extension| extension == "pith") {
        return Err(SearchError::NoCheckpoint { path: source.into() });
    }
    ReplaceOptions { force: options.force, inputs: &inputs(source, options)? }.check(output)?;
    let wrong = |option, found: String, expected: &str| {
        Err(SearchError::Option { option, found, expected: expected.into() })
    };
    if !(options.hours.is_finite() && options.hours > 0.0) {
        return wrong("hours", options.hours.to_string(), "a number above 0");
    }
    if options.context_len < LEAST_CONTEXT {
        return wrong("context", options.context_len.to_string(), "8 tokens or more");
    }
    match options.eval_tokens {
        Some(tokens) if tokens < LEAST_WINDOWS * options.context_len => {
            wrong("eval-tokens", tokens.to_string(), "two windows of --context tokens or more")
        }
        _ => Ok(()),
    }
}

/// The choices; of a quantized source those with fewer bits than its matrices have on average.
fn choices(
    source: &Path,
    options: &SearchOptions,
    progress: &dyn Progress,
) -> Result<Vec<Choice>, SearchError> {
    let SourceSummary { is_quantized, matrix_types, matrix_bits, .. } = inspect_source(source)?;
    if !is_quantized {
        return Ok(options.choices.clone());
    }
    progress.say(&format!(
        "the source is already quantized ({matrix_types}, {matrix_bits:.2} bits a weight): encodings of fewer bits are tried"
    ));
    let narrower = options.choices.iter().copied().filter(|choice| choice.bits() < matrix_bits);
    let narrower: Vec<Choice> = narrower.collect();
    if narrower.len() < 2 {
        return Err(SearchError::Option {
            option: "encodings",
            found: options.choices.iter().map(Choice::to_string).collect::<Vec<_>>().join(", "),
            expected: format!(
                "at least two of fewer than the {matrix_bits:.2} bits a weight of the quantized source"
            ),
        });
    }
    Ok(narrower)
}

/// Fails if the cheapest assignment is beyond the budget.
fn check_least(space: &Space, options: &SearchOptions) -> Result<(), SearchError> {
    let (budget, least) = (&options.budget, space.uniform(0));
    if budget.fits(space, &least, options.refine) {
        return Ok(());
    }
    Err(SearchError::TooSmall {
        budget: budget.to_string(),
        least: budget.show(budget.measure(space, &least, options.refine)),
        with: space.choices()[0].to_string(),
    })
}

fn compression(
    source: &Path,
    options: &SearchOptions,
    tokens: Option<usize>,
    progress: &dyn Progress,
) -> Result<Compression, SearchError> {
    let given = CompressOptions {
        text: Some(options.text.clone()),
        text_options: TextOptions { tokens, window: Some(options.context_len) },
        session: options.session.clone(),
        memory: options.memory,
    };
    Ok(Compression::new(source, &options.work, given, progress)?)
}

/// Seconds per token of a dense pass, logits included.
fn time_pass(
    dense: &Arc<Model>,
    text: &Text,
    options: &SearchOptions,
    progress: &dyn Progress,
) -> Result<f64, SearchError> {
    let window = pick_windows(&text.windows, options.context_len, 1);
    // The first pass also reads the file.
    let bench =
        Bench::new(Arc::clone(dense), window, &[], options.session.clone(), options.work.clone(), progress)?;
    let started = Instant::now();
    bench.divergence(Arc::clone(dense), 1)?;
    Ok(started.elapsed().as_secs_f64() / options.context_len as f64)
}

/// Seconds of rounding every matrix once, scaled from one matrix of middle size by products.
fn time_rounding(space: &Space, tiles: &mut Tiles<'_>) -> Result<f64, SearchError> {
    let tensors = space.tensors();
    let products = |index: usize| (tensors[index].rows * tensors[index].cols * tensors[index].cols) as f64;
    let mut by_size: Vec<usize> = (0..tensors.len()).collect();
    by_size.sort_by(|&a, &b| products(a).total_cmp(&products(b)));
    let middle = by_size[by_size.len() / 2];
    let seconds = tiles.time(middle, space.choices().len() / 2)?.as_secs_f64();
    Ok((0..tensors.len()).map(|index| seconds * products(index) / products(middle)).sum())
}

/// The plan of an earlier run, from its journal.
fn known_plan(known: &Subject, space: &Space, costs: &Costs) -> Plan {
    let named = |name: &String| space.choices().iter().position(|choice| choice.to_string() == *name);
    let choices = known.measured.iter().filter_map(named).collect();
    let windows = (known.eval_tokens / costs.context_len).clamp(1, costs.window_count);
    Plan { windows, choices, seconds: 0.0, fits: true }
}

fn words(plan: &Plan, space: &Space, costs: &Costs, reserve: f64) -> String {
    let measured: Vec<String> =
        plan.choices.iter().map(|&choice| space.choices()[choice].to_string()).collect();
    let others = space.choices().len() - measured.len();
    format!(
        "a dense pass takes {:.4} s per 1000 tokens; measuring {} matrices at {} on {} tokens{}{}; writing about {:.0} s",
        1000.0 * costs.seconds_per_token,
        space.tensors().len(),
        measured.join(", "),
        plan.windows * costs.context_len,
        if others > 0 { ", interpolating the other encodings" } else { "" },
        if plan.seconds > 0.0 { format!(", about {:.0} s", plan.seconds) } else { String::new() },
        reserve,
    )
}

/// The measurements from which the file is chosen.
struct Run<'a, 'b> {
    options: &'a SearchOptions,
    space: &'a Space,
    bench: &'a Bench<'b>,
    sensitivities: &'a Sensitivities,
    /// Files that the output must not replace.
    inputs: Vec<PathBuf>,
    notes: Vec<String>,
    rows: Vec<Row>,
}

struct Written {
    assignment: Assignment,
    file_bytes: u64,
    kl: f64,
}

/// The best uniform recipe, with its divergence.
type Rival = Option<(Assignment, f64)>;

impl Run<'_, '_> {
    /// The best assignment, and the best uniform one if it is close.
    fn choose(
        &mut self,
        frontier: &Frontier,
        tiles: &mut Tiles<'_>,
        journal: &mut Journal,
        deadline: Instant,
    ) -> Result<(Assignment, Rival, Evolved), SearchError> {
        let (space, options, windows) = (self.space, self.options, self.bench.window_count());
        let largest = space.uniform(space.choices().len() - 1);
        if options.budget.fits(space, &largest, options.refine) {
            let most = options.budget.measure(space, &largest, options.refine);
            self.notes.push(format!(
                "the budget of {} is more than any choice takes: every matrix could have {}, {}",
                options.budget,
                space.choices()[space.choices().len() - 1],
                options.budget.show(most)
            ));
        }
        let added = options.budget.pick(space, frontier, options.refine);
        let start = added.unwrap_or_else(|| space.uniform(0));
        let mut evolution = Evolution {
            space,
            budget: &options.budget,
            refine: options.refine,
            bench: self.bench,
            tiles,
            journal,
        };
        let mut best = (start.clone(), evolution.divergence(&start, windows)?);
        let mut rows = vec![("dynamic programming".to_string(), start, best.1)];
        let mut rival: Rival = None;
        for (name, uniform) in uniforms(space, options) {
            let kl = evolution.divergence(&uniform, windows)?;
            if rival.as_ref().is_none_or(|(_, least)| kl < *least) {
                rival = Some((uniform.clone(), kl));
            }
            if kl < best.1 {
                best = (uniform.clone(), kl);
            }
            rows.push((name, uniform, kl));
        }
        let evolved = evolution.run(best.0, options.generations, options.seed, deadline)?;
        rows.push((
            format!("evolution of {} generations", evolved.generations),
            evolved.best.clone(),
            evolved.kl,
        ));
        if evolved.generations < options.generations {
            self.notes.push(format!(
                "time was left for {} of {} generations",
                evolved.generations, options.generations
            ));
        }
        for (name, assignment, kl) in rows {
            let mut row = self.row(name, &options.budget, &assignment);
            row.measured_kl = Some(kl);
            self.rows.push(row);
        }
        let rival = rival.filter(|(uniform, kl)| *kl <= RIVAL * evolved.kl && *uniform != evolved.best);
        Ok((evolved.best.clone(), rival, evolved))
    }

    /// Writes the file and the rival's; renames the better one to the output.
    fn write(
        &mut self,
        compression: &mut Compression,
        assignment: Assignment,
        rival: Rival,
        output: &Path,
        progress: &dyn Progress,
    ) -> Result<Written, SearchError> {
        let found = self.options.work.join(FOUND);
        let other = self.options.work.join(UNIFORM);
        let mut best =
            ("the search's file", self.written(compression, assignment, &found, progress)?, &found);
        if let Some((uniform, _)) = rival {
            let written = self.written(compression, uniform, &other, progress)?;
            let mut second = ("the best uniform recipe's file", written, &other);
            if second.1.kl < best.1.kl {
                self.notes
                    .push("a uniform recipe's file came out better than the search's and is taken".into());
                std::mem::swap(&mut best, &mut second);
            }
            self.keep(second.0, &second.1);
        }
        let (name, best, path) = best;
        self.keep(name, &best);
        move_to(path, output, ReplaceOptions { force: self.options.force, inputs: &self.inputs })?;
        for path in [&found, &other] {
            // Already renamed, or never written.
            let _ = fs::remove_file(path);
        }
        Ok(best)
    }

    fn written(
        &self,
        compression: &mut Compression,
        assignment: Assignment,
        path: &Path,
        progress: &dyn Progress,
    ) -> Result<Written, SearchError> {
        let recipe: Recipe = self.space.recipe(&assignment, self.options.refine);
        // Whether a quantized source may be rounded was asked before the search.
        let quantized = QuantizedSource::Round;
        let options = ConvertOptions { recipe, quantized, force: true, ..ConvertOptions::default() };
        let report = compression.write(&options, path, progress)?;
        let kl = self.bench.divergence(Arc::new(Model::open(path)?), self.bench.window_count())?;
        Ok(Written { assignment, file_bytes: report.file_bytes, kl })
    }

    fn keep(&mut self, name: &str, written: &Written) {
        let mut row = self.row(name.into(), &self.options.budget, &written.assignment);
        row.file_bytes = written.file_bytes;
        row.file_kl = Some(written.kl);
        self.rows.push(row);
    }

    fn frontier(&self, frontier: &Frontier) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for factor in FRONTIER {
            let budget = self.options.budget.scaled(factor);
            let Some(assignment) = budget.pick(self.space, frontier, self.options.refine) else { continue };
            let row = self.row(budget.to_string(), &budget, &assignment);
            // Beyond the largest assignment all rows are the same.
            if rows.last().is_none_or(|last| last.tensors != row.tensors) {
                rows.push(row);
            }
        }
        rows
    }

    fn row(&self, name: String, budget: &Budget, assignment: &[u8]) -> Row {
        Row::new(name, self.space, self.sensitivities, budget, self.options.refine, assignment)
    }
}

/// Uniform recipes within the budget: one choice for all matrices, or one for the layers and the
/// widest other choice that leaves room for embeddings and head.
fn uniforms(space: &Space, options: &SearchOptions) -> Vec<(String, Assignment)> {
    let fits = |assignment: &Assignment| options.budget.fits(space, assignment, options.refine);
    let name = |choice: usize| space.choices()[choice].to_string();
    let mut found: Vec<(String, Assignment)> = Vec::new();
    for layers in 0..space.choices().len() {
        let uniform = space.uniform(layers);
        if fits(&uniform) {
            found.push((format!("uniform {}", name(layers)), uniform));
        }
        let widest = (0..space.choices().len()).rev().find(|&outer| fits(&space.of_two(layers, outer)));
        if let Some(outer) = widest.filter(|&outer| outer != layers) {
            found.push((
                format!("uniform {}; embedding and head {}", name(layers), name(outer)),
                space.of_two(layers, outer),
            ));
        }
    }
    found
}
