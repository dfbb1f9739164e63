//! Qwen3: queries and keys are normalised head by head.

use pith_format::{ActivationFunction, NormKind, Role};

use super::llama::{
    ATTENTION, ATTENTION_BIASES, ENDS, GATED, GGUF_ATTENTION, GGUF_ENDS, GGUF_GATED, GGUF_HALVES, GGUF_NORMS,
    NORMS,
};
use super::rule::{Rule, rule};
use super::{Family, ROTARY, qwen2};

pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    model_types: &["qwen3"],
    classes: &["Qwen3ForCausalLM"],
    gguf_names: &["qwen3"],
    norm: NormKind::Rms,
    activation: ActivationFunction::Silu,
    norm_epsilon: 1e-6,
    head_dim: Some(128),
    tied: false,
    rope: Some(ROTARY),
    tensors: &[ENDS, NORMS, ATTENTION, ATTENTION_BIASES, HEAD_NORMS, GATED],
    prefix: "model.",
    ignored: &[],
    gguf_tensors: &[GGUF_ENDS, GGUF_NORMS, GGUF_HALVES, GGUF_HEAD_NORMS, GGUF_ATTENTION, GGUF_GATED],
    huggingface: qwen2::huggingface,
    gguf: |_, _| Ok(()),
};

const HEAD_NORMS: &[Rule] = &[
    rule(Role::QueryNorm, "model.layers.{}.self_attn.q_norm.weight"),
    rule(Role::KeyNorm, "model.layers.{}.self_attn.k_norm.weight"),
];

pub(super) const GGUF_HEAD_NORMS: &[Rule] =
    &[rule(Role::QueryNorm, "blk.{}.attn_q_norm.weight"), rule(Role::KeyNorm, "blk.{}.attn_k_norm.weight")];
