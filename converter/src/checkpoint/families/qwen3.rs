//! Qwen3: queries and keys are normalised per head.

use pith_format::{ActivationFunction, NormKind};

use super::family::{Family, ROTARY};
use super::tables::{
    ATTENTION, ATTENTION_BIASES, ENDS, GATED, GGUF_ATTENTION, GGUF_ENDS, GGUF_GATED, GGUF_HALVES,
    GGUF_HEAD_NORMS, GGUF_NORMS, HEAD_NORMS, NORMS,
};
use super::windows::set_late_windows;

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
    text_defaults: &[],
    strips_after_special: false,
    gguf_tensors: &[GGUF_ENDS, GGUF_NORMS, GGUF_HALVES, GGUF_HEAD_NORMS, GGUF_ATTENTION, GGUF_GATED],
    huggingface: |config, translation| set_late_windows(config, &mut translation.model),
    gguf: |_, _| Ok(()),
};
