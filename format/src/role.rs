//! Roles of tensors. Families name their tensors differently; a `.pith` file has only these roles.

use crate::config::ModelConfig;
use crate::directory::Kind;
use crate::layer::{Attention, FeedForward, GatedLinearRecurrence, Layer, Mixer, ShortConvolution};
use std::fmt;

/// Whether a tensor exists once per model or once per layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One per model.
    Model,
    /// One per layer that has it.
    Layer,
}

/// The one table of roles: tag, variant, scope, kind, name, shape by model and layer.
macro_rules! roles {
    ($($tag:literal => $variant:ident, $scope:ident, $kind:ident, $name:literal, $about:literal,
       |$model:pat_param, $layer:pat_param| $shape:expr;)*) => {
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

            fn shape(self, model: &ModelConfig, layer: Option<&Layer>) -> Option<(usize, usize)> {
                match self { $(Role::$variant => {
                    let ($model, $layer) = (model, layer);
                    $shape
                })* }
            }
        }
    };
}

roles! {
    1 => Tokenizer, Model, Bytes, "tokenizer", "The tokenizer.",
        |_, _| None;
    2 => TokenEmbedding, Model, Matrix, "embedding.token", "One row a token.",
        |m, _| Some((m.vocab_len, m.hidden_len));
    3 => PositionEmbedding, Model, Matrix, "embedding.position", "One row a position.",
        |m, _| Some((m.context_len, m.hidden_len));
    4 => EmbeddingNorm, Model, Vector, "embedding.norm", "Weight of the norm after the embedding.",
        |m, _| Some((m.hidden_len, 1));
    10 => MixerNorm, Layer, Vector, "mixer.norm", "Weight of the norm before the mixer.",
        |m, l| l?.mixer_rows(m.hidden_len);
    11 => MixerNormBias, Layer, Vector, "mixer.norm.bias", "Bias of that norm.",
        |m, l| l?.mixer_rows(m.hidden_len);
    12 => Query, Layer, Matrix, "attention.query", "Query projection.",
        |m, l| Some((l?.attention()?.query_len(), m.hidden_len));
    13 => Key, Layer, Matrix, "attention.key", "Key projection.",
        |m, l| Some((l?.attention()?.kv_len(), m.hidden_len));
    14 => Value, Layer, Matrix, "attention.value", "Value projection.",
        |m, l| Some((l?.attention()?.kv_len(), m.hidden_len));
    15 => QueryBias, Layer, Vector, "attention.query.bias", "Query bias.",
        |_, l| Some((l?.attention()?.query_len(), 1));
    16 => KeyBias, Layer, Vector, "attention.key.bias", "Key bias.",
        |_, l| Some((l?.attention()?.kv_len(), 1));
    17 => ValueBias, Layer, Vector, "attention.value.bias", "Value bias.",
        |_, l| Some((l?.attention()?.kv_len(), 1));
    18 => QueryNorm, Layer, Vector, "attention.query.norm", "Weight of the norm of each query head.",
        |_, l| l?.attention()?.head_norm();
    19 => KeyNorm, Layer, Vector, "attention.key.norm", "Weight of the norm of each key head.",
        |_, l| l?.attention()?.head_norm();
    20 => AttentionOutput, Layer, Matrix, "attention.output", "Projection of the heads' outputs.",
        |m, l| Some((m.hidden_len, l?.attention()?.query_len()));
    21 => AttentionOutputBias, Layer, Vector, "attention.output.bias", "Bias of that projection.",
        |m, l| l?.attention().map(|_| (m.hidden_len, 1));
    22 => MixerPostNorm, Layer, Vector, "mixer.post_norm", "Weight of the norm after the mixer, before the residual sum.",
        |m, l| l?.mixer_rows(m.hidden_len);
    23 => ConvolutionInput, Layer, Matrix, "convolution.input", "Projection to `b`, `c` and `v` of a short convolution.",
        |m, l| Some((3 * l?.convolution()?.channels, m.hidden_len));
    24 => ConvolutionKernel, Layer, Matrix, "convolution.kernel", "Its kernel: one row a channel, the oldest position first.",
        |_, l| l?.convolution().map(|c| (c.channels, c.kernel_len));
    25 => ConvolutionOutput, Layer, Matrix, "convolution.output", "Projection of its channels.",
        |m, l| Some((m.hidden_len, l?.convolution()?.channels));
    26 => ConvolutionInputBias, Layer, Vector, "convolution.input.bias", "Bias of its input projection.",
        |_, l| Some((3 * l?.convolution()?.channels, 1));
    27 => ConvolutionKernelBias, Layer, Vector, "convolution.kernel.bias", "Bias of its kernel.",
        |_, l| Some((l?.convolution()?.channels, 1));
    28 => ConvolutionOutputBias, Layer, Vector, "convolution.output.bias", "Bias of its output projection.",
        |m, l| l?.convolution().map(|_| (m.hidden_len, 1));
    60 => RecurrenceInput, Layer, Matrix, "recurrence.input", "Projection to queries, keys and values of a linear recurrence.",
        |m, l| Some((l?.recurrence()?.convolved_len(), m.hidden_len));
    61 => RecurrenceKernel, Layer, Matrix, "recurrence.kernel", "Kernel of their convolution: one row a channel, the oldest position first.",
        |_, l| l?.recurrence().map(|r| (r.convolved_len(), r.kernel_len));
    62 => RecurrenceGate, Layer, Matrix, "recurrence.gate", "Projection to the output gate.",
        |m, l| Some((l?.recurrence()?.value_len(), m.hidden_len));
    63 => RecurrenceRate, Layer, Matrix, "recurrence.rate", "Projection to `b`, whose sigmoid is the rate `β`.",
        |m, l| Some((l?.recurrence()?.value_heads, m.hidden_len));
    64 => RecurrenceDecay, Layer, Matrix, "recurrence.decay", "Projection to `a`, of which the decay is made.",
        |m, l| Some((l?.recurrence()?.value_heads, m.hidden_len));
    65 => RecurrenceDecayBias, Layer, Vector, "recurrence.decay.bias", "`dt`, added to `a`.",
        |_, l| Some((l?.recurrence()?.value_heads, 1));
    66 => RecurrenceDecayLog, Layer, Vector, "recurrence.decay.log", "`A`, the logarithm of the decay's factor.",
        |_, l| Some((l?.recurrence()?.value_heads, 1));
    67 => RecurrenceNorm, Layer, Vector, "recurrence.norm", "Weight of the norm of each head's output.",
        |_, l| Some((l?.recurrence()?.value_dim, 1));
    68 => RecurrenceOutput, Layer, Matrix, "recurrence.output", "Projection of the heads' outputs.",
        |m, l| Some((m.hidden_len, l?.recurrence()?.value_len()));
    30 => FfnNorm, Layer, Vector, "ffn.norm", "Weight of the norm before the feed-forward block.",
        |m, l| l?.ffn_rows(m.hidden_len);
    31 => FfnNormBias, Layer, Vector, "ffn.norm.bias", "Bias of that norm.",
        |m, l| l?.ffn_rows(m.hidden_len);
    32 => Gate, Layer, Matrix, "ffn.gate", "Gate projection.",
        |m, l| Some((l?.gate_len()?, m.hidden_len));
    33 => GateBias, Layer, Vector, "ffn.gate.bias", "Gate bias.",
        |_, l| Some((l?.gate_len()?, 1));
    34 => Up, Layer, Matrix, "ffn.up", "Up projection.",
        |m, l| Some((l?.inner_len()?, m.hidden_len));
    35 => UpBias, Layer, Vector, "ffn.up.bias", "Up bias.",
        |_, l| Some((l?.inner_len()?, 1));
    36 => Down, Layer, Matrix, "ffn.down", "Down projection.",
        |m, l| Some((m.hidden_len, l?.inner_len()?));
    37 => DownBias, Layer, Vector, "ffn.down.bias", "Down bias.",
        |m, l| l?.inner_len().map(|_| (m.hidden_len, 1));
    38 => FfnPostNorm, Layer, Vector, "ffn.post_norm", "Weight of the norm after the block, before the residual sum.",
        |m, l| l?.ffn_rows(m.hidden_len);
    40 => Router, Layer, Matrix, "ffn.router", "Scores of the experts.",
        |m, l| Some((l?.experts()?.count, m.hidden_len));
    41 => RouterBias, Layer, Vector, "ffn.router.bias", "Added to the scores to choose experts.",
        |_, l| Some((l?.experts()?.count, 1));
    42 => SharedGate, Layer, Matrix, "ffn.shared.gate", "Gate projection of the shared expert.",
        |m, l| l?.shared(true).map(|len| (len, m.hidden_len));
    43 => SharedUp, Layer, Matrix, "ffn.shared.up", "Up projection of the shared expert.",
        |m, l| l?.shared(false).map(|len| (len, m.hidden_len));
    44 => SharedDown, Layer, Matrix, "ffn.shared.down", "Down projection of the shared expert.",
        |m, l| l?.shared(false).map(|len| (m.hidden_len, len));
    45 => SharedRouter, Layer, Matrix, "ffn.shared.router", "Weight of the shared expert.",
        |m, l| l?.shared(false).map(|_| (1, m.hidden_len));
    50 => OutputNorm, Model, Vector, "output.norm", "Weight of the last norm.",
        |m, _| Some((m.hidden_len, 1));
    51 => OutputNormBias, Model, Vector, "output.norm.bias", "Bias of the last norm.",
        |m, _| Some((m.hidden_len, 1));
    52 => Head, Model, Matrix, "output.head", "Projection to logits.",
        |m, _| Some((m.vocab_len, m.hidden_len));
    53 => HeadBias, Model, Vector, "output.head.bias", "Bias of the logits.",
        |m, _| Some((m.vocab_len, 1));
    54 => HeadResidual, Model, Matrix, "output.head.residual", "Residual of the head: the head's weights, or the tied embedding's, are that matrix plus this one.",
        |m, _| Some((m.vocab_len, m.hidden_len));
}

