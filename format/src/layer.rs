//! A layer: a mixer, which moves information between positions, then a feed-forward block, which
//! works on each position alone. Both are tagged enums: a reader rejects mechanisms it lacks by
//! their unknown tags.

use crate::error::FormatError;
use crate::limits::{MAX_LEN, invalid, positive, within};
use crate::rope::RopeTable;
use serde::{Deserialize, Serialize};

/// One layer: `x += mixer(norm(x))`, then `x += feed_forward(norm(x))`.
///
/// Biases and post-norms exist where the directory holds their tensors. A half that is `None` was
/// removed: it has no tensors, reads no bytes and leaves `x` as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Moves information between positions.
    pub mixer: Mixer,
    /// Works on each position alone.
    pub feed_forward: FeedForward,
    /// Both halves read the layer's input: `x + mixer(n₁(x)) + feed_forward(n₂(x))`. Neither half
    /// may be `None`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub parallel: bool,
}

/// The first half of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Mixer {
    /// Causal softmax attention.
    Attention(Attention),
    /// A gated causal convolution over a few positions.
    ShortConvolution(ShortConvolution),
    /// Linear attention with a gated delta rule.
    GatedLinearRecurrence(GatedLinearRecurrence),
    /// Nothing.
    None {},
}

/// The second half of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum FeedForward {
    /// `down · (f(gate · x) ⊙ (up · x))`
    Gated(Dense),
    /// `down · f(up · x)`
    Plain(Dense),
    /// A router chooses a few of many blocks for each token.
    Experts(Experts),
    /// Nothing.
    None {},
}

/// Causal softmax attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Number of query heads that read each key head. Query heads are stored in this order: those
    /// of the first key head, then those of the second, and so on. Uneven after heads were removed.
    pub query_heads: Vec<usize>,
    /// Width of every head.
    pub head_dim: usize,
    /// Scores are `q · k · scale`.
    pub scale: f32,
    /// `score = cap · tanh(score / cap)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softcap: Option<f32>,
    /// Each query and key head is normalised by its root mean square, before rope.
    #[serde(default, skip_serializing_if = "is_false")]
    pub qk_norm: bool,
    /// A token sees itself and the `window − 1` tokens before it; without a window, all earlier
    /// tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Index into [`ModelConfig::rope`](crate::ModelConfig::rope); `None` for a layer without
    /// positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope: Option<usize>,
}

/// `out · (c ⊙ conv(b ⊙ v))`, where `[b; c; v] = in · x` and `conv` is depthwise and causal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShortConvolution {
    /// Number of channels of each of `b`, `c` and `v`.
    pub channels: usize,
    /// Length of the kernel in positions, including the current one.
    pub kernel_len: usize,
}

/// Linear attention whose state decays and is corrected by a delta rule, as in Gated DeltaNet
/// (arXiv 2412.06464).
///
/// For each value head, with state `S: value_dim × key_dim`, decay
/// `α = exp(−exp(A) · softplus(a + dt))` and rate `β = σ(b)`:
/// `S ← α · S · (I − β k kᵀ) + β v kᵀ`, output `S q`. `q`, `k` and `v` pass a depthwise causal
/// convolution and SiLU first; `q` and `k` are divided by `√(Σ x² + 10⁻⁶)`, and `q` is scaled by
/// `1 / √key_dim`. Each head's output is normalised by its root mean square and multiplied by
/// `silu(gate · x)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatedLinearRecurrence {
    /// Heads of `q` and `k`.
    pub key_heads: usize,
    /// Heads of `v` and of the state; a multiple of `key_heads`. Neighbours share a key head.
    pub value_heads: usize,
    /// Width of a head of `q` and `k`.
    pub key_dim: usize,
    /// Width of a head of `v`.
    pub value_dim: usize,
    /// Length of the convolution in positions, including the current one.
    pub kernel_len: usize,
}

/// A feed-forward block that every token goes through.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Inner width.
    pub len: usize,
    /// The non-linearity.
    pub activation: ActivationFunction,
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// Number of experts.
    pub count: usize,
    /// Experts that each token goes through.
    pub per_token: usize,
    /// Inner width of an expert, and its non-linearity.
    pub expert: Dense,
    /// Whether experts have a gate projection.
    pub gated: bool,
    /// Turns the router's products into weights.
    pub score: ScoreFunction,
    /// Whether the chosen experts' weights are divided by their sum.
    pub normalized: bool,
    /// Factor of the weights.
    pub scale: f32,
    /// An additional expert that every token goes through. It is gated where experts are; its
    /// output is multiplied by `σ(shared_router · x)` where the directory holds that tensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Dense>,
}

/// Non-linearity of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationFunction {
    /// `x · σ(x)`
    Silu,
    /// `x · Φ(x)`, by the error function.
    Gelu,
    /// `x · Φ(x)`, by the tanh approximation.
    GeluTanh,
}

/// Score function of a router. The router's bias affects only the choice of experts, not their
/// weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreFunction {
    /// Softmax over all experts.
    Softmax,
    /// `σ` of each.
    Sigmoid,
}

