//! Roles of tensors. Families name their tensors differently; a `.pith` file has only these roles.

use std::fmt;

/// Whether a tensor exists once per model or once per layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One per model.
    Model,
    /// One per layer that has it.
    Layer,
}

/// Form of an entry's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Blocks of an [`Encoding`](crate::Encoding).
    Matrix,
    /// Consecutive f32; never quantized.
    Vector,
    /// Bytes with their own format.
    Bytes,
}

impl Kind {
    /// Number in a file.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Kind::Matrix => 0,
            Kind::Vector => 1,
            Kind::Bytes => 2,
        }
    }
}

/// The one table of roles: tag, variant, scope, kind, name, description. `shape.rs` has their shapes.
macro_rules! roles {
    ($($tag:literal => $variant:ident, $scope:ident, $kind:ident, $name:literal, $about:literal;)*) => {
        /// Role of a tensor in the forward pass.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Role { $(#[doc = $about] $variant,)* }

        impl Role {
            /// All roles in table order; within a layer this is the order of use.
            pub const ALL: &[Role] = &[$(Role::$variant,)*];

            /// Tag in the file.
            pub fn tag(self) -> u16 { match self { $(Role::$variant => $tag,)* } }

            /// The role with this tag; `None` if this version knows none.
            pub fn from_tag(tag: u16) -> Option<Self> { match tag { $($tag => Some(Role::$variant),)* _ => None } }

            /// Once per model or once per layer.
            pub fn scope(self) -> Scope { match self { $(Role::$variant => Scope::$scope,)* } }

            /// Matrix, vector or bytes.
            pub fn kind(self) -> Kind { match self { $(Role::$variant => Kind::$kind,)* } }

            /// The role's part of a tensor's name.
            pub fn name(self) -> &'static str { match self { $(Role::$variant => $name,)* } }
        }
    };
}

