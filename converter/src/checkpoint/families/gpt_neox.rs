//! GPT-NeoX and Pythia: a quarter of each head is rotated; the feed-forward block may be parallel
//! to attention.

use pith_format::{ActivationFunction, NormKind, Role};

use super::config::Config;
use super::family::{Family, Rotary, Translation};
use super::keys::Keys;
use super::rule::{Rows, Rule, rule};
use crate::checkpoint::CheckpointError;

pub(super) const FAMILY: Family = Family {
    name: "gpt_neox",
    model_types: &["gpt_neox"],
    classes: &["GPTNeoXForCausalLM"],
    gguf_names: &["gptneox"],
    norm: NormKind::Layer,
    activation: ActivationFunction::Gelu,
    norm_epsilon: 1e-5,
    head_dim: None,
    tied: false,
    rope: Some(Rotary { base: 10_000.0, part: 0.25 }),
    tensors: &[TENSORS],
    prefix: "gpt_neox.",
    ignored: &[".attention.bias", ".attention.masked_bias"],
    text_defaults: &[],
    strips_after_special: false,
    gguf_tensors: &[GGUF_TENSORS],
    huggingface,
    gguf,
};

const TENSORS: &[Rule] = &[
    rule(Role::TokenEmbedding, "gpt_neox.embed_in.weight"),
    rule(Role::MixerNorm, "gpt_neox.layers.{}.input_layernorm.weight"),
    rule(Role::MixerNormBias, "gpt_neox.layers.{}.input_layernorm.bias"),
    rule(Role::Query, "gpt_neox.layers.{}.attention.query_key_value.weight").rows(Rows::StackedPerHead(0)),
    rule(Role::Key, "gpt_neox.layers.{}.attention.query_key_value.weight").rows(Rows::StackedPerHead(1)),
    rule(Role::Value, "gpt_neox.layers.{}.attention.query_key_value.weight").rows(Rows::StackedPerHead(2)),
    rule(Role::QueryBias, "gpt_neox.layers.{}.attention.query_key_value.bias")
        .rows(Rows::StackedPerHead(0))
        .flag("attention_bias", true),
    rule(Role::KeyBias, "gpt_neox.layers.{}.attention.query_key_value.bias")
        .rows(Rows::StackedPerHead(1))
        .flag("attention_bias", true),
    rule(Role::ValueBias, "gpt_neox.layers.{}.attention.query_key_value.bias")
        .rows(Rows::StackedPerHead(2))
        .flag("attention_bias", true),
    rule(Role::AttentionOutput, "gpt_neox.layers.{}.attention.dense.weight"),
    rule(Role::AttentionOutputBias, "gpt_neox.layers.{}.attention.dense.bias").flag("attention_bias", true),
    rule(Role::FfnNorm, "gpt_neox.layers.{}.post_attention_layernorm.weight"),
    rule(Role::FfnNormBias, "gpt_neox.layers.{}.post_attention_layernorm.bias"),
    rule(Role::Up, "gpt_neox.layers.{}.mlp.dense_h_to_4h.weight"),
    rule(Role::UpBias, "gpt_neox.layers.{}.mlp.dense_h_to_4h.bias"),
    rule(Role::Down, "gpt_neox.layers.{}.mlp.dense_4h_to_h.weight"),
    rule(Role::DownBias, "gpt_neox.layers.{}.mlp.dense_4h_to_h.bias"),
    rule(Role::OutputNorm, "gpt_neox.final_layer_norm.weight"),
    rule(Role::OutputNormBias, "gpt_neox.final_layer_norm.bias"),
    rule(Role::Head, "embed_out.weight"),
];

/// GGUF writers stack queries, keys and values of all heads.
const GGUF_TENSORS: &[Rule] = &[
    rule(Role::TokenEmbedding, "token_embd.weight"),
    rule(Role::MixerNorm, "blk.{}.attn_norm.weight"),
    rule(Role::MixerNormBias, "blk.{}.attn_norm.bias"),
    rule(Role::Query, "blk.{}.attn_qkv.weight").rows(Rows::Stacked(0)),
    rule(Role::Key, "blk.{}.attn_qkv.weight").rows(Rows::Stacked(1)),
    rule(Role::Value, "blk.{}.attn_qkv.weight").rows(Rows::Stacked(2)),
    rule(Role::QueryBias, "blk.{}.attn_qkv.bias").rows(Rows::Stacked(0)).optional(),
    rule(Role::KeyBias, "blk.{}.attn_qkv.bias").rows(Rows::Stacked(1)).optional(),
    rule(Role::ValueBias, "blk.{}.attn_qkv.bias").rows(Rows::Stacked(2)).optional(),
    rule(Role::AttentionOutput, "blk.{}.attn_output.weight"),
    rule(Role::AttentionOutputBias, "blk.{}.attn_output.bias").optional(),
    rule(Role::FfnNorm, "blk.{}.ffn_norm.weight"),
    rule(Role::FfnNormBias, "blk.{}.ffn_norm.bias"),
    rule(Role::Up, "blk.{}.ffn_up.weight"),
    rule(Role::UpBias, "blk.{}.ffn_up.bias"),
    rule(Role::Down, "blk.{}.ffn_down.weight"),
    rule(Role::DownBias, "blk.{}.ffn_down.bias"),
    rule(Role::OutputNorm, "output_norm.weight"),
    rule(Role::OutputNormBias, "output_norm.bias"),
    rule(Role::Head, "output.weight"),
];

fn huggingface(config: &Config<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    let parallel = config.flag("use_parallel_residual", true)?;
    for layer in &mut translation.model.layers {
        layer.parallel = parallel;
    }
    Ok(())
}

fn gguf(keys: &Keys<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    let parallel = keys.flag("use_parallel_residual")?.unwrap_or(true);
    for layer in &mut translation.model.layers {
        layer.parallel = parallel;
    }
    Ok(())
}
