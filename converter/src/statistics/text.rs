//! The calibration text: a text cut into windows, or sequences that the model generates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pith_format::{Kind, Progress, Unit};
use pith_runtime::{Engine, EngineOptions, Model, Sampler, SamplerOptions, Session, SessionOptions};
use serde_json::Value;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::error::StatisticsError;
use crate::checkpoint::file::SourceFile;

/// Smallest number of tokens of a text, and of its last window.
pub const LEAST_TOKENS: usize = 32;

/// Default number of tokens in a window.
pub const DEFAULT_WINDOW: usize = 512;

/// Fewest and most tokens that a model generates by default.
pub const DEFAULT_GENERATED: (u64, u64) = (4096, 16_384);

/// Weights times tokens of generated text, within these limits: about the time that it takes.
const GENERATED_PRODUCTS: u64 = 2_200_000_000_000;

/// Tokens of generated text for each column of the widest matrix, within these limits: with fewer,
/// a Hessian says little about its smallest directions.
const TOKENS_PER_COLUMN: u64 = 8;

/// Largest text in bytes.
const TEXT_LIMIT: u64 = 1 << 30;

/// First estimate of the bytes of text per token.
const BYTES_PER_TOKEN: usize = 8;

/// Fewest and most tokens that a model generates to be judged by.
const UNSEEN: (u64, u64) = (1024, 2048);

/// Seed of the first sequence to judge by: no calibration generates so many.
const UNSEEN_SEED: u64 = 1 << 32;

/// Sequences that are generated together: their products need little more time than one's, because
/// the weights are read once.
const TOGETHER: usize = 8;

/// Sequences of tokens, and their source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalibrationText {
    /// Sequences; each is run from position 0.
    pub sequences: Vec<Vec<u32>>,
    /// Name of the file without its folder; `None` for generated text.
    pub file: Option<String>,
    /// XXH3-128 of the file, as `xxhsum -H2` prints it; `None` for generated text.
    pub checksum: Option<String>,
    /// Number of tokens in a window.
    pub window: usize,
}

/// Default number of tokens of generated text.
fn generated(model: &Model) -> usize {
    let matrices = model.index().entries().iter().filter(|entry| entry.kind() == Kind::Matrix);
    let (mut weights, mut widest) = (1u64, 0u64);
    for entry in matrices {
        weights += entry.rows * entry.cols;
        widest = widest.max(entry.cols);
    }
    let (least, most) = DEFAULT_GENERATED;
    (TOKENS_PER_COLUMN * widest).min(GENERATED_PRODUCTS / weights).clamp(least, most) as usize
}

/// A sequence that is being generated.
struct Writer {
    session: Session,
    sampler: Sampler,
    tokens: Vec<u32>,
}

impl Writer {
    fn new(
        engine: &Arc<Engine>,
        model: &Arc<Model>,
        options: &SessionOptions,
    ) -> Result<Self, StatisticsError> {
        // The engine has its options already.
        let EngineOptions { threads, pin_threads, cpus, kernels } = EngineOptions::default();
        let options = SessionOptions { threads, pin_threads, cpus, kernels, ..options.clone() };
        let session = Session::with_engine(engine, Arc::clone(model), options)?;
        Ok(Self { session, sampler: sampler(0)?, tokens: Vec::new() })
    }

    /// Begins the sequence of a seed.
    fn begin(&mut self, seed: u64) -> Result<(), StatisticsError> {
        self.session.reset();
        self.sampler = sampler(seed)?;
        let config = self.session.model().config();
        let first = match config.bos {
            Some(token) => token,
            None => self.sampler.sample(&vec![0.0; config.vocab_len])?,
        };
        self.tokens = vec![first];
        Ok(())
    }

    /// Whether there is no sequence, or a complete one.
    fn is_done(&self, window: usize) -> bool {
        let ends = |token: &u32| self.session.model().config().eos.contains(token);
        let last = self.tokens.last();
        self.tokens.len() == window || last.is_none_or(|last| self.tokens.len() > 1 && ends(last))
    }

    fn next(&mut self) -> (&mut Session, u32) {
        let last = *self.tokens.last().expect("a sequence has begun");
        (&mut self.session, last)
    }

    fn draw(&mut self) -> Result<(), StatisticsError> {
        self.tokens.push(self.sampler.sample(self.session.logits())?);
        Ok(())
    }
}

