//! What a tensor is for. Families differ in the names of their tensors; a `.pith` file has these roles only.

use crate::config::ModelConfig;
use crate::directory::Kind;
use std::fmt;

/// Whether a model has one such tensor or each layer has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One for the model.
    Model,
    /// One for every layer that has it.
    Layer,
}

/// The one table of roles: tag, variant, scope, kind, name, shape by model and layer.
macro_rules! roles {
    ($($tag:literal => $variant:ident, $scope:ident, $kind:ident, $name:literal, $about:literal,
       |$model:pat_param, $layer:pat_param| $shape:expr;)*) => {
        /// The part a tensor plays in the forward pass.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Role { $(#[doc = $about] $variant,)* }

        impl Role {
            /// Every role, in the order of the table, which within a layer is the order of use.
            pub const ALL: &[Role] = &[$(Role::$variant,)*];

            /// The number that stands for it in a file.
            pub fn tag(self) -> u16 { match self { $(Role::$variant => $tag,)* } }

            /// The role of a tag, `None` where this version knows none.
            pub fn from_tag(tag: u16) -> Option<Self> { match tag { $($tag => Some(Role::$variant),)* _ => None } }

            /// One tensor a model or one a layer.
            pub fn scope(self) -> Scope { match self { $(Role::$variant => Scope::$scope,)* } }

            /// Matrix, vector or bytes.
            pub fn kind(self) -> Kind { match self { $(Role::$variant => Kind::$kind,)* } }

            /// Its part of the tensor's name.
            pub fn name(self) -> &'static str { match self { $(Role::$variant => $name,)* } }

            /// `(rows, cols)` that the configuration asks for; vectors have one column. `None` for bytes.
            ///
            /// Panics if `layer_index` is not below the number of layers (any index will do for [`Scope::Model`]).
            pub fn shape(self, model: &ModelConfig, layer_index: usize) -> Option<(usize, usize)> {
                let index = if self.scope() == Scope::Model { 0 } else { layer_index };
                match self { $(Role::$variant => {
                    let ($model, $layer) = (model, &model.layers[index]);
                    $shape
                })* }
            }
        }
    };
}

