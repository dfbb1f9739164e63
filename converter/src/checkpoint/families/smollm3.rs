//! SmolLM3: Llama with some layers without positions.

use pith_format::{ActivationFunction, ModelConfig, NormKind};

use super::config::Config;
use super::family::{Family, ROTARY, Translation};
use super::keys::Keys;
use super::layers::attentions;
use super::tables::{
    ATTENTION, ATTENTION_BIASES, ENDS, GATED, GATED_BIASES, GGUF_ATTENTION, GGUF_ENDS, GGUF_GATED,
    GGUF_GATED_BIASES, GGUF_NORMS, GGUF_PAIRED, NORMS,
};
use super::windows::{set_windows, sliding_layers, switched_window};
use crate::checkpoint::CheckpointError;

/// The last layer of each period has no positions; GGUF has no key for that.
const PERIOD: usize = 4;

pub(super) const FAMILY: Family = Family {
    name: "smollm3",
    model_types: &["smollm3"],
    classes: &["SmolLM3ForCausalLM"],
    gguf_names: &["smollm3"],
    norm: NormKind::Rms,
    activation: ActivationFunction::Silu,
    norm_epsilon: 1e-6,
    head_dim: None,
    tied: true,
    rope: Some(ROTARY),
    tensors: &[ENDS, NORMS, ATTENTION, ATTENTION_BIASES, GATED, GATED_BIASES],
    prefix: "model.",
    ignored: &[],
    text_defaults: &[],
    strips_after_special: false,
    gguf_tensors: &[GGUF_ENDS, GGUF_NORMS, GGUF_PAIRED, GGUF_ATTENTION, GGUF_GATED, GGUF_GATED_BIASES],
    huggingface,
    gguf,
};

fn huggingface(config: &Config<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    let model = &mut translation.model;
    let layer_count = model.layers.len();
    // Despite its name, 1 stands for a layer with rope.
    let turned = match config.numbers("no_rope_layers")? {
        Some(flags) if flags.len() == layer_count => flags.iter().map(|&flag| flag != 0.0).collect(),
        Some(_) => {
            return Err(config.error("no_rope_layers", format!("a list of {layer_count}, one a layer")));
        }
        None => periodic(layer_count, config.count(&["no_rope_layer_interval"])?.unwrap_or(PERIOD)),
    };
    set_rope(model, &turned);
    let window = switched_window(config)?;
    let sliding = sliding_layers(config, layer_count, |index| window.is_some() && !turned[index])?;
    set_windows(config, model, &sliding, window)
}

fn gguf(_: &Keys<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    let turned = periodic(translation.model.layers.len(), PERIOD);
    set_rope(&mut translation.model, &turned);
    Ok(())
}

fn periodic(layer_count: usize, period: usize) -> Vec<bool> {
    (1..=layer_count).map(|number| !number.is_multiple_of(period)).collect()
}

fn set_rope(model: &mut ModelConfig, turned: &[bool]) {
    for (attention, turned) in attentions(model).zip(turned) {
        attention.rope = turned.then_some(0);
    }
}
