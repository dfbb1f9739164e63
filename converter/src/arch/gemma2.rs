//! Gemma 2: norms around both blocks that multiply by `1 + w`, every other layer sliding, caps on scores and logits.

use pith_format::{ActivationFunction, ModelConfig, NormKind, Role};

use super::config::Config;
use super::gguf::Keys;
use super::huggingface::{set_windows, sliding_layers};
use super::llama::{ATTENTION, ATTENTION_BIASES, GATED, GGUF_ATTENTION, GGUF_ENDS, GGUF_GATED, GGUF_HALVES};
use super::rule::{Rule, rule};
use super::{Family, ROTARY, Translation};
use crate::error::ConvertError;

/// What `transformers` takes where keys are missing.
const DEFAULT_WINDOW: usize = 4096;
const DEFAULT_QUERY_SCALAR: f64 = 256.0;
const DEFAULT_SCORE_CAP: f64 = 50.0;
const DEFAULT_LOGIT_CAP: f64 = 30.0;

/// GGUF does not tell the largest model apart, which alone scales queries by hidden / heads.
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
    tensors: &[ENDS, NORMS, ATTENTION, ATTENTION_BIASES, GATED],
    prefix: "model.",
    ignored: &[],
    gguf_tensors: &[GGUF_ENDS, GGUF_NORMS, GGUF_HALVES, GGUF_ATTENTION, GGUF_GATED],
    huggingface,
    gguf,
};

pub(super) const ENDS: &[Rule] = &[
    rule(Role::TokenEmbedding, "model.embed_tokens.weight"),
    rule(Role::OutputNorm, "model.norm.weight").plus_one(),
    rule(Role::Head, "lm_head.weight"),
];

pub(super) const NORMS: &[Rule] = &[
    rule(Role::AttentionNorm, "model.layers.{}.input_layernorm.weight").plus_one(),
    rule(Role::AttentionPostNorm, "model.layers.{}.post_attention_layernorm.weight").plus_one(),
    rule(Role::FfnNorm, "model.layers.{}.pre_feedforward_layernorm.weight").plus_one(),
    rule(Role::FfnPostNorm, "model.layers.{}.post_feedforward_layernorm.weight").plus_one(),
];

/// GGUF writers add the one.
pub(super) const GGUF_NORMS: &[Rule] = &[
    rule(Role::AttentionNorm, "blk.{}.attn_norm.weight"),
    rule(Role::AttentionPostNorm, "blk.{}.post_attention_norm.weight"),
    rule(Role::FfnNorm, "blk.{}.ffn_norm.weight"),
    rule(Role::FfnPostNorm, "blk.{}.post_ffw_norm.weight"),
];

fn huggingface(config: &Config<'_>, translation: &mut Translation) -> Result<(), ConvertError> {
    let model = &mut translation.model;
    scale(config, model)?;
    let cap = |key: &str, default: f64| {
        Ok::<_, ConvertError>(if config.has(key) { config.number(&[key])? } else { Some(default) })
    };
    let score_cap = cap("attn_logit_softcapping", DEFAULT_SCORE_CAP)?;
    for layer in &mut model.layers {
        layer.attention_softcap = score_cap.map(|cap| cap as f32);
    }
    model.logit_softcap = cap("final_logit_softcapping", DEFAULT_LOGIT_CAP)?.map(|cap| cap as f32);
    let sliding = sliding_layers(config, model.layers.len(), |index| index % 2 == 0)?;
    windows(config, model, &sliding)
}

/// Scales of embeddings and queries.
pub(super) fn scale(config: &Config<'_>, model: &mut ModelConfig) -> Result<(), ConvertError> {
    let scalar = config.number(&["query_pre_attn_scalar"])?.unwrap_or(DEFAULT_QUERY_SCALAR);
    set_scales(model, scalar);
    Ok(())
}

pub(super) fn set_scales(model: &mut ModelConfig, query_scalar: f64) {
    model.embedding_scale = (model.hidden_len as f64).sqrt() as f32;
    for layer in &mut model.layers {
        layer.attention_scale = query_scalar.powf(-0.5) as f32;
    }
}

pub(super) fn windows(
    config: &Config<'_>,
    model: &mut ModelConfig,
    sliding: &[bool],
) -> Result<(), ConvertError> {
    let default = (!config.has("sliding_window")).then_some(DEFAULT_WINDOW);
    set_windows(config, model, sliding, config.count(&["sliding_window"])?.or(default))
}

fn gguf(keys: &Keys<'_>, translation: &mut Translation) -> Result<(), ConvertError> {
    let model = &mut translation.model;
    set_gguf_scales(keys, model, GGUF_LARGEST_LAYERS)?;
    let score_cap = keys.number("attn_logit_softcapping")?.unwrap_or(DEFAULT_SCORE_CAP);
    for layer in &mut model.layers {
        layer.attention_softcap = Some(score_cap as f32);
    }
    model.logit_softcap = Some(keys.number("final_logit_softcapping")?.unwrap_or(DEFAULT_LOGIT_CAP) as f32);
    keys.set_windows(model, |index| index % 2 == 0)
}

pub(super) fn set_gguf_scales(
    keys: &Keys<'_>,
    model: &mut ModelConfig,
    largest_layers: usize,
) -> Result<(), ConvertError> {
    let layer = &model.layers[0];
    let largest = model.layers.len() == largest_layers;
    let scalar = if largest { model.hidden_len / layer.heads } else { layer.head_dim };
    set_scales(model, scalar as f64);
    keys.set_attention_scale(model)
}
