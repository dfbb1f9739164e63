//! Qwen2 and Qwen2.5: Llama with biases on queries, keys and values.

use pith_format::{ActivationFunction, NormKind, Role};

use super::config::Config;
use super::huggingface::{set_windows, sliding_layers, switched_window};
use super::llama::{
    ATTENTION, ENDS, GATED, GGUF_ATTENTION, GGUF_ENDS, GGUF_GATED, GGUF_HALVES, GGUF_NORMS, NORMS,
};
use super::rule::{Rule, rule};
use super::{Family, ROTARY, Translation};
use crate::error::ConvertError;

/// What `transformers` takes where the key is missing.
const DEFAULT_WINDOW_LAYERS: usize = 28;

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    model_types: &["qwen2"],
    classes: &["Qwen2ForCausalLM"],
    gguf_names: &["qwen2"],
    norm: NormKind::Rms,
    activation: ActivationFunction::Silu,
    norm_epsilon: 1e-6,
    head_dim: None,
    tied: false,
    rope: Some(ROTARY),
    tensors: &[ENDS, NORMS, ATTENTION, BIASES, GATED],
    prefix: "model.",
    ignored: &[],
    gguf_tensors: &[GGUF_ENDS, GGUF_NORMS, GGUF_HALVES, GGUF_BIASES, GGUF_ATTENTION, GGUF_GATED],
    huggingface,
    gguf: |_, _| Ok(()),
};

const BIASES: &[Rule] = &[
    rule(Role::QueryBias, "model.layers.{}.self_attn.q_proj.bias"),
    rule(Role::KeyBias, "model.layers.{}.self_attn.k_proj.bias"),
    rule(Role::ValueBias, "model.layers.{}.self_attn.v_proj.bias"),
];

const GGUF_BIASES: &[Rule] = &[
    rule(Role::QueryBias, "blk.{}.attn_q.bias"),
    rule(Role::KeyBias, "blk.{}.attn_k.bias"),
    rule(Role::ValueBias, "blk.{}.attn_v.bias"),
];

/// Layers from `max_window_layers` on slide, where a window is switched on.
pub(super) fn huggingface(config: &Config<'_>, translation: &mut Translation) -> Result<(), ConvertError> {
    let model = &mut translation.model;
    let window = switched_window(config)?;
    // Zero is a value here, which no dimension is.
    let first = config.number(&["max_window_layers"])?.unwrap_or(DEFAULT_WINDOW_LAYERS as f64);
    let sliding =
        sliding_layers(config, model.layers.len(), |index| window.is_some() && index as f64 >= first)?;
    set_windows(config, model, &sliding, window)
}
