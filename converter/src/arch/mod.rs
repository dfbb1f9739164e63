//! Model families. A family is a table: the names it goes by, which source tensor plays which role, and what its
//! configuration means. Nothing behind this module knows families apart.
//!
//! To add one: a file here with a [`Family`], and its line in [`FAMILIES`].

mod config;
mod gemma2;
mod gemma3;
mod gguf;
mod gpt2;
mod gpt_neox;
mod huggingface;
mod llama;
mod mistral;
mod original;
mod phi3;
mod qwen2;
mod qwen3;
mod resolve;
mod rope;
mod rule;
mod smollm3;
#[cfg(test)]
mod tests;

use pith_format::{ActivationFunction, ModelConfig, NormKind};

use crate::error::ConvertError;
use config::Config;
use gguf::Keys;
use rule::Rule;

pub(crate) use original::{original_bindings, original_config};
pub(crate) use resolve::{Architecture, Binding};
pub(crate) use rule::RowMap;

/// The registry.
const FAMILIES: &[&Family] = &[
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
    &phi3::FAMILY,
    &smollm3::FAMILY,
    &gpt2::FAMILY,
    &gpt_neox::FAMILY,
];

/// One family.
#[derive(Debug)]
pub(crate) struct Family {
    /// Name in the file and in messages.
    pub(crate) name: &'static str,
    /// `model_type` in `config.json`.
    model_types: &'static [&'static str],
    /// `architectures` in `config.json`, for those that have no `model_type`.
    classes: &'static [&'static str],
    /// `general.architecture` in GGUF.
    gguf_names: &'static [&'static str],
    norm: NormKind,
    /// Used where the configuration names none; a GGUF file never does.
    activation: ActivationFunction,
    norm_epsilon: f64,
    /// Width of a head where the configuration has none; `None`: hidden / heads.
    head_dim: Option<usize>,
    /// The head is the embedding where the configuration does not say.
    tied: bool,
    /// Rotary positions where the configuration does not say; `None`: the family has none.
    rope: Option<Rotary>,
    /// Which Hugging Face tensors play which role, in several lists so that families can share some.
    tensors: &'static [&'static [Rule]],
    /// What the names of those may lack in front.
    prefix: &'static str,
    /// Ends of the names of Hugging Face tensors that are no weights.
    ignored: &'static [&'static str],
    gguf_tensors: &'static [&'static [Rule]],
    /// What `config.json` says beyond what all families have.
    huggingface: fn(&Config<'_>, &mut Translation) -> Result<(), ConvertError>,
    /// What GGUF keys say beyond what all families have.
    gguf: fn(&Keys<'_>, &mut Translation) -> Result<(), ConvertError>,
}

/// Rotary positions: the base of the wavelengths, the part of a head that turns.
#[derive(Clone, Copy, Debug)]
struct Rotary {
    base: f64,
    part: f64,
}

const ROTARY: Rotary = Rotary { base: 10_000.0, part: 1.0 };

/// A configuration in the making.
#[derive(Debug)]
struct Translation {
    model: ModelConfig,
    warnings: Vec<String>,
}

impl Translation {
    /// Sets the special tokens; those beyond the vocabulary, which small models inherit from large ones, are left out.
    fn set_tokens(&mut self, bos: Vec<u32>, eos: Vec<u32>) {
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

/// The names of all families, for messages.
fn known_names() -> String {
    FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ")
}