roles! {
    1 => Tokenizer, Model, Bytes, "tokenizer",
        "The tokenizer.";
    2 => TokenEmbedding, Model, Matrix, "embedding.token",
        "One row a token.";
    3 => PositionEmbedding, Model, Matrix, "embedding.position",
        "One row a position.";
    4 => EmbeddingNorm, Model, Vector, "embedding.norm",
        "Weight of the norm after the embedding.";
    10 => MixerNorm, Layer, Vector, "mixer.norm",
        "Weight of the norm before the mixer.";
    11 => MixerNormBias, Layer, Vector, "mixer.norm.bias",
        "Bias of that norm.";
    12 => Query, Layer, Matrix, "attention.query",
        "Query projection.";
    13 => Key, Layer, Matrix, "attention.key",
        "Key projection.";
    14 => Value, Layer, Matrix, "attention.value",
        "Value projection.";
    15 => QueryBias, Layer, Vector, "attention.query.bias",
        "Query bias.";
    16 => KeyBias, Layer, Vector, "attention.key.bias",
        "Key bias.";
    17 => ValueBias, Layer, Vector, "attention.value.bias",
        "Value bias.";
    18 => QueryNorm, Layer, Vector, "attention.query.norm",
        "Weight of the norm of each query head.";
    19 => KeyNorm, Layer, Vector, "attention.key.norm",
        "Weight of the norm of each key head.";
    20 => AttentionOutput, Layer, Matrix, "attention.output",
        "Projection of the heads' outputs.";
    21 => AttentionOutputBias, Layer, Vector, "attention.output.bias",
        "Bias of that projection.";
    22 => MixerPostNorm, Layer, Vector, "mixer.post_norm",
        "Weight of the norm after the mixer, before the residual sum.";
    23 => ConvolutionInput, Layer, Matrix, "convolution.input",
        "Projection to `b`, `c` and `v` of a short convolution.";
    24 => ConvolutionKernel, Layer, Matrix, "convolution.kernel",
        "Its kernel: one row a channel, the oldest position first.";
    25 => ConvolutionOutput, Layer, Matrix, "convolution.output",
        "Projection of its channels.";
    26 => ConvolutionInputBias, Layer, Vector, "convolution.input.bias",
        "Bias of its input projection.";
    27 => ConvolutionKernelBias, Layer, Vector, "convolution.kernel.bias",
        "Bias of its kernel.";
    28 => ConvolutionOutputBias, Layer, Vector, "convolution.output.bias",
        "Bias of its output projection.";
    60 => RecurrenceInput, Layer, Matrix, "recurrence.input",
        "Projection to queries, keys and values of a linear recurrence.";
    61 => RecurrenceKernel, Layer, Matrix, "recurrence.kernel",
        "Kernel of their convolution: one row a channel, the oldest position first.";
    62 => RecurrenceGate, Layer, Matrix, "recurrence.gate",
        "Projection to the output gate.";
    63 => RecurrenceRate, Layer, Matrix, "recurrence.rate",
        "Projection to `b`, whose sigmoid is the rate `β`.";
    64 => RecurrenceDecay, Layer, Matrix, "recurrence.decay",
        "Projection to `a`, of which the decay is made.";
    65 => RecurrenceDecayBias, Layer, Vector, "recurrence.decay.bias",
        "`dt`, added to `a`.";
    66 => RecurrenceDecayLog, Layer, Vector, "recurrence.decay.log",
        "`A`, the logarithm of the decay's factor.";
    67 => RecurrenceNorm, Layer, Vector, "recurrence.norm",
        "Weight of the norm of each head's output.";
    68 => RecurrenceOutput, Layer, Matrix, "recurrence.output",
        "Projection of the heads' outputs.";
    30 => FfnNorm, Layer, Vector, "ffn.norm",
        "Weight of the norm before the feed-forward block.";
    31 => FfnNormBias, Layer, Vector, "ffn.norm.bias",
        "Bias of that norm.";
    32 => Gate, Layer, Matrix, "ffn.gate",
        "Gate projection.";
    33 => GateBias, Layer, Vector, "ffn.gate.bias",
        "Gate bias.";
    34 => Up, Layer, Matrix, "ffn.up",
        "Up projection.";
    35 => UpBias, Layer, Vector, "ffn.up.bias",
        "Up bias.";
    36 => Down, Layer, Matrix, "ffn.down",
        "Down projection.";
    37 => DownBias, Layer, Vector, "ffn.down.bias",
        "Down bias.";
    38 => FfnPostNorm, Layer, Vector, "ffn.post_norm",
        "Weight of the norm after the block, before the residual sum.";
    40 => Router, Layer, Matrix, "ffn.router",
        "Scores of the experts.";
    41 => RouterBias, Layer, Vector, "ffn.router.bias",
        "Added to the scores to choose experts.";
    42 => SharedGate, Layer, Matrix, "ffn.shared.gate",
        "Gate projection of the shared expert.";
    43 => SharedUp, Layer, Matrix, "ffn.shared.up",
        "Up projection of the shared expert.";
    44 => SharedDown, Layer, Matrix, "ffn.shared.down",
        "Down projection of the shared expert.";
    45 => SharedRouter, Layer, Matrix, "ffn.shared.router",
        "Weight of the shared expert.";
    50 => OutputNorm, Model, Vector, "output.norm",
        "Weight of the last norm.";
    51 => OutputNormBias, Model, Vector, "output.norm.bias",
        "Bias of the last norm.";
    52 => Head, Model, Matrix, "output.head",
        "Projection to logits.";
    53 => HeadBias, Model, Vector, "output.head.bias",
        "Bias of the logits.";
    54 => HeadResidual, Model, Matrix, "output.head.residual",
        "Residual of the head: the head's weights, or the tied embedding's, are that matrix plus this one.";
}

impl Role {
    /// Whether each expert of a layer has its own.
    pub fn is_of_expert(self) -> bool {
        matches!(self, Role::Gate | Role::GateBias | Role::Up | Role::UpBias | Role::Down | Role::DownBias)
    }
}

/// One tensor of a model: its role, and the layer and expert that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId {
    /// Role of the tensor.
    pub role: Role,
    /// `None` for the model's own tensors.
    pub layer: Option<usize>,
    /// `None` for tensors that belong to no expert.
    pub expert: Option<usize>,
}

impl TensorId {
    /// A tensor of the model.
    pub const fn model(role: Role) -> Self {
        Self { role, layer: None, expert: None }
    }

    /// A tensor of a layer.
    pub const fn layer(role: Role, layer_index: usize) -> Self {
        Self { role, layer: Some(layer_index), expert: None }
    }

    /// A tensor of an expert.
    pub const fn expert(role: Role, layer_index: usize, expert_index: usize) -> Self {
        Self { role, layer: Some(layer_index), expert: Some(expert_index) }
    }
}

impl fmt::Display for TensorId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.role.name();
        match (self.layer, self.expert) {
            (Some(layer), Some(expert)) => formatter.pad(&format!("layers.{layer}.experts.{expert}.{name}")),
            (Some(layer), None) => formatter.pad(&format!("layers.{layer}.{name}")),
            (None, _) => formatter.pad(name),
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
        assert_eq!(TensorId::expert(Role::Up, 1, 7).to_string(), "layers.1.experts.7.ffn.up");
    }
}
