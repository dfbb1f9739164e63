//! Qwen2 and Qwen2.5: Llama with biases on queries, keys and values.

use pith_format::{ActivationFunction, NormKind, Role};

use super::family::{Family, ROTARY};
use super::rule::{Rule, rule};
use super::tables::{
    ATTENTION, ENDS, GATED, GGUF_ATTENTION, GGUF_ENDS, GGUF_GATED, GGUF_HALVES, GGUF_NORMS, NORMS,
};
use super::windows::set_late_windows;

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
    text_defaults: &[],
    strips_after_special: false,
    gguf_tensors: &[GGUF_ENDS, GGUF_NORMS, GGUF_HALVES, GGUF_BIASES, GGUF_ATTENTION, GGUF_GATED],
    huggingface: |config, translation| set_late_windows(config, &mut translation.model),
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
