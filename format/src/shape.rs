//! Shapes of tensors by the configuration.

use crate::config::ModelConfig;
use crate::layer::{Attention, FeedForward, GatedLinearRecurrence, Layer, Mixer, ShortConvolution};
use crate::role::{Role, Scope, TensorId};

impl TensorId {
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
        of_role(self.role, model, layer)
    }
}

/// Rows and columns by model `m` and layer `l`; vectors have one column.
fn of_role(role: Role, m: &ModelConfig, l: Option<&Layer>) -> Option<(usize, usize)> {
    match role {
        Role::Tokenizer => None,
        Role::TokenEmbedding => Some((m.vocab_len, m.hidden_len)),
        Role::PositionEmbedding => Some((m.context_len, m.hidden_len)),
        Role::EmbeddingNorm => Some((m.hidden_len, 1)),
        Role::MixerNorm => l?.mixer_rows(m.hidden_len),
        Role::MixerNormBias => l?.mixer_rows(m.hidden_len),
        Role::Query => Some((l?.attention()?.query_len(), m.hidden_len)),
        Role::Key => Some((l?.attention()?.kv_len(), m.hidden_len)),
        Role::Value => Some((l?.attention()?.kv_len(), m.hidden_len)),
        Role::QueryBias => Some((l?.attention()?.query_len(), 1)),
        Role::KeyBias => Some((l?.attention()?.kv_len(), 1)),
        Role::ValueBias => Some((l?.attention()?.kv_len(), 1)),
        Role::QueryNorm => l?.attention()?.head_norm(),
        Role::KeyNorm => l?.attention()?.head_norm(),
        Role::AttentionOutput => Some((m.hidden_len, l?.attention()?.query_len())),
        Role::AttentionOutputBias => l?.attention().map(|_| (m.hidden_len, 1)),
        Role::MixerPostNorm => l?.mixer_rows(m.hidden_len),
        Role::ConvolutionInput => Some((3 * l?.convolution()?.channels, m.hidden_len)),
        Role::ConvolutionKernel => l?.convolution().map(|c| (c.channels, c.kernel_len)),
        Role::ConvolutionOutput => Some((m.hidden_len, l?.convolution()?.channels)),
        Role::ConvolutionInputBias => Some((3 * l?.convolution()?.channels, 1)),
        Role::ConvolutionKernelBias => Some((l?.convolution()?.channels, 1)),
        Role::ConvolutionOutputBias => l?.convolution().map(|_| (m.hidden_len, 1)),
        Role::RecurrenceInput => Some((l?.recurrence()?.convolved_len(), m.hidden_len)),
        Role::RecurrenceKernel => l?.recurrence().map(|r| (r.convolved_len(), r.kernel_len)),
        Role::RecurrenceGate => Some((l?.recurrence()?.value_len(), m.hidden_len)),
        Role::RecurrenceRate => Some((l?.recurrence()?.value_heads, m.hidden_len)),
        Role::RecurrenceDecay => Some((l?.recurrence()?.value_heads, m.hidden_len)),
        Role::RecurrenceDecayBias => Some((l?.recurrence()?.value_heads, 1)),
        Role::RecurrenceDecayLog => Some((l?.recurrence()?.value_heads, 1)),
        Role::RecurrenceNorm => Some((l?.recurrence()?.value_dim, 1)),
        Role::RecurrenceOutput => Some((m.hidden_len, l?.recurrence()?.value_len())),
        Role::FfnNorm => l?.ffn_rows(m.hidden_len),
        Role::FfnNormBias => l?.ffn_rows(m.hidden_len),
        Role::Gate => Some((l?.gate_len()?, m.hidden_len)),
        Role::GateBias => Some((l?.gate_len()?, 1)),
        Role::Up => Some((l?.inner_len()?, m.hidden_len)),
        Role::UpBias => Some((l?.inner_len()?, 1)),
        Role::Down => Some((m.hidden_len, l?.inner_len()?)),
        Role::DownBias => l?.inner_len().map(|_| (m.hidden_len, 1)),
        Role::FfnPostNorm => l?.ffn_rows(m.hidden_len),
        Role::Router => Some((l?.experts()?.count, m.hidden_len)),
        Role::RouterBias => Some((l?.experts()?.count, 1)),
        Role::SharedGate => l?.shared(true).map(|len| (len, m.hidden_len)),
        Role::SharedUp => l?.shared(false).map(|len| (len, m.hidden_len)),
        Role::SharedDown => l?.shared(false).map(|len| (m.hidden_len, len)),
        Role::SharedRouter => l?.shared(false).map(|_| (1, m.hidden_len)),
        Role::OutputNorm => Some((m.hidden_len, 1)),
        Role::OutputNormBias => Some((m.hidden_len, 1)),
        Role::Head => Some((m.vocab_len, m.hidden_len)),
        Role::HeadBias => Some((m.vocab_len, 1)),
        Role::HeadResidual => Some((m.vocab_len, m.hidden_len)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::tiny;
    use crate::layer::tests::every_kind;

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