roles! {
    1 => Tokenizer, Model, Bytes, "tokenizer", "The tokenizer.", |_, _| None;
    2 => TokenEmbedding, Model, Matrix, "embedding.token", "A row for every token.",
        |m, _| Some((m.vocab_len, m.hidden_len));
    3 => PositionEmbedding, Model, Matrix, "embedding.position", "A row for every position.",
        |m, _| Some((m.context_len, m.hidden_len));
    4 => EmbeddingNorm, Model, Vector, "embedding.norm", "Weight of the norm after the embedding.",
        |m, _| Some((m.hidden_len, 1));
    10 => AttentionNorm, Layer, Vector, "attention.norm", "Weight of the norm before attention.",
        |m, _| Some((m.hidden_len, 1));
    11 => AttentionNormBias, Layer, Vector, "attention.norm.bias", "Bias of the norm before attention.",
        |m, _| Some((m.hidden_len, 1));
    12 => Query, Layer, Matrix, "attention.query", "Query projection.",
        |m, l| Some((l.heads * l.head_dim, m.hidden_len));
    13 => Key, Layer, Matrix, "attention.key", "Key projection.",
        |m, l| Some((l.kv_heads * l.head_dim, m.hidden_len));
    14 => Value, Layer, Matrix, "attention.value", "Value projection.",
        |m, l| Some((l.kv_heads * l.head_dim, m.hidden_len));
    15 => QueryBias, Layer, Vector, "attention.query.bias", "Query bias.", |_, l| Some((l.heads * l.head_dim, 1));
    16 => KeyBias, Layer, Vector, "attention.key.bias", "Key bias.", |_, l| Some((l.kv_heads * l.head_dim, 1));
    17 => ValueBias, Layer, Vector, "attention.value.bias", "Value bias.", |_, l| Some((l.kv_heads * l.head_dim, 1));
    18 => QueryNorm, Layer, Vector, "attention.query.norm", "Weight of the norm of each query head.",
        |_, l| Some((l.head_dim, 1));
    19 => KeyNorm, Layer, Vector, "attention.key.norm", "Weight of the norm of each key head.",
        |_, l| Some((l.head_dim, 1));
    20 => AttentionOutput, Layer, Matrix, "attention.output", "Projection of the heads' outputs.",
        |m, l| Some((m.hidden_len, l.heads * l.head_dim));
    21 => AttentionOutputBias, Layer, Vector, "attention.output.bias", "Bias of that projection.",
        |m, _| Some((m.hidden_len, 1));
    22 => AttentionPostNorm, Layer, Vector, "attention.post_norm", "Weight of the norm after attention, before the residual sum.",
        |m, _| Some((m.hidden_len, 1));
    30 => FfnNorm, Layer, Vector, "ffn.norm", "Weight of the norm before the feed-forward block.",
        |m, _| Some((m.hidden_len, 1));
    31 => FfnNormBias, Layer, Vector, "ffn.norm.bias", "Bias of that norm.", |m, _| Some((m.hidden_len, 1));
    32 => Gate, Layer, Matrix, "ffn.gate", "Gate projection; without it the block is not gated.",
        |m, l| Some((l.ffn_len, m.hidden_len));
    33 => GateBias, Layer, Vector, "ffn.gate.bias", "Gate bias.", |_, l| Some((l.ffn_len, 1));
    34 => Up, Layer, Matrix, "ffn.up", "Up projection.", |m, l| Some((l.ffn_len, m.hidden_len));
    35 => UpBias, Layer, Vector, "ffn.up.bias", "Up bias.", |_, l| Some((l.ffn_len, 1));
    36 => Down, Layer, Matrix, "ffn.down", "Down projection.", |m, l| Some((m.hidden_len, l.ffn_len));
    37 => DownBias, Layer, Vector, "ffn.down.bias", "Down bias.", |m, _| Some((m.hidden_len, 1));
    38 => FfnPostNorm, Layer, Vector, "ffn.post_norm", "Weight of the norm after the block, before the residual sum.",
        |m, _| Some((m.hidden_len, 1));
    50 => OutputNorm, Model, Vector, "output.norm", "Weight of the last norm.", |m, _| Some((m.hidden_len, 1));
    51 => OutputNormBias, Model, Vector, "output.norm.bias", "Bias of the last norm.", |m, _| Some((m.hidden_len, 1));
    52 => Head, Model, Matrix, "output.head", "Projection to logits.", |m, _| Some((m.vocab_len, m.hidden_len));
    53 => HeadBias, Model, Vector, "output.head.bias", "Bias of the logits.", |m, _| Some((m.vocab_len, 1));
    54 => HeadRest, Model, Matrix, "output.head.rest",
        "What the head's weights, or the tied embedding's, are more than that matrix says: the two are added.",
        |m, _| Some((m.vocab_len, m.hidden_len));
}

/// A role and the layer it plays it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId {
    /// What it is for.
    pub role: Role,
    /// `None` for the model's own tensors.
    pub layer: Option<usize>,
}

impl TensorId {
    /// A tensor of the model.
    pub fn model(role: Role) -> Self {
        Self { role, layer: None }
    }

    /// A tensor of a layer.
    pub fn layer(role: Role, layer_index: usize) -> Self {
        Self { role, layer: Some(layer_index) }
    }
}

impl fmt::Display for TensorId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => formatter.pad(&format!("layers.{layer}.{}", self.role.name())),
            None => formatter.pad(self.role.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tags_and_names_are_unique_and_lead_back() {
        let tags: HashSet<_> = Role::ALL.iter().map(|role| role.tag()).collect();
        let names: HashSet<_> = Role::ALL.iter().map(|role| role.name()).collect();
        assert_eq!((tags.len(), names.len()), (Role::ALL.len(), Role::ALL.len()));
        assert!(Role::ALL.iter().all(|role| Role::from_tag(role.tag()) == Some(*role)));
    }

    #[test]
    fn names_carry_the_layer() {
        assert_eq!(TensorId::layer(Role::Query, 3).to_string(), "layers.3.attention.query");
        assert_eq!(TensorId::model(Role::Head).to_string(), "output.head");
    }
}
