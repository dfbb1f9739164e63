//! GPT-2: learned positions, layer norms, biases everywhere, matrices stored as inputs × outputs.

use pith_format::{ActivationFunction, NormKind, Role};

use super::config::Config;
use super::family::{Family, Translation};
use super::layers::attentions;
use super::rule::{Rows, Rule, rule};
use crate::checkpoint::CheckpointError;

pub(super) const FAMILY: Family = Family {
    name: "gpt2",
    model_types: &["gpt2"],
    classes: &["GPT2LMHeadModel"],
    gguf_names: &["gpt2"],
    norm: NormKind::Layer,
    activation: ActivationFunction::GeluTanh,
    norm_epsilon: 1e-5,
    head_dim: None,
    tied: true,
    rope: None,
    tensors: &[TENSORS],
    prefix: "transformer.",
    ignored: &[".attn.bias", ".attn.masked_bias"],
    text_defaults: &[],
    strips_after_special: false,
    gguf_tensors: &[GGUF_TENSORS],
    huggingface,
    gguf: |_, _| Ok(()),
};

const TENSORS: &[Rule] = &[
    rule(Role::TokenEmbedding, "transformer.wte.weight"),
    rule(Role::PositionEmbedding, "transformer.wpe.weight"),
    rule(Role::MixerNorm, "transformer.h.{}.ln_1.weight"),
    rule(Role::MixerNormBias, "transformer.h.{}.ln_1.bias"),
    rule(Role::Query, "transformer.h.{}.attn.c_attn.weight").rows(Rows::Stacked(0)).transposed(),
    rule(Role::Key, "transformer.h.{}.attn.c_attn.weight").rows(Rows::Stacked(1)).transposed(),
    rule(Role::Value, "transformer.h.{}.attn.c_attn.weight").rows(Rows::Stacked(2)).transposed(),
    rule(Role::QueryBias, "transformer.h.{}.attn.c_attn.bias").rows(Rows::Stacked(0)),
    rule(Role::KeyBias, "transformer.h.{}.attn.c_attn.bias").rows(Rows::Stacked(1)),
    rule(Role::ValueBias, "transformer.h.{}.attn.c_attn.bias").rows(Rows::Stacked(2)),
    rule(Role::AttentionOutput, "transformer.h.{}.attn.c_proj.weight").transposed(),
    rule(Role::AttentionOutputBias, "transformer.h.{}.attn.c_proj.bias"),
    rule(Role::FfnNorm, "transformer.h.{}.ln_2.weight"),
    rule(Role::FfnNormBias, "transformer.h.{}.ln_2.bias"),
    rule(Role::Up, "transformer.h.{}.mlp.c_fc.weight").transposed(),
    rule(Role::UpBias, "transformer.h.{}.mlp.c_fc.bias"),
    rule(Role::Down, "transformer.h.{}.mlp.c_proj.weight").transposed(),
    rule(Role::DownBias, "transformer.h.{}.mlp.c_proj.bias"),
    rule(Role::OutputNorm, "transformer.ln_f.weight"),
    rule(Role::OutputNormBias, "transformer.ln_f.bias"),
    rule(Role::Head, "lm_head.weight"),
];

/// GGUF writers transpose the matrices.
const GGUF_TENSORS: &[Rule] = &[
    rule(Role::TokenEmbedding, "token_embd.weight"),
    rule(Role::PositionEmbedding, "position_embd.weight"),
    rule(Role::MixerNorm, "blk.{}.attn_norm.weight"),
    rule(Role::MixerNormBias, "blk.{}.attn_norm.bias"),
    rule(Role::Query, "blk.{}.attn_qkv.weight").rows(Rows::Stacked(0)),
    rule(Role::Key, "blk.{}.attn_qkv.weight").rows(Rows::Stacked(1)),
    rule(Role::Value, "blk.{}.attn_qkv.weight").rows(Rows::Stacked(2)),
    rule(Role::QueryBias, "blk.{}.attn_qkv.bias").rows(Rows::Stacked(0)),
    rule(Role::KeyBias, "blk.{}.attn_qkv.bias").rows(Rows::Stacked(1)),
    rule(Role::ValueBias, "blk.{}.attn_qkv.bias").rows(Rows::Stacked(2)),
    rule(Role::AttentionOutput, "blk.{}.attn_output.weight"),
    rule(Role::AttentionOutputBias, "blk.{}.attn_output.bias"),
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
    let scaled = config.flag("scale_attn_weights", true)?;
    let by_depth = config.flag("scale_attn_by_inverse_layer_idx", false)?;
    for (index, attention) in attentions(&mut translation.model).enumerate() {
        let scale = if scaled { (attention.head_dim as f64).powf(-0.5) } else { 1.0 };
        attention.scale = (if by_depth { scale / (index + 1) as f64 } else { scale }) as f32;
    }
    Ok(())
}
