//! The description of a family, and the translation of a configuration.

use pith_format::{ActivationFunction, ModelConfig, NormKind};

use super::config::Config;
use super::keys::Keys;
use super::rule::Rule;
use crate::checkpoint::CheckpointError;

/// One family.
#[derive(Debug)]
pub(super) struct Family {
    /// Name in the file and in messages.
    pub(super) name: &'static str,
    /// `model_type` in `config.json`.
    pub(super) model_types: &'static [&'static str],
    /// `architectures` in `config.json`, for those that have no `model_type`.
    pub(super) classes: &'static [&'static str],
    /// `general.architecture` in GGUF.
    pub(super) gguf_names: &'static [&'static str],
    pub(super) norm: NormKind,
    /// Default activation function; GGUF files never name one.
    pub(super) activation: ActivationFunction,
    pub(super) norm_epsilon: f64,
    /// Default width of a head; `None`: hidden / heads.
    pub(super) head_dim: Option<usize>,
    /// Default for a head that is tied to the embedding.
    pub(super) tied: bool,
    /// Default rotary positions; `None`: the family has none.
    pub(super) rope: Option<Rotary>,
    /// The role of each Hugging Face tensor, in several lists so that families can share some.
    pub(super) tensors: &'static [&'static [Rule]],
    /// Prefix that these names may lack.
    pub(super) prefix: &'static str,
    /// Suffixes of Hugging Face tensors that are not weights.
    pub(super) ignored: &'static [&'static str],
    /// Dimensions that the `text_config` of a model of more than text leaves out.
    pub(super) text_defaults: &'static [(&'static str, usize)],
    /// Whether sentencepiece vocabularies of its GGUF files drop the white space after special
    /// tokens. GGUF has no key for it.
    pub(super) strips_after_special: bool,
    pub(super) gguf_tensors: &'static [&'static [Rule]],
    /// Settings of `config.json` that only this family has.
    pub(super) huggingface: fn(&Config<'_>, &mut Translation) -> Result<(), CheckpointError>,
    /// GGUF keys that only this family has.
    pub(super) gguf: fn(&Keys<'_>, &mut Translation) -> Result<(), CheckpointError>,
}

/// Rotary positions: the base of the wavelengths, and the rotated part of a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotary {
    pub(super) base: f64,
    pub(super) part: f64,
}

pub(super) const ROTARY: Rotary = Rotary { base: 10_000.0, part: 1.0 };

/// A configuration under construction.
#[derive(Debug)]
pub(super) struct Translation {
    pub(super) model: ModelConfig,
    pub(super) warnings: Vec<String>,
}

impl Translation {
    /// Sets the special tokens. Leaves out those beyond the vocabulary, which small models inherit
    /// from large ones.
    pub(super) fn set_tokens(&mut self, bos: Vec<u32>, eos: Vec<u32>) {
        let vocab_len = self.model.vocab_len;
        let mut known = |kind: &str, tokens: Vec<u32>| {
            let mut kept: Vec<u32> = Vec::new();
            for token in tokens {
                if token as usize >= vocab_len {
                    self.warnings.push(format!("{kind} token {token} is not among the {vocab_len} tokens"));
                } else if !kept.contains(&token) {
                    kept.push(token);
                }
            }
            kept
        };
        let bos = known("begin", bos).first().copied();
        let eos = known("end", eos);
        (self.model.bos, self.model.eos) = (bos, eos);
    }
}
