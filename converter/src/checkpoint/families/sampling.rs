//! Sampling settings of a checkpoint: `generation_config.json`, or `general.sampling.*` of GGUF.

use pith_format::Sampling;

use super::config::Config;
use crate::checkpoint::{Checkpoint, CheckpointError, GgufMetadata};

/// What the checkpoint says about sampling; `None` where it says nothing.
pub(crate) fn stated_sampling(
    checkpoint: &Checkpoint,
    context_len: usize,
    warnings: &mut Vec<String>,
) -> Result<Option<Sampling>, CheckpointError> {
    let sampling = match (checkpoint.generation_config(), checkpoint.metadata()) {
        (Some(value), _) => {
            let place = checkpoint.path().join("generation_config.json").display().to_string();
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
    for (key, neutral) in
        [("num_beams", 1.0), ("no_repeat_ngram_size", 0.0), ("typical_p", 1.0), ("penalty_alpha", 0.0)]
    {
        if let Some(value) = config.number(&[key])?.filter(|&value| value != neutral) {
            warnings.push(format!(
                "generation_config.json: {key} is {value}, which Pith does not do: it is ignored"
            ));
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
        top_k: config.number(&["top_k"])?.map(kept),
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
