//! What a model is: the metadata of a file, stored as JSON.

use crate::error::FormatError;
use serde::{Deserialize, Serialize};

/// The metadata section: everything about the model that is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Dimensions and mechanisms, which drive the forward pass.
    pub model: ModelConfig,
    /// Jinja template that turns messages into a prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Where the file came from.
    pub provenance: Provenance,
}

/// A decoder-only transformer. Dimensions are per layer where pruning can make them differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name of the model, for people.
    pub name: String,
    /// Family it was converted as, for people; the forward pass does not look at it.
    pub family: String,
    /// Rows of the embedding and of the head.
    pub vocab_len: usize,
    /// Width of the residual stream.
    pub hidden_len: usize,
    /// Longest sequence the model was made for, in tokens.
    pub context_len: usize,
    /// Kind of every norm but those of queries and keys, which are always [`NormKind::Rms`].
    pub norm: NormKind,
    /// Added to the mean square (or variance) under every norm's root.
    pub norm_epsilon: f32,
    /// Embeddings are multiplied by this.
    pub embedding_scale: f32,
    /// The head is the embedding matrix.
    pub tied_head: bool,
    /// `logit = cap · tanh(logit / cap)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_softcap: Option<f32>,
    /// Token that begins a sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos: Option<u32>,
    /// Tokens that end a reply.
    #[serde(default)]
    pub eos: Vec<u32>,
    /// Rotary tables that layers refer to.
    #[serde(default)]
    pub rope: Vec<RopeTable>,
    /// One entry a layer.
    pub layers: Vec<LayerConfig>,
}

/// One layer's dimensions and mechanisms. Biases, gates, post-norms and query/key norms are there when the
/// directory holds their tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerConfig {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of every head.
    pub head_dim: usize,
    /// Inner width of the feed-forward block.
    pub ffn_len: usize,
    /// Its non-linearity.
    pub activation: ActivationFunction,
    /// Scores are `q · k · attention_scale`.
    pub attention_scale: f32,
    /// `score = cap · tanh(score / cap)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_softcap: Option<f32>,
    /// A token sees itself and `window − 1` tokens before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Index into [`ModelConfig::rope`]; a layer without positions has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope: Option<usize>,
    /// The feed-forward block reads the layer's input, not the attention's output: `x + attn(n₁(x)) + ffn(n₂(x))`.
    #[serde(default)]
    pub parallel: bool,
}

/// Frequencies of a rotary embedding, scaling already applied.
///
/// Dimension `i` of a head turns with dimension `i + dim/2` by the angle `position · inv_freq[i]`; dimensions from
/// `dim` on are left alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeTable {
    /// Rotated dimensions of a head; even.
    pub dim: usize,
    /// `dim / 2` radians per position.
    pub inv_freq: Vec<f32>,
    /// Sine and cosine are multiplied by this.
    pub magnitude: f32,
    /// Frequencies for sessions longer than `long_from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_inv_freq: Option<Vec<f32>>,
    /// Longest context, in tokens, that `inv_freq` serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_from: Option<usize>,
}

/// How activations are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// `x / √(mean(x²) + ε) · w`
    Rms,
    /// `(x − mean) / √(var + ε) · w + b`
    Layer,
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

/// Where a file came from and what was done to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Program and version that wrote the file.
    pub converter: String,
    /// What was converted.
    pub source: SourceRecord,
    /// How: the encoding or recipe asked for.
    pub recipe: String,
    /// The recipe's file, TOML, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_file: Option<String>,
    /// What each pass did, in order.
    #[serde(default)]
    pub passes: Vec<PassRecord>,
}

/// The checkpoint a file was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// "huggingface" or "gguf".
    pub kind: String,
    /// Name of the folder or file, without its path.
    pub name: String,
    /// Bytes of tensor data read.
    pub tensor_bytes: u64,
    /// XXH3-128 of the weight files one after the other, hexadecimal: `cat FILES | xxhsum -H2`.
    pub checksum: String,
}

/// What a pass over the weights did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassRecord {
    /// Name of the pass.
    pub name: String,
    /// Weights it set to zero.
    pub zeros: u64,
    /// Bytes the file is smaller for it, against the same file without it.
    pub bytes_saved: i64,
}

const MAX_LAYERS: usize = 1 << 12;
const MAX_LEN: usize = 1 << 24;

impl ModelConfig {
    /// Checks that the numbers can belong to a model, so that arithmetic on them cannot overflow later.
    pub fn validate(&self) -> Result<(), FormatError> {
        for (field, value) in [
            ("vocab_len", self.vocab_len),
            ("hidden_len", self.hidden_len),
            ("context_len", self.context_len),
        ] {
            within(field, value, 1, MAX_LEN)?;
        }
        within("layers", self.layers.len(), 1, MAX_LAYERS)?;
        within("rope", self.rope.len(), 0, 16)?;
        positive("norm_epsilon", Some(self.norm_epsilon))?;
        positive("embedding_scale", Some(self.embedding_scale))?;
        positive("logit_softcap", self.logit_softcap)?;
        for &token in self.bos.iter().chain(&self.eos) {
            within("special token", token as usize, 0, self.vocab_len - 1)?;
        }
        self.rope.iter().enumerate().try_for_each(|(index, table)| table.validate(index))?;
        self.layers.iter().enumerate().try_for_each(|(index, layer)| layer.validate(index, &self.rope))
    }
}

