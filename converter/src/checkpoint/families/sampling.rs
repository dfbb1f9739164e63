//! Sampling settings of a checkpoint: `generation_config.json`, or `general.sampling.*` of GGUF.

use pith_format::Sampling;
use serde_json::Value;

use super::config::Config;
use crate::checkpoint::{Checkpoint, CheckpointError, GgufMetadata};

/// Settings of `generation_config.json` that Pith does not have, with the values that do nothing.
const UNSUPPORTED_NUMBERS: &[(&str, f64)] = &[
    ("num_beams", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("typical_p", 1.0),
    ("penalty_alpha", 0.0),
    ("eta_cutoff", 0.0),
    ("epsilon_cutoff", 0.0),
    ("guidance_scale", 1.0),
    ("encoder_repetition_penalty", 1.0),
    ("diversity_penalty", 0.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
];

/// The same, of settings that are lists or of another form.
const UNSUPPORTED_LISTS: &[&str] = &[
    "stop_strings",
    "bad_words_ids",
    "force_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "sequence_bias",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "forced_decoder_ids",
    "exponential_decay_length_penalty",
    "watermarking_config",
];

/// What the checkpoint says about sampling; `None` where it says nothing.
pub(crate) fn stated_sampling(
    checkpoint: &Checkpoint,
    context_len: usize,
    warnings: &mut Vec<String>,
) -> Result<Option<Sampling>, CheckpointError> {
    let sampling = match (checkpoint.generation_config(), checkpoint.metadata()) {
        (Some(value), _) => {
            let path = checkpoint.path().join("generation_config.json");
            if !value.is_object() {
                return Err(CheckpointError::Config {
                    place: path.display().to_string(),
                    key: "the whole file".into(),
                    found: value.to_string(),
                    expected: "an object".into(),
                });
            }
            let place = path.display().to_string();
            of_huggingface(&Config::new(place, value), context_len, warnings)?
        }
        (None, Some(metadata)) => of_gguf(metadata, context_len, warnings)?,
        (None, None) => Sampling::default(),
    };
    sampling.validate()?;
    Ok(Some(sampling).filter(|sampling| *sampling != Sampling::default()))
}

fn of_huggingface(
    config: &Config<'_>,
    context_len: usize,
    warnings: &mut Vec<String>,
) -> Result<Sampling, CheckpointError> {
    for &(key, neutral) in UNSUPPORTED_NUMBERS {
        if let Some(value) = config.number(&[key])?.filter(|&value| value != neutral) {
            warnings.push(format!(
                "generation_config.json: {key} is {value}, which Pith does not do: it is ignored"
            ));
        }
    }
    for key in UNSUPPORTED_LISTS {
        let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if config.value(key).is_some_and(|value| !is_empty(value)) {
            warnings.push(format!("generation_config.json has {key}, which Pith does not do: it is ignored"));
        }
    }
    let number = |key: &str| config.number(&[key]).map(|found| found.map(|number| number as f32));
    let repeat_penalty = number("repetition_penalty")?;
    // transformers penalises every token of the sequence.
    let repeat_window = repeat_penalty.filter(|&penalty| penalty != 1.0).map(|_| context_len);
    if config.has("do_sample") && !config.flag("do_sample", true)? {
        return Ok(Sampling { temperature: Some(0.0), repeat_penalty, repeat_window, ..Sampling::default() });
    }
    Ok(Sampling {
        temperature: number("temperature")?,
        top_k: match config.number(&["top_k"])? {
            Some(count) if count.fract() != 0.0 => return Err(config.error("top_k", "a whole number")),
            count => count.map(kept),
        },
        top_p: number("top_p")?,
        min_p: number("min_p")?,
        repeat_penalty,
        repeat_window,
    })
}

fn of_gguf(
    metadata: &GgufMetadata,
    context_len: usize,
    warnings: &mut Vec<String>,
) -> Result<Sampling, CheckpointError> {
    let place = "general.sampling.";
    for key in ["mirostat", "xtc_probability"] {
        let key = format!("{place}{key}");
        let integer = metadata.get::<i64>(&key).ok().flatten().map(|value| value as f64);
        let value = integer.or_else(|| metadata.get::<f64>(&key).ok().flatten());
        if let Some(value) = value.filter(|&value| value > 0.0) {
            warnings.push(format!("{key} is {value}, which Pith does not do: it is ignored"));
        }
    }
    let number = |key: &str| metadata.get::<f32>(&format!("{place}{key}"));
    let whole = |key: &str| metadata.get::<i64>(&format!("{place}{key}"));
    Ok(Sampling {
        temperature: number("temp")?,
        top_k: whole("top_k")?.map(|count| kept(count as f64)),
        top_p: number("top_p")?,
        min_p: number("min_p")?,
        repeat_penalty: number("penalty_repeat")?,
        // −1 stands for the context.
        repeat_window: whole("penalty_last_n")?.map(|count| usize::try_from(count).unwrap_or(context_len)),
    })
}

/// The number of tokens that are kept; below 1 it is all of them, which 0 stands for.
fn kept(count: f64) -> usize {
    count.max(0.0) as usize
}
