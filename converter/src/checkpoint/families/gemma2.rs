//! Gemma 2: norms before and after both blocks that multiply by `1 + w`, sliding windows in every
//! other layer, caps on scores and logits.

use pith_format::{ActivationFunction, NormKind};

use super::config::Config;
use super::family::{Family, ROTARY, Translation};
use super::keys::Keys;
use super::layers::attentions;
use super::sandwich::{
    GGUF_SANDWICH_NORMS, SANDWICH_ENDS, SANDWICH_NORMS, set_default_windows, set_gguf_scales,
    set_huggingface_scales,
};
use super::tables::{ATTENTION, ATTENTION_BIASES, GATED, GGUF_ATTENTION, GGUF_ENDS, GGUF_GATED, GGUF_HALVES};
use super::windows::sliding_layers;
use crate::checkpoint::CheckpointError;

/// Default of `transformers`.
const DEFAULT_SCORE_CAP: f64 = 50.0;
const DEFAULT_LOGIT_CAP: f64 = 30.0;

/// The largest model, which alone scales queries by hidden / heads. GGUF has no key for that.
const GGUF_LARGEST_LAYERS: usize = 46;

pub(super) const FAMILY: Family = Family {
    name: "gemma2",
    model_types: &["gemma2"],
    classes: &["Gemma2ForCausalLM"],
    gguf_names: &["gemma2"],
    norm: NormKind::Rms,
    activation: ActivationFunction::GeluTanh,
    norm_epsilon: 1e-6,
    head_dim: Some(256),
    tied: true,
    rope: Some(ROTARY),
    tensors: &[SANDWICH_ENDS, SANDWICH_NORMS, ATTENTION, ATTENTION_BIASES, GATED],
    prefix: "model.",
    ignored: &[],
    text_defaults: &[],
    strips_after_special: false,
    gguf_tensors: &[GGUF_ENDS, GGUF_SANDWICH_NORMS, GGUF_HALVES, GGUF_ATTENTION, GGUF_GATED],
    huggingface,
    gguf,
};

fn huggingface(config: &Config<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    let model = &mut translation.model;
    set_huggingface_scales(config, model)?;
    let cap = |key: &str, default: f64| {
        Ok::<_, CheckpointError>(if config.has(key) { config.number(&[key])? } else { Some(default) })
    };
    let score_cap = cap("attn_logit_softcapping", DEFAULT_SCORE_CAP)?;
    attentions(model).for_each(|attention| attention.softcap = score_cap.map(|cap| cap as f32));
    model.logit_softcap = cap("final_logit_softcapping", DEFAULT_LOGIT_CAP)?.map(|cap| cap as f32);
    let sliding = sliding_layers(config, model.layers.len(), |index| index % 2 == 0)?;
    set_default_windows(config, model, &sliding)
}

fn gguf(keys: &Keys<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    let model = &mut translation.model;
    set_gguf_scales(keys, model, GGUF_LARGEST_LAYERS)?;
    let score_cap = keys.number("attn_logit_softcapping")?.unwrap_or(DEFAULT_SCORE_CAP);
    attentions(model).for_each(|attention| attention.softcap = Some(score_cap as f32));
    model.logit_softcap = Some(keys.number("final_logit_softcapping")?.unwrap_or(DEFAULT_LOGIT_CAP) as f32);
    keys.set_windows(model, |index| index % 2 == 0)
}