impl RopeTable {
    fn validate(&self, index: usize) -> Result<(), FormatError> {
        let place = |field: &str| format!("rope[{index}].{field}");
        within(&place("dim"), self.dim, 2, MAX_LEN)?;
        if !self.dim.is_multiple_of(2) {
            return Err(invalid(place("dim"), self.dim, "an even number"));
        }
        positive(&place("magnitude"), Some(self.magnitude))?;
        if self.long_inv_freq.is_some() != self.long_from.is_some() {
            return Err(invalid(
                place("long_from"),
                format!("{:?}", self.long_from),
                "set with long_inv_freq, or neither",
            ));
        }
        for table in std::iter::once(&self.inv_freq).chain(&self.long_inv_freq) {
            if table.len() != self.dim / 2 || !table.iter().all(|value| value.is_finite()) {
                return Err(invalid(
                    place("inv_freq"),
                    format!("{} values", table.len()),
                    format!("{} finite values", self.dim / 2),
                ));
            }
        }
        Ok(())
    }
}

impl LayerConfig {
    fn validate(&self, index: usize, rope: &[RopeTable]) -> Result<(), FormatError> {
        let place = |field: &str| format!("layers[{index}].{field}");
        within(&place("heads"), self.heads, 1, 1 << 16)?;
        within(&place("kv_heads"), self.kv_heads, 1, self.heads)?;
        within(&place("head_dim"), self.head_dim, 1, 1 << 16)?;
        within(&place("heads · head_dim"), self.heads * self.head_dim, 1, MAX_LEN)?;
        within(&place("ffn_len"), self.ffn_len, 1, MAX_LEN)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(invalid(
                place("kv_heads"),
                self.kv_heads,
                format!("a divisor of heads, {}", self.heads),
            ));
        }
        if !(self.attention_scale.is_finite() && self.attention_scale != 0.0) {
            return Err(invalid(
                place("attention_scale"),
                self.attention_scale,
                "a finite number other than 0",
            ));
        }
        positive(&place("attention_softcap"), self.attention_softcap)?;
        if let Some(window) = self.window {
            within(&place("window"), window, 1, usize::MAX)?;
        }
        let Some(table) = self.rope else { return Ok(()) };
        let dim = rope
            .get(table)
            .ok_or_else(|| invalid(place("rope"), table, format!("below {}", rope.len())))?
            .dim;
        within(&format!("rope[{table}].dim"), dim, 2, self.head_dim)
    }
}

fn invalid(field: impl Into<String>, found: impl ToString, expected: impl ToString) -> FormatError {
    FormatError::ConfigValue { field: field.into(), found: found.to_string(), expected: expected.to_string() }
}

fn within(field: &str, value: usize, low: usize, high: usize) -> Result<(), FormatError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(invalid(field, value, format!("{low} to {high}")))
    }
}

fn positive(field: &str, value: Option<f32>) -> Result<(), FormatError> {
    match value {
        Some(value) if !(value.is_finite() && value > 0.0) => {
            Err(invalid(field, value, "a finite number above 0"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn tiny() -> ModelConfig {
        ModelConfig {
            name: "tiny".into(),
            family: "llama".into(),
            vocab_len: 5,
            hidden_len: 8,
            context_len: 32,
            norm: NormKind::Rms,
            norm_epsilon: 1e-5,
            embedding_scale: 1.0,
            tied_head: true,
            logit_softcap: None,
            bos: Some(0),
            eos: vec![1],
            rope: vec![RopeTable {
                dim: 4,
                inv_freq: vec![1.0, 0.01],
                magnitude: 1.0,
                long_inv_freq: None,
                long_from: None,
            }],
            layers: vec![LayerConfig {
                heads: 2,
                kv_heads: 1,
                head_dim: 4,
                ffn_len: 12,
                activation: ActivationFunction::Silu,
                attention_scale: 0.5,
                attention_softcap: None,
                window: None,
                rope: Some(0),
                parallel: false,
            }],
        }
    }

    #[test]
    fn a_sound_configuration_passes_and_survives_json() {
        let config = tiny();
        config.validate().unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ModelConfig>(&json).unwrap(), config);
    }

    #[test]
    fn each_wrong_number_is_named() {
        type Spoil = fn(&mut ModelConfig);
        let cases: [(&str, Spoil); 14] = [
            ("vocab_len", |c| c.vocab_len = 0),
            ("hidden_len", |c| c.hidden_len = usize::MAX),
            ("layers", |c| c.layers.clear()),
            ("norm_epsilon", |c| c.norm_epsilon = f32::NAN),
            ("embedding_scale", |c| c.embedding_scale = 0.0),
            ("logit_softcap", |c| c.logit_softcap = Some(-1.0)),
            ("special token", |c| c.eos.push(5)),
            ("rope[0].dim", |c| c.rope[0].dim = 3),
            ("rope[0].inv_freq", |c| c.rope[0].inv_freq = vec![1.0]),
            ("rope[0].long_from", |c| c.rope[0].long_from = Some(8)),
            ("layers[0].kv_heads", |c| c.layers[0].kv_heads = 3),
            ("layers[0].attention_scale", |c| c.layers[0].attention_scale = 0.0),
            ("layers[0].window", |c| c.layers[0].window = Some(0)),
            ("layers[0].rope", |c| c.layers[0].rope = Some(1)),
        ];
        for (field, spoil) in cases {
            let mut config = tiny();
            spoil(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(field), "{field}: {message}");
        }
    }
}