/// Draws with the model's own probabilities.
fn sampler(seed: u64) -> Result<Sampler, StatisticsError> {
    Ok(Sampler::new(SamplerOptions {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
        seed,
        ..SamplerOptions::default()
    })?)
}

/// Amount of text.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextOptions {
    /// Most tokens in all, first tokens of sequences included. `None`: all of a text, or
    /// as many of generated text as suits the model, within [`DEFAULT_GENERATED`].
    pub tokens: Option<usize>,
    /// Tokens of a window; `None`: [`DEFAULT_WINDOW`], or the model's context if that is less.
    pub window: Option<usize>,
}

impl CalibrationText {
    /// Reads a text and cuts it into windows. The text is plain or, with a name that ends in
    /// `.jsonl`, one object with the field `text` per line. Each window begins with the model's
    /// first token, where it has one.
    ///
    /// Documents of a plain text are separated by empty lines. All of it is one stream, cut
    /// wherever a window is full. A last window of fewer than [`LEAST_TOKENS`] is left out.
    pub fn read(path: &Path, model: &Model, options: TextOptions) -> Result<Self, StatisticsError> {
        let (window, limit) = options.resolve(model)?;
        let file = SourceFile::open(path)?;
        let text = file.read_text(TEXT_LIMIT)?;
        let checksum = format!("{:032x}", xxh3_128(text.as_bytes()));
        let text = match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl")) {
            true => documents(path, &text)?,
            false => text,
        };
        let first = model.config().bos;
        let part = window - usize::from(first.is_some());
        // Tokens of the text within `limit`: every window but the last is full.
        let wanted = limit.map(|limit| {
            let windows = limit.div_ceil(window);
            limit - windows * usize::from(first.is_some())
        });
        let tokens = encode(path, model, &text, wanted)?;
        let sequences = tokens.chunks(part).map(|part| first.iter().chain(part).copied().collect());
        let mut sequences: Vec<Vec<u32>> = sequences.collect();
        sequences.pop_if(|last| last.len() < LEAST_TOKENS && last.len() < window);
        let text = Self { sequences, file: Some(file.name()), checksum: Some(checksum), window };
        text.check(&path.display().to_string(), tokens.len())
    }

    /// Sequences that the model generates from its first token, or from a token drawn from the
    /// vocabulary where it has none. Each next token is drawn with the model's own probabilities,
    /// until the window is full or a reply ends. The sequences are reproducible: each has its own
    /// seed. Eight of them share each pass over the weights.
    ///
    /// Source: Liu et al., LLM-QAT: Data-Free Quantization Aware Training (2023).
    pub fn generate(
        model: &Arc<Model>,
        options: TextOptions,
        session: SessionOptions,
        progress: &dyn Progress,
    ) -> Result<Self, StatisticsError> {
        let (window, limit) = options.resolve(model)?;
        let limit = limit.unwrap_or_else(|| generated(model));
        Self::generate_from(model, window, limit, 0, session, progress)
    }

    /// As [`generate`](CalibrationText::generate), other sequences: what a model that was rounded
    /// by its own text is judged by.
    pub fn generate_unseen(
        model: &Arc<Model>,
        window: Option<usize>,
        session: SessionOptions,
        progress: &dyn Progress,
    ) -> Result<Self, StatisticsError> {
        let (window, _) = TextOptions { tokens: None, window }.resolve(model)?;
        let limit = (generated(model) as u64 / 4).clamp(UNSEEN.0, UNSEEN.1) as usize;
        Self::generate_from(model, window, limit.max(window), UNSEEN_SEED, session, progress)
    }

    /// The sequences of the seeds from `seed` on, `limit` tokens in all.
    fn generate_from(
        model: &Arc<Model>,
        window: usize,
        limit: usize,
        mut seed: u64,
        session: SessionOptions,
        progress: &dyn Progress,
    ) -> Result<Self, StatisticsError> {
        let options = SessionOptions {
            context_len: Some(window),
            batch: Some(TOGETHER),
            two_stage_logits: false,
            ..session
        };
        let engine = Engine::new(options.engine())?;
        let writers =
            (0..TOGETHER.min(limit.div_ceil(window))).map(|_| Writer::new(&engine, model, &options));
        let mut writers = writers.collect::<Result<Vec<Writer>, _>>()?;
        progress.begin("writing", limit as u64, Unit::Tokens);
        let (mut finished, mut left) = (Vec::new(), limit);
        while left > 0 {
            if progress.is_interrupted() {
                return Err(StatisticsError::Interrupted);
            }
            for writer in writers.iter_mut().filter(|writer| writer.is_done(window)) {
                finished.push(std::mem::take(&mut writer.tokens));
                writer.begin(seed)?;
                seed += 1;
                left = left.saturating_sub(1);
                progress.advance(1);
            }
            let count = left.min(writers.len());
            let mut batch: Vec<_> = writers[..count].iter_mut().map(Writer::next).collect();
            engine.step(&mut batch)?;
            writers[..count].iter_mut().try_for_each(Writer::draw)?;
            left -= count;
            progress.advance(count as u64);
        }
        finished.extend(writers.into_iter().map(|writer| writer.tokens));
        let sequences: Vec<Vec<u32>> = finished.into_iter().filter(|tokens| !tokens.is_empty()).collect();
        let found = sequences.iter().map(Vec::len).sum();
        Self { sequences, file: None, checksum: None, window }.check("what the model wrote", found)
    }

    /// Number of tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }

    /// XXH3-128, hexadecimal, of the token ids: little-endian, each sequence after its length.
    pub(super) fn tokens_checksum(&self) -> String {
        let mut hash = Xxh3::new();
        for sequence in &self.sequences {
            hash.update(&(sequence.len() as u64).to_le_bytes());
            sequence.iter().for_each(|token| hash.update(&token.to_le_bytes()));
        }
        format!("{:032x}", hash.digest128())
    }

    fn check(self, place: &str, found: usize) -> Result<Self, StatisticsError> {
        if self.tokens() < LEAST_TOKENS {
            return Err(StatisticsError::TooShort { place: place.into(), found, least: LEAST_TOKENS });
        }
        Ok(self)
    }
}

