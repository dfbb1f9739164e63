//! Mistral 7B and related models: Llama with a window in every layer. Their GGUF files say "llama".

use pith_format::{ActivationFunction, NormKind};

use super::config::Config;
use super::family::{Family, ROTARY, Translation};
use super::layers::attentions;
use super::tables::{ATTENTION, ENDS, GATED, NORMS};
use crate::checkpoint::CheckpointError;

/// Default of `transformers`; null means no window.
const DEFAULT_WINDOW: usize = 4096;

pub(super) const FAMILY: Family = Family {
    name: "mistral",
    model_types: &["mistral"],
    classes: &["MistralForCausalLM"],
    gguf_names: &[],
    norm: NormKind::Rms,
    activation: ActivationFunction::Silu,
    norm_epsilon: 1e-6,
    head_dim: None,
    tied: false,
    rope: Some(ROTARY),
    tensors: &[ENDS, NORMS, ATTENTION, GATED],
    prefix: "model.",
    ignored: &[],
    text_defaults: &[],
    strips_after_special: false,
    gguf_tensors: &[],
    huggingface,
    gguf: |_, _| Ok(()),
};

fn huggingface(config: &Config<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    let default = (!config.has("sliding_window")).then_some(DEFAULT_WINDOW);
    let window = config.count(&["sliding_window"])?.or(default);
    attentions(&mut translation.model).for_each(|attention| attention.window = window);
    Ok(())
}
