//! Layers as families have them: attention, then a feed-forward block, alike but for what a family sets afterwards.

use pith_format::{ActivationFunction, Attention, Dense, FeedForward, Layer, Mixer, ModelConfig, Role};

use super::rule::Rule;

/// Most query heads of a layer, and most key heads: each takes memory before the file's own check.
const HEAD_LIMIT: usize = 1 << 10;

/// Dimensions of a layer.
pub(super) struct Dimensions {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) inner_len: usize,
    pub(super) activation: ActivationFunction,
}

impl Dimensions {
    /// The layer, with the norms and gates that the rules bind; an error says what the number of key heads must be.
    pub(super) fn layer(&self, rules: &[&[Rule]], has_rope: bool) -> Result<Layer, String> {
        let has = |role: Role| rules.iter().any(|rules| rules.iter().any(|rule| rule.role == role));
        let heads = Some(self.heads).filter(|&heads| heads <= HEAD_LIMIT);
        let query_heads = heads.and_then(|heads| Attention::even(heads, self.kv_heads));
        let attention = Attention {
            query_heads: query_heads.ok_or_else(|| {
                format!("a divisor of the number of heads, {}, which is at most {HEAD_LIMIT}", self.heads)
            })?,
            head_dim: self.head_dim,
            scale: (self.head_dim as f64).powf(-0.5) as f32,
            softcap: None,
            qk_norm: has(Role::QueryNorm),
            window: None,
            rope: has_rope.then_some(0),
        };
        let dense = Dense { len: self.inner_len, activation: self.activation };
        let feed_forward =
            if has(Role::Gate) { FeedForward::Gated(dense) } else { FeedForward::Plain(dense) };
        Ok(Layer { mixer: Mixer::Attention(attention), feed_forward, parallel: false })
    }
}

/// The attention of every layer that has it, in order.
pub(super) fn attentions(model: &mut ModelConfig) -> impl Iterator<Item = &mut Attention> {
    model.layers.iter_mut().filter_map(|layer| match &mut layer.mixer {
        Mixer::Attention(attention) => Some(attention),
        _ => None,
    })
}

/// Width of a head, and query heads, of the first layer, which every family has with attention.
pub(super) fn first_heads(model: &ModelConfig) -> (usize, usize) {
    model.layers[0].attention().map_or((0, 0), |attention| (attention.head_dim, attention.heads()))
}