impl Role {
    /// Whether each expert of a layer has its own.
    pub fn is_of_expert(self) -> bool {
        matches!(self, Role::Gate | Role::GateBias | Role::Up | Role::UpBias | Role::Down | Role::DownBias)
    }
}

/// Dimensions used by shapes; `None` where the layer has no such part.
impl Layer {
    fn convolution(&self) -> Option<&ShortConvolution> {
        match &self.mixer {
            Mixer::ShortConvolution(convolution) => Some(convolution),
            _ => None,
        }
    }

    fn recurrence(&self) -> Option<&GatedLinearRecurrence> {
        match &self.mixer {
            Mixer::GatedLinearRecurrence(recurrence) => Some(recurrence),
            _ => None,
        }
    }

    fn mixer_rows(&self, rows: usize) -> Option<(usize, usize)> {
        (!matches!(self.mixer, Mixer::None {})).then_some((rows, 1))
    }

    fn ffn_rows(&self, rows: usize) -> Option<(usize, usize)> {
        (!matches!(self.feed_forward, FeedForward::None {})).then_some((rows, 1))
    }

    /// Inner width of the block, or of each expert.
    fn inner_len(&self) -> Option<usize> {
        match &self.feed_forward {
            FeedForward::Gated(dense) | FeedForward::Plain(dense) => Some(dense.len),
            FeedForward::Experts(experts) => Some(experts.expert.len),
            FeedForward::None {} => None,
        }
    }

