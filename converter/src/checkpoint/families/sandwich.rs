//! Decoders with a norm before and after each block. Norms multiply by `1 + w`, embeddings are
//! multiplied by the square root of their width, and queries by a scalar of the model.

use pith_format::{ModelConfig, Role};

use super::config::Config;
use super::keys::Keys;
use super::layers::{attentions, first_heads};
use super::rule::{Rule, rule};
use super::windows::set_windows;
use crate::checkpoint::CheckpointError;

/// Default of `transformers`.
const DEFAULT_WINDOW: usize = 4096;
const DEFAULT_QUERY_SCALAR: f64 = 256.0;

/// Embedding, last norm, head.
pub(super) const SANDWICH_ENDS: &[Rule] = &[
    rule(Role::TokenEmbedding, "model.embed_tokens.weight"),
    rule(Role::OutputNorm, "model.norm.weight").plus_one(),
    rule(Role::Head, "lm_head.weight"),
];

/// Norms before and after attention and the feed-forward block.
pub(super) const SANDWICH_NORMS: &[Rule] = &[
    rule(Role::MixerNorm, "model.layers.{}.input_layernorm.weight").plus_one(),
    rule(Role::MixerPostNorm, "model.layers.{}.post_attention_layernorm.weight").plus_one(),
    rule(Role::FfnNorm, "model.layers.{}.pre_feedforward_layernorm.weight").plus_one(),
    rule(Role::FfnPostNorm, "model.layers.{}.post_feedforward_layernorm.weight").plus_one(),
];

/// GGUF writers add the one.
pub(super) const GGUF_SANDWICH_NORMS: &[Rule] = &[
    rule(Role::MixerNorm, "blk.{}.attn_norm.weight"),
    rule(Role::MixerPostNorm, "blk.{}.post_attention_norm.weight"),
    rule(Role::FfnNorm, "blk.{}.ffn_norm.weight"),
    rule(Role::FfnPostNorm, "blk.{}.post_ffw_norm.weight"),
];

/// Scales of embeddings and queries.
pub(super) fn set_huggingface_scales(
    config: &Config<'_>,
    model: &mut ModelConfig,
) -> Result<(), CheckpointError> {
    let scalar = config.number(&["query_pre_attn_scalar"])?.unwrap_or(DEFAULT_QUERY_SCALAR);
    set_scales(model, scalar);
    Ok(())
}

fn set_scales(model: &mut ModelConfig, query_scalar: f64) {
    model.embedding_scale = (model.hidden_len as f64).sqrt() as f32;
    attentions(model).for_each(|attention| attention.scale = query_scalar.powf(-0.5) as f32);
}

/// [`set_windows`] with the default window where the key is missing.
pub(super) fn set_default_windows(
    config: &Config<'_>,
    model: &mut ModelConfig,
    sliding: &[bool],
) -> Result<(), CheckpointError> {
    let default = (!config.has("sliding_window")).then_some(DEFAULT_WINDOW);
    set_windows(config, model, sliding, config.count(&["sliding_window"])?.or(default))
}

/// Scales of embeddings and queries. A model of `largest_layers` layers scales queries by hidden /
/// heads; GGUF has no key for that.
pub(super) fn set_gguf_scales(
    keys: &Keys<'_>,
    model: &mut ModelConfig,
    largest_layers: usize,
) -> Result<(), CheckpointError> {
    let (head_dim, heads) = first_heads(model);
    let largest = model.layers.len() == largest_layers;
    let scalar = if largest { model.hidden_len / heads } else { head_dim };
    set_scales(model, scalar as f64);
    keys.set_attention_scale(model)
}
