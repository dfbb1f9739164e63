//! Description of a model: the metadata of a file, stored as JSON.

use crate::error::FormatError;
use crate::layer::Layer;
use crate::limits::{MAX_LEN, positive, within};
use crate::provenance::Provenance;
use crate::rope::RopeTable;
use crate::sampling::Sampling;
use serde::{Deserialize, Serialize};

/// The metadata section: everything about the model that is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Dimensions and mechanisms of the forward pass.
    pub model: ModelConfig,
    /// Jinja template that turns messages into a prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Sampling settings that the model's makers recommend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// Where the file came from.
    pub provenance: Provenance,
}

/// A decoder-only language model. Dimensions are per layer, because pruning makes them differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name of the model, for display.
    pub name: String,
    /// Family used in conversion, for display; the forward pass ignores it.
    pub family: String,
    /// Rows of the embedding and of the head.
    pub vocab_len: usize,
    /// Width of the residual stream.
    pub hidden_len: usize,
    /// Longest sequence the model was made for, in tokens.
    pub context_len: usize,
    /// Kind of all norms except those of queries and keys, which are always [`NormKind::Rms`].
    pub norm: NormKind,
    /// Added to the mean square (or variance) under every norm's root.
    pub norm_epsilon: f32,
    /// Factor of the embeddings.
    pub embedding_scale: f32,
    /// Whether the head is the embedding matrix.
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
    /// One entry per layer.
    pub layers: Vec<Layer>,
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

/// Most layers.
const MAX_LAYERS: usize = 1 << 12;

impl ModelConfig {
    /// Checks that the numbers are possible for a model, so that later arithmetic on them cannot
    /// overflow.
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::layer::tests::{attention, every_kind};
    use crate::layer::*;

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
            layers: vec![Layer {
                mixer: Mixer::Attention(attention()),
                feed_forward: FeedForward::Gated(Dense { len: 12, activation: ActivationFunction::Silu }),
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
    fn layers_of_every_kind_are_sound() {
        ModelConfig { layers: every_kind(), ..tiny() }.validate().unwrap();
    }

    fn mixer(config: &mut ModelConfig) -> &mut Attention {
        match &mut config.layers[0].mixer {
            Mixer::Attention(attention) => attention,
            _ => unreachable!("the tiny model has attention"),
        }
    }

    /// Reduces the model to a single layer, one with this mixer or feed-forward block.
    fn alone(config: &mut ModelConfig, kind: &str) {
        let is = |layer: &Layer| [layer.mixer.kind(), layer.feed_forward.kind()].contains(&kind);
        config.layers = every_kind().into_iter().filter(is).take(1).collect();
    }

    #[test]
    fn each_wrong_number_is_named() {
        type Spoil = fn(&mut ModelConfig);
        let cases: &[(&str, Spoil)] = &[
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
            ("layers[0].mixer.query_heads", |c| mixer(c).query_heads.clear()),
            ("layers[0].mixer.query_heads", |c| mixer(c).query_heads = vec![2, 0]),
            ("layers[0].mixer.query_heads", |c| mixer(c).query_heads = vec![1 << 16; 2]),
            ("layers[0].mixer.head_dim", |c| mixer(c).head_dim = usize::MAX),
            ("layers[0].mixer.scale", |c| mixer(c).scale = 0.0),
            ("layers[0].mixer.softcap", |c| mixer(c).softcap = Some(f32::INFINITY)),
            ("layers[0].mixer.window", |c| mixer(c).window = Some(0)),
            ("layers[0].mixer.rope", |c| mixer(c).rope = Some(1)),
            ("rope[0].dim", |c| mixer(c).head_dim = 2),
            ("layers[0].feed_forward.len", |c| {
                let dense = Dense { len: 0, activation: ActivationFunction::Silu };
                c.layers[0].feed_forward = FeedForward::Plain(dense);
            }),
            ("layers[0].parallel", |c| {
                c.layers[0].feed_forward = FeedForward::None {};
                c.layers[0].parallel = true;
            }),
            ("layers[0].mixer.channels", |c| {
                let convolution = ShortConvolution { channels: usize::MAX, kernel_len: 3 };
                c.layers[0].mixer = Mixer::ShortConvolution(convolution);
            }),
            ("layers[0].mixer.value_heads", |c| {
                alone(c, "gated_linear_recurrence");
                if let Mixer::GatedLinearRecurrence(recurrence) = &mut c.layers[0].mixer {
                    recurrence.key_heads = 3;
                }
            }),
            ("layers[0].feed_forward.per_token", |c| {
                alone(c, "experts");
                if let FeedForward::Experts(experts) = &mut c.layers[0].feed_forward {
                    experts.per_token = 5;
                }
            }),
        ];
        for (field, spoil) in cases {
            let mut config = tiny();
            spoil(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(field), "{field}: {message}");
        }
    }
}
