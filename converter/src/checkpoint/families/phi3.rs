//! Phi-3 and Phi-4-mini: queries, keys and values in one matrix, gate and up in another.

use pith_format::{ActivationFunction, NormKind, Role};

use super::config::Config;
use super::family::{Family, ROTARY, Translation};
use super::keys::Keys;
use super::layers::attentions;
use super::rule::{Rows, Rule, rule};
use super::tables::{ENDS, GGUF_ENDS, GGUF_NORMS, NORMS};
use crate::checkpoint::CheckpointError;

pub(super) const FAMILY: Family = Family {
    name: "phi3",
    model_types: &["phi3"],
    classes: &["Phi3ForCausalLM"],
    gguf_names: &["phi3"],
    norm: NormKind::Rms,
    activation: ActivationFunction::Silu,
    norm_epsilon: 1e-5,
    head_dim: None,
    tied: false,
    rope: Some(ROTARY),
    tensors: &[ENDS, NORMS, FUSED],
    prefix: "model.",
    ignored: &[],
    text_defaults: &[],
    strips_after_special: true,
    gguf_tensors: &[GGUF_ENDS, GGUF_NORMS, GGUF_FUSED],
    huggingface,
    gguf,
};

const FUSED: &[Rule] = &[
    rule(Role::Query, "model.layers.{}.self_attn.qkv_proj.weight").rows(Rows::Stacked(0)),
    rule(Role::Key, "model.layers.{}.self_attn.qkv_proj.weight").rows(Rows::Stacked(1)),
    rule(Role::Value, "model.layers.{}.self_attn.qkv_proj.weight").rows(Rows::Stacked(2)),
    rule(Role::AttentionOutput, "model.layers.{}.self_attn.o_proj.weight"),
    rule(Role::Gate, "model.layers.{}.mlp.gate_up_proj.weight").rows(Rows::Half(0)),
    rule(Role::Up, "model.layers.{}.mlp.gate_up_proj.weight").rows(Rows::Half(1)),
    rule(Role::Down, "model.layers.{}.mlp.down_proj.weight"),
];

const GGUF_FUSED: &[Rule] = &[
    rule(Role::Query, "blk.{}.attn_qkv.weight").rows(Rows::Stacked(0)),
    rule(Role::Key, "blk.{}.attn_qkv.weight").rows(Rows::Stacked(1)),
    rule(Role::Value, "blk.{}.attn_qkv.weight").rows(Rows::Stacked(2)),
    rule(Role::AttentionOutput, "blk.{}.attn_output.weight"),
    rule(Role::Gate, "blk.{}.ffn_up.weight").rows(Rows::Half(0)),
    rule(Role::Up, "blk.{}.ffn_up.weight").rows(Rows::Half(1)),
    rule(Role::Down, "blk.{}.ffn_down.weight"),
];

fn huggingface(config: &Config<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    let window = config.count(&["sliding_window"])?;
    attentions(&mut translation.model).for_each(|attention| attention.window = window);
    Ok(())
}

fn gguf(keys: &Keys<'_>, translation: &mut Translation) -> Result<(), CheckpointError> {
    keys.set_windows(&mut translation.model, |_| true)
}
