//! Gemma 3, text models: Gemma 2 without caps, with norms of queries and keys, and with two rotary
//! tables, one for the sliding layers and one for every sixth layer, which is global.

use pith_format::{ActivationFunction, NormKind, Role};

use super::config::Config;
use super::family::{Family, ROTARY, Rotary, Translation};
use super::huggingface::rope_table;
use super::keys::Keys;
use super::layers::{attentions, first_heads};
use super::rope::{self, Scaling};
use super::rule::{Rule, rule};
use super::sandwich::{
    GGUF_SANDWICH_NORMS, SANDWICH_ENDS, SANDWICH_NORMS, set_default_windows, set_gguf_scales,
    set_huggingface_scales,
};
use super::tables::{
    ATTENTION, ATTENTION_BIASES, GATED, GGUF_ATTENTION, GGUF_ENDS, GGUF_GATED, GGUF_HALVES, GGUF_HEAD_NORMS,
};
use super::windows::sliding_layers;
use crate::checkpoint::CheckpointError;

/// The last layer of each period is global.
const PERIOD: usize = 6;

/// The largest model, as for Gemma 2.
const GGUF_LARGEST_LAYERS: usize = 62;

/// Defaults of `transformers`.
const TEXT_DEFAULTS: &[(&str, usize)] = &[
    ("hidden_size", 2304),
    ("intermediate_size", 9216),
    ("num_hidden_layers", 26),
    ("num_attention_heads", 8),
    ("num_key_value_heads", 4),
    ("max_position_embeddings", 131_072),
    ("bos_token_id", 2),
];

pub(super) const FAMILY: Family = Family {
    name: "gemma3",
    model_types: &["gemma3_text", "gemma3"],
    classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    gguf_names: &["gemma3"],
    norm: NormKind::Rms,
    activation: ActivationFunction::GeluTanh,
    norm_epsilon: 1e-6,
    head_dim: Some(256),
    tied: true,
    rope: Some(Rotary { base: 1_000_000.0, part: 1.0 }),
    tensors: &[SANDWICH_ENDS, SANDWICH_NORMS, ATTENTION, ATTENTION_BIASES, HEAD_NORMS, GATED],
    prefix: "model.",
    ignored: &[],
    text_defaults: TEXT_DEFAULTS,
    strips_after_special: false,
    gguf_tensors: &[GGUF_ENDS, GGUF_SANDWICH_NORMS, GGUF_HALVES, GGUF_HEAD_NORMS, GGUF_ATTENTION, GGUF_GATED],
    huggingface,
    gguf,
};

const HEAD_NORMS: &[Rule] = &[
    rule(Role::QueryNorm, "model.layers.{}.self_attn.q_norm.weight").plus_one(),
    rule(Role::KeyNorm, "model.layers.{}.self_attn.k_norm.weight").plus_one(),
];

fn huggingface(config: &Config<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    let Translation { model, warnings } = translation;
    set_huggingface_scales(config, model)?;
    let score_cap = config.number(&["attn_logit_softcapping"])?;
    model.logit_softcap = config.number(&["final_logit_softcapping"])?.map(|cap| cap as f32);
    let period = config.count(&["sliding_window_pattern", "_sliding_window_pattern"])?.unwrap_or(PERIOD);
    let sliding = sliding_layers(config, model.layers.len(), |index| !(index + 1).is_multiple_of(period))?;
    set_default_windows(config, model, &sliding)?;
    let (head_dim, _) = first_heads(model);
    let local =
        rope_table(config, "sliding_attention", &["rope_local_base_freq"], ROTARY, head_dim, warnings)?;
    model.rope.push(local);
    for (attention, slides) in attentions(model).zip(sliding) {
        attention.softcap = score_cap.map(|cap| cap as f32);
        attention.rope = Some(usize::from(slides));
    }
    Ok(())
}

fn gguf(keys: &Keys<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    let model = &mut translation.model;
    set_gguf_scales(keys, model, GGUF_LARGEST_LAYERS)?;
    model.logit_softcap = keys.number("final_logit_softcapping")?.map(|cap| cap as f32);
    keys.set_windows(model, |index| !(index + 1).is_multiple_of(PERIOD))?;
    let base = keys.number("rope.freq_base_swa")?.unwrap_or(ROTARY.base);
    model.rope.push(rope::table(base, model.rope[0].dim, &Scaling::None));
    attentions(model).for_each(|attention| attention.rope = Some(usize::from(attention.window.is_some())));
    Ok(())
}
