//! The layers that families share: attention, then a feed-forward block, all alike until a family
//! changes them.

use pith_format::{ActivationFunction, Attention, Dense, FeedForward, Layer, Mixer, ModelConfig, Role};

use super::rule::Rule;

/// Largest number of query heads, and of key heads. Checked here because each takes memory before
/// the file's own check.
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
    /// The layer, with the norms and gates of the rules. The error states the requirement on the
    /// number of key heads.
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

/// The attention of every layer that has one, in order.
pub(super) fn attentions(model: &mut ModelConfig) -> impl Iterator<Item = &mut Attention> {
    model.layers.iter_mut().filter_map(|layer| match &mut layer.mixer {
        Mixer::Attention(attention) => Some(attention),
        _ => None,
    })
}

/// Head width and number of query heads of the first layer, which has attention in every family.
pub(super) fn first_heads(model: &ModelConfig) -> (usize, usize) {
    model.layers[0].attention().map_or((0, 0), |attention| (attention.head_dim, attention.heads()))
}
