//! Llama 1, 2 and 3, and the many models of the same architecture. GGUF files of Mistral 7B use
//! this name too.

use pith_format::{ActivationFunction, NormKind};

use super::family::{Family, ROTARY, Translation};
use super::keys::Keys;
use super::tables::{
    ATTENTION, ATTENTION_BIASES, ENDS, GATED, GATED_BIASES, GGUF_ATTENTION, GGUF_ENDS, GGUF_GATED,
    GGUF_GATED_BIASES, GGUF_NORMS, GGUF_PAIRED, NORMS,
};
use crate::checkpoint::CheckpointError;

pub(super) const FAMILY: Family = Family {
    name: "llama",
    model_types: &["llama"],
    classes: &["LlamaForCausalLM", "LLaMAForCausalLM"],
    gguf_names: &["llama"],
    norm: NormKind::Rms,
    activation: ActivationFunction::Silu,
    norm_epsilon: 1e-6,
    head_dim: None,
    tied: false,
    rope: Some(ROTARY),
    tensors: &[ENDS, NORMS, ATTENTION, GATED, ATTENTION_BIASES, GATED_BIASES],
    prefix: "model.",
    ignored: &[],
    text_defaults: &[],
    strips_after_special: false,
    gguf_tensors: &[GGUF_ENDS, GGUF_NORMS, GGUF_PAIRED, GGUF_ATTENTION, GGUF_GATED, GGUF_GATED_BIASES],
    huggingface: |_, _| Ok(()),
    gguf,
};

fn gguf(keys: &Keys<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    keys.set_windows(&mut translation.model, |_| true)
}