/// Most heads, experts, and positions of a kernel.
const MAX_COUNT: usize = 1 << 16;

impl Layer {
    /// The attention, if the mixer is one.
    pub fn attention(&self) -> Option<&Attention> {
        match &self.mixer {
            Mixer::Attention(attention) => Some(attention),
            _ => None,
        }
    }

    /// The feed-forward block, if every token goes through all of it.
    pub fn dense(&self) -> Option<&Dense> {
        match &self.feed_forward {
            FeedForward::Gated(dense) | FeedForward::Plain(dense) => Some(dense),
            _ => None,
        }
    }

    /// The experts, if the layer has any.
    pub fn experts(&self) -> Option<&Experts> {
        match &self.feed_forward {
            FeedForward::Experts(experts) => Some(experts),
            _ => None,
        }
    }

    pub(crate) fn validate(&self, index: usize, rope: &[RopeTable]) -> Result<(), FormatError> {
        let place = |field: &str| format!("layers[{index}].{field}");
        match &self.mixer {
            Mixer::Attention(attention) => attention.validate(&place, rope)?,
            Mixer::ShortConvolution(convolution) => convolution.validate(&place)?,
            Mixer::GatedLinearRecurrence(recurrence) => recurrence.validate(&place)?,
            Mixer::None {} => {}
        }
        match &self.feed_forward {
            FeedForward::Gated(dense) | FeedForward::Plain(dense) => {
                within(&place("feed_forward.len"), dense.len, 1, MAX_LEN)?;
            }
            FeedForward::Experts(experts) => experts.validate(&place)?,
            FeedForward::None {} => {}
        }
        let has_both =
            !matches!(self.mixer, Mixer::None {}) && !matches!(self.feed_forward, FeedForward::None {});
        if self.parallel && !has_both {
            return Err(invalid(place("parallel"), true, "false where a half of the layer is none"));
        }
        Ok(())
    }
}

impl Mixer {
    /// Tag in the file.
    pub fn kind(&self) -> &'static str {
        match self {
            Mixer::Attention(_) => "attention",
            Mixer::ShortConvolution(_) => "short_convolution",
            Mixer::GatedLinearRecurrence(_) => "gated_linear_recurrence",
            Mixer::None {} => "none",
        }
    }
}

impl FeedForward {
    /// Tag in the file.
    pub fn kind(&self) -> &'static str {
        match self {
            FeedForward::Gated(_) => "gated",
            FeedForward::Plain(_) => "plain",
            FeedForward::Experts(_) => "experts",
            FeedForward::None {} => "none",
        }
    }
}

impl Attention {
    /// Number of query heads.
    pub fn heads(&self) -> usize {
        self.query_heads.iter().sum()
    }

    /// Number of key heads, which is the number of value heads.
    pub fn kv_heads(&self) -> usize {
        self.query_heads.len()
    }

    /// Rows of the query projection.
    pub fn query_len(&self) -> usize {
        self.heads() * self.head_dim
    }

    /// Rows of the key projection, and of the value projection.
    pub fn kv_len(&self) -> usize {
        self.kv_heads() * self.head_dim
    }

    /// Most query heads per key head.
    pub fn largest_group(&self) -> usize {
        self.query_heads.iter().copied().max().unwrap_or(0)
    }

    /// `heads` query heads evenly divided among `kv_heads` key heads; `None` if they do not divide
    /// evenly.
    pub fn even(heads: usize, kv_heads: usize) -> Option<Vec<usize>> {
        (kv_heads > 0 && heads.is_multiple_of(kv_heads)).then(|| vec![heads / kv_heads; kv_heads])
    }

    fn validate(&self, place: &dyn Fn(&str) -> String, rope: &[RopeTable]) -> Result<(), FormatError> {
        let place = |field: &str| place(&format!("mixer.{field}"));
        within(&place("query_heads"), self.kv_heads(), 1, MAX_COUNT)?;
        for &heads in &self.query_heads {
            within(&place("query_heads"), heads, 1, MAX_COUNT)?;
        }
        within(&place("query_heads"), self.heads(), 1, MAX_COUNT)?;
        within(&place("head_dim"), self.head_dim, 1, MAX_COUNT)?;
        within(&place("query_heads · head_dim"), self.query_len(), 1, MAX_LEN)?;
        if !(self.scale.is_finite() && self.scale != 0.0) {
            return Err(invalid(place("scale"), self.scale, "a finite number other than 0"));
        }
        positive(&place("softcap"), self.softcap)?;
        if let Some(window) = self.window {
            within(&place("window"), window, 1, usize::MAX)?;
        }
        let Some(table) = self.rope else { return Ok(()) };
        let below = format!("below {}", rope.len());
        let dim = rope.get(table).ok_or_else(|| invalid(place("rope"), table, below))?.dim;
        within(&format!("rope[{table}].dim"), dim, 2, self.head_dim)
    }
}