    fn gate_len(&self) -> Option<usize> {
        match &self.feed_forward {
            FeedForward::Gated(dense) => Some(dense.len),
            FeedForward::Experts(experts) => experts.gated.then_some(experts.expert.len),
            FeedForward::Plain(_) | FeedForward::None {} => None,
        }
    }

    /// Inner width of the shared expert. `gate`: only where it has a gate.
    fn shared(&self, gate: bool) -> Option<usize> {
        let experts = self.experts().filter(|experts| experts.gated || !gate)?;
        experts.shared.map(|shared| shared.len)
    }
}

impl Attention {
    fn head_norm(&self) -> Option<(usize, usize)> {
        self.qk_norm.then_some((self.head_dim, 1))
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

    /// `(rows, cols)` required by the configuration; vectors have one column. `None` for bytes, and
    /// for a tensor without a place in this model: a missing layer or expert, or another kind of
    /// layer.
    pub fn shape(self, model: &ModelConfig) -> Option<(usize, usize)> {
        let layer = match self.layer {
            Some(index) => Some(model.layers.get(index)?),
            None => None,
        };
        if layer.is_some() != (self.role.scope() == Scope::Layer) {
            return None;
        }
        let experts = layer.and_then(Layer::experts).filter(|_| self.role.is_of_expert());
        match (self.expert, experts) {
            (None, None) => {}
            (Some(expert), Some(experts)) if expert < experts.count => {}
            _ => return None,
        }
        self.role.shape(model, layer)
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
    use crate::config::tests::tiny;
    use crate::layer::tests::every_kind;
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

    #[test]
    fn a_tensor_has_a_shape_where_its_layer_has_such_a_part() {
        let model = ModelConfig { layers: every_kind(), ..tiny() };
        let count =
            |role: Role| (0..5).filter(|&layer| TensorId::layer(role, layer).shape(&model).is_some()).count();
        let counts = [
            (Role::Query, 2),
            (Role::QueryNorm, 1),
            (Role::MixerNorm, 4),
            (Role::ConvolutionKernel, 1),
            (Role::RecurrenceInput, 1),
            (Role::FfnNorm, 4),
            (Role::Gate, 1),
            (Role::Up, 2),
            (Role::Router, 2),
            (Role::SharedGate, 1),
        ];
        for (role, expected) in counts {
            assert_eq!(count(role), expected, "{role:?}");
        }
        assert_eq!(TensorId::layer(Role::Query, 1).shape(&model), Some((16, 8)));
        assert_eq!(TensorId::layer(Role::Key, 1).shape(&model), Some((8, 8)));
        assert_eq!(TensorId::expert(Role::Down, 2, 3).shape(&model), Some((8, 12)));
        assert_eq!(TensorId::expert(Role::Gate, 3, 0).shape(&model), None, "these experts have no gate");
        for id in [
            TensorId::expert(Role::Down, 2, 4),
            TensorId::expert(Role::Up, 0, 0),
            TensorId::layer(Role::Up, 9),
        ] {
            assert_eq!(id.shape(&model), None, "{id}");
        }
        assert_eq!(TensorId::model(Role::Up).shape(&model), None);
    }
}
