//! The calibration text: a text cut into windows, or sequences that the model generates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pith_format::{Progress, Unit};
use pith_runtime::{Model, Sampler, SamplerOptions, Session, SessionOptions};
use serde_json::Value;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::error::StatisticsError;
use crate::checkpoint::file::SourceFile;

/// Smallest number of tokens of a text, and of its last window.
pub const LEAST_TOKENS: usize = 32;

/// Default number of tokens in a window.
pub const DEFAULT_WINDOW: usize = 512;

/// Default number of tokens that a model generates.
pub const DEFAULT_GENERATED: usize = 4096;

/// Largest text in bytes.
const TEXT_LIMIT: u64 = 1 << 30;

/// First estimate of the bytes of text per token.
const BYTES_PER_TOKEN: usize = 8;

/// Seed of generated text.
const SEED: u64 = 0;

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

/// Amount of text.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextOptions {
    /// Most tokens in all, first tokens of sequences included. `None`: all of a text, or
    /// [`DEFAULT_GENERATED`] tokens of generated text.
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
    /// until the window is full or a reply ends. The sequences are reproducible.
    ///
    /// Source: Liu et al., LLM-QAT: Data-Free Quantization Aware Training (2023).
    pub fn generate(
        model: &Arc<Model>,
        options: TextOptions,
        session: SessionOptions,
        progress: &dyn Progress,
    ) -> Result<Self, StatisticsError> {
        let (window, limit) = options.resolve(model)?;
        let config = model.config();
        let sampling = SamplerOptions {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            seed: SEED,
            ..SamplerOptions::default()
        };
        let mut sampler = Sampler::new(sampling)?;
        let options = SessionOptions { context_len: Some(window), two_stage_logits: false, ..session };
        let mut session = Session::new(Arc::clone(model), options)?;
        let mut left = limit.unwrap_or(DEFAULT_GENERATED);
        progress.begin("writing", left as u64, Unit::Tokens);
        let alike = vec![0.0; config.vocab_len];
        let mut sequences = Vec::new();
        while left > 0 {
            let first = match config.bos {
                Some(token) => token,
                None => sampler.sample(&alike)?,
            };
            let mut sequence = vec![first];
            session.reset();
            while sequence.len() < window.min(left) {
                if progress.is_interrupted() {
                    return Err(StatisticsError::Interrupted);
                }
                let logits = session.step(sequence[sequence.len() - 1])?;
                let token = sampler.sample(logits)?;
                sequence.push(token);
                progress.advance(1);
                if config.eos.contains(&token) {
                    break;
                }
            }
            left -= sequence.len();
            sequences.push(sequence);
        }
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