impl ShortConvolution {
    fn validate(&self, place: &dyn Fn(&str) -> String) -> Result<(), FormatError> {
        within(&place("mixer.channels"), self.channels, 1, MAX_LEN / 3)?;
        within(&place("mixer.kernel_len"), self.kernel_len, 1, MAX_COUNT)
    }
}

impl GatedLinearRecurrence {
    /// Rows that go through the convolution: queries, keys, values.
    pub fn convolved_len(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_len()
    }

    /// Rows of all value heads.
    pub fn value_len(&self) -> usize {
        self.value_heads * self.value_dim
    }

    fn validate(&self, place: &dyn Fn(&str) -> String) -> Result<(), FormatError> {
        for (field, value) in [
            ("mixer.key_heads", self.key_heads),
            ("mixer.value_heads", self.value_heads),
            ("mixer.key_dim", self.key_dim),
            ("mixer.value_dim", self.value_dim),
            ("mixer.kernel_len", self.kernel_len),
        ] {
            within(&place(field), value, 1, MAX_COUNT)?;
        }
        if !self.value_heads.is_multiple_of(self.key_heads) {
            let expected = format!("a multiple of key_heads, {}", self.key_heads);
            return Err(invalid(place("mixer.value_heads"), self.value_heads, expected));
        }
        within(&place("mixer.value_heads · value_dim"), self.value_len(), 1, MAX_LEN)?;
        within(&place("mixer: rows of queries, keys and values"), self.convolved_len(), 1, MAX_LEN)
    }
}

impl Experts {
    fn validate(&self, place: &dyn Fn(&str) -> String) -> Result<(), FormatError> {
        within(&place("feed_forward.count"), self.count, 1, MAX_COUNT)?;
        within(&place("feed_forward.per_token"), self.per_token, 1, self.count)?;
        within(&place("feed_forward.expert.len"), self.expert.len, 1, MAX_LEN)?;
        positive(&place("feed_forward.scale"), Some(self.scale))?;
        let shared = self.shared.map_or(1, |shared| shared.len);
        within(&place("feed_forward.shared.len"), shared, 1, MAX_LEN)
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn attention() -> Attention {
        Attention {
            query_heads: vec![2],
            head_dim: 4,
            scale: 0.5,
            softcap: None,
            qk_norm: false,
            window: None,
            rope: Some(0),
        }
    }

    /// One layer of every kind of mixer and of feed-forward block.
    pub(crate) fn every_kind() -> Vec<Layer> {
        let dense = Dense { len: 12, activation: ActivationFunction::Silu };
        let mixers = [
            Mixer::Attention(attention()),
            Mixer::Attention(Attention { query_heads: vec![3, 1], qk_norm: true, ..attention() }),
            Mixer::ShortConvolution(ShortConvolution { channels: 8, kernel_len: 3 }),
            Mixer::GatedLinearRecurrence(GatedLinearRecurrence {
                key_heads: 1,
                value_heads: 2,
                key_dim: 4,
                value_dim: 6,
                kernel_len: 4,
            }),
            Mixer::None {},
        ];
        let experts = Experts {
            count: 4,
            per_token: 2,
            expert: dense,
            gated: true,
            score: ScoreFunction::Sigmoid,
            normalized: true,
            scale: 2.5,
            shared: Some(Dense { len: 6, ..dense }),
        };
        let blocks = [
            FeedForward::Gated(dense),
            FeedForward::Plain(dense),
            FeedForward::Experts(experts.clone()),
            FeedForward::Experts(Experts { gated: false, shared: None, ..experts }),
            FeedForward::None {},
        ];
        let layer = |(mixer, feed_forward)| Layer { mixer, feed_forward, parallel: false };
        mixers.into_iter().zip(blocks).map(layer).collect()
    }

    #[test]
    fn every_kind_survives_json() {
        for layer in every_kind() {
            let json = serde_json::to_string(&layer).unwrap();
            assert_eq!(serde_json::from_str::<Layer>(&json).unwrap(), layer, "{json}");
            assert!(json.contains(&format!("\"kind\":\"{}\"", layer.mixer.kind())), "{json}");
            assert!(json.contains(&format!("\"kind\":\"{}\"", layer.feed_forward.kind())), "{json}");
        }
    }

    #[test]
    fn an_unknown_kind_or_field_is_named() {
        let read = |json: &str| serde_json::from_str::<Layer>(json).unwrap_err().to_string();
        let none = r#""feed_forward": {"kind": "none"}"#;
        let message = read(&format!(r#"{{"mixer": {{"kind": "mamba"}}, {none}}}"#));
        assert!(message.contains("mamba") && message.contains("short_convolution"), "{message}");
        let message = read(&format!(r#"{{"mixer": {{"kind": "none", "sinks": 4}}, {none}}}"#));
        assert!(message.contains("sinks"), "{message}");
        let convolution = r#"{"kind": "short_convolution", "channels": 8, "kernel_len": 3, "dilation": 2}"#;
        let message = read(&format!(r#"{{"mixer": {convolution}, {none}}}"#));
        assert!(message.contains("dilation"), "{message}");
    }
}