impl TextOptions {
    /// Tokens of a window, and most tokens in all.
    fn resolve(&self, model: &Model) -> Result<(usize, Option<usize>), StatisticsError> {
        let context_len = model.config().context_len;
        let window = self.window.unwrap_or(DEFAULT_WINDOW.min(context_len));
        let least = LEAST_TOKENS.min(context_len);
        if !(least..=context_len).contains(&window) {
            let expected = format!("{least} to the {context_len} tokens that the model was made for");
            return Err(StatisticsError::Option { option: "the context", found: window, expected });
        }
        if let Some(found) = self.tokens.filter(|&tokens| tokens < LEAST_TOKENS) {
            let expected = format!("{LEAST_TOKENS} at least");
            return Err(StatisticsError::Option { option: "the number of tokens", found, expected });
        }
        Ok((window, self.tokens))
    }
}

/// The texts of all lines, separated by empty lines.
fn documents(path: &Path, lines: &str) -> Result<String, StatisticsError> {
    let wrong = |line: usize, reason: String| StatisticsError::TextLine { path: path.into(), line, reason };
    let mut texts = Vec::new();
    for (index, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let value: Value = serde_json::from_str(line).map_err(|error| wrong(index + 1, error.to_string()))?;
        match value.get("text") {
            Some(Value::String(text)) => texts.push(text.clone()),
            Some(other) => return Err(wrong(index + 1, format!("\"text\" is {other}"))),
            None => return Err(wrong(index + 1, "there is no \"text\"".into())),
        }
    }
    Ok(texts.join("\n\n"))
}

/// The first `wanted` tokens of `text`, or all. Reads only as much of a long text as it needs.
fn encode(
    path: &Path,
    model: &Model,
    text: &str,
    wanted: Option<usize>,
) -> Result<Vec<u32>, StatisticsError> {
    let tokenizer = model.tokenizer()?;
    let failed = |source| StatisticsError::Tokenizer { path: PathBuf::from(path), source };
    let mut bytes = wanted.map_or(text.len(), |wanted| wanted.saturating_mul(BYTES_PER_TOKEN));
    loop {
        let part = &text[..text.floor_char_boundary(bytes)];
        let mut tokens = tokenizer.encode(part, false).map_err(failed)?;
        let wanted = wanted.unwrap_or(usize::MAX);
        // The cut can change only the last tokens.
        if part.len() == text.len() || tokens.len() > wanted.saturating_add(LEAST_TOKENS) {
            tokens.truncate(wanted);
            return Ok(tokens);
        }
        bytes = bytes.saturating_mul(4);
    }
}
