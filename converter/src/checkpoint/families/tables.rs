//! Tables that several families share: the role of each tensor in decoders of the common layout.

use pith_format::Role;

use super::rule::{Rows, Rule, rule};

/// Embedding, last norm, head.
pub(super) const ENDS: &[Rule] = &[
    rule(Role::TokenEmbedding, "model.embed_tokens.weight"),
    rule(Role::OutputNorm, "model.norm.weight"),
    rule(Role::Head, "lm_head.weight"),
];

pub(super) const NORMS: &[Rule] = &[
    rule(Role::MixerNorm, "model.layers.{}.input_layernorm.weight"),
    rule(Role::FfnNorm, "model.layers.{}.post_attention_layernorm.weight"),
];

pub(super) const ATTENTION: &[Rule] = &[
    rule(Role::Query, "model.layers.{}.self_attn.q_proj.weight"),
    rule(Role::Key, "model.layers.{}.self_attn.k_proj.weight"),
    rule(Role::Value, "model.layers.{}.self_attn.v_proj.weight"),
    rule(Role::AttentionOutput, "model.layers.{}.self_attn.o_proj.weight"),
];

pub(super) const ATTENTION_BIASES: &[Rule] = &[
    rule(Role::QueryBias, "model.layers.{}.self_attn.q_proj.bias").flag("attention_bias", false),
    rule(Role::KeyBias, "model.layers.{}.self_attn.k_proj.bias").flag("attention_bias", false),
    rule(Role::ValueBias, "model.layers.{}.self_attn.v_proj.bias").flag("attention_bias", false),
    rule(Role::AttentionOutputBias, "model.layers.{}.self_attn.o_proj.bias").flag("attention_bias", false),
];

pub(super) const GATED: &[Rule] = &[
    rule(Role::Gate, "model.layers.{}.mlp.gate_proj.weight"),
    rule(Role::Up, "model.layers.{}.mlp.up_proj.weight"),
    rule(Role::Down, "model.layers.{}.mlp.down_proj.weight"),
];

pub(super) const GATED_BIASES: &[Rule] = &[
    rule(Role::GateBias, "model.layers.{}.mlp.gate_proj.bias").flag("mlp_bias", false),
    rule(Role::UpBias, "model.layers.{}.mlp.up_proj.bias").flag("mlp_bias", false),
    rule(Role::DownBias, "model.layers.{}.mlp.down_proj.bias").flag("mlp_bias", false),
];

pub(super) const GGUF_ENDS: &[Rule] = &[
    rule(Role::TokenEmbedding, "token_embd.weight"),
    rule(Role::OutputNorm, "output_norm.weight"),
    rule(Role::Head, "output.weight"),
];

pub(super) const GGUF_NORMS: &[Rule] =
    &[rule(Role::MixerNorm, "blk.{}.attn_norm.weight"), rule(Role::FfnNorm, "blk.{}.ffn_norm.weight")];

/// Queries and keys of families that ggml rotates in adjacent pairs.
pub(super) const GGUF_PAIRED: &[Rule] = &[
    rule(Role::Query, "blk.{}.attn_q.weight").rows(Rows::Paired),
    rule(Role::Key, "blk.{}.attn_k.weight").rows(Rows::Paired),
    rule(Role::QueryBias, "blk.{}.attn_q.bias").rows(Rows::Paired).optional(),
    rule(Role::KeyBias, "blk.{}.attn_k.bias").rows(Rows::Paired).optional(),
    rule(Role::ValueBias, "blk.{}.attn_v.bias").optional(),
    rule(Role::AttentionOutputBias, "blk.{}.attn_output.bias").optional(),
];

/// Queries and keys of families that ggml rotates in halves.
pub(super) const GGUF_HALVES: &[Rule] =
    &[rule(Role::Query, "blk.{}.attn_q.weight"), rule(Role::Key, "blk.{}.attn_k.weight")];

pub(super) const GGUF_ATTENTION: &[Rule] =
    &[rule(Role::Value, "blk.{}.attn_v.weight"), rule(Role::AttentionOutput, "blk.{}.attn_output.weight")];

pub(super) const GGUF_GATED: &[Rule] = &[
    rule(Role::Gate, "blk.{}.ffn_gate.weight"),
    rule(Role::Up, "blk.{}.ffn_up.weight"),
    rule(Role::Down, "blk.{}.ffn_down.weight"),
];

pub(super) const GGUF_GATED_BIASES: &[Rule] = &[
    rule(Role::GateBias, "blk.{}.ffn_gate.bias").optional(),
    rule(Role::UpBias, "blk.{}.ffn_up.bias").optional(),
    rule(Role::DownBias, "blk.{}.ffn_down.bias").optional(),
];

/// Norms of each head's queries and keys.
pub(super) const HEAD_NORMS: &[Rule] = &[
    rule(Role::QueryNorm, "model.layers.{}.self_attn.q_norm.weight"),
    rule(Role::KeyNorm, "model.layers.{}.self_attn.k_norm.weight"),
];

pub(super) const GGUF_HEAD_NORMS: &[Rule] =
    &[rule(Role::QueryNorm, "blk.{}.attn_q_norm.weight"), rule(Role::KeyNorm, "blk.{}.attn_k_norm.weight")];
