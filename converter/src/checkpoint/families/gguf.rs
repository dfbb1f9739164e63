//! Translates GGUF keys to a [`ModelConfig`]: the part that all families share.

use pith_format::{ModelConfig, NormKind, RopeTable};
use pith_tokenizer::source::ends_by_name;

use super::family::{Family, Rotary, Translation};
use super::keys::Keys;
use super::layers::Dimensions;
use super::rope::{self, Scaling};
use super::stray::stray_gguf_keys;
use crate::checkpoint::CheckpointError;

const LAYER_LIMIT: usize = 1 << 12;

/// Sets dimensions, norm, tokens and one rotary table for all layers, then calls the family's own
/// function.
pub(super) fn translate(
    family: &Family,
    keys: &Keys<'_>,
    vocab_len: usize,
) -> Result<Translation, CheckpointError> {
    if keys.count("expert_count")?.is_some() {
        return Err(keys.error("expert_count", "none: mixtures of experts are not supported"));
    }
    let hidden_len = keys.required_count("embedding_length")?;
    let heads = keys.required_count("attention.head_count")?;
    let head_dim = head_dim(keys, hidden_len, heads)?;
    if keys.count("attention.value_length")?.is_some_and(|length| length != head_dim) {
        return Err(keys.error("attention.value_length", format!("{head_dim}, the length of a key")));
    }
    let layer_count = keys.required_count("block_count")?;
    if layer_count > LAYER_LIMIT {
        return Err(keys.error("block_count", format!("at most {LAYER_LIMIT}")));
    }
    let epsilon = match family.norm {
        NormKind::Rms => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
    };
    let dimensions = Dimensions {
        heads,
        kv_heads: keys.count("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        inner_len: keys.required_count("feed_forward_length")?,
        activation: family.activation,
    };
    let layer = dimensions.layer(family.gguf_tensors, family.rope.is_some());
    let layer = layer.map_err(|expected| keys.error("attention.head_count_kv", expected))?;
    let model = ModelConfig {
        name: String::new(),
        family: family.name.into(),
        vocab_len: keys.count("vocab_size")?.unwrap_or(vocab_len),
        hidden_len,
        context_len: keys.required_count("context_length")?,
        norm: family.norm,
        norm_epsilon: keys.required_number(epsilon)? as f32,
        embedding_scale: 1.0,
        tied_head: false,
        logit_softcap: None,
        bos: None,
        eos: Vec::new(),
        rope: Vec::new(),
        layers: vec![layer; layer_count],
    };
    let mut translation = Translation { model, warnings: Vec::new() };
    if let Some(rotary) = family.rope {
        let table = rope_table(keys, rotary, head_dim, translation.model.context_len)?;
        translation.model.rope.push(table);
    }
    keys.set_attention_scale(&mut translation.model)?;
    if keys.flag("attention.causal")? == Some(false) {
        return Err(keys.error("attention.causal", "true: each token sees those before it alone"));
    }
    let token = |name: &str| keys.metadata.get::<u32>(&format!("tokenizer.ggml.{name}_token_id"));
    let named = [token("eos")?, token("eot")?, token("eom")?];
    // Files often name one of several tokens that end a turn.
    let tokens = keys.metadata.get::<Vec<&str>>("tokenizer.ggml.tokens")?.unwrap_or_default();
    let eos = named.into_iter().flatten().chain(ends_by_name(&tokens)).collect();
    translation.set_tokens(token("bos")?.into_iter().collect(), eos);
    (family.gguf)(keys, &mut translation)?;
    translation.warnings.extend(stray_gguf_keys(keys, family.name));
    Ok(translation)
}

/// The width of a head: the key's, else a part of the hidden size.
fn head_dim(keys: &Keys<'_>, hidden_len: usize, heads: usize) -> Result<usize, CheckpointError> {
    match keys.count("attention.key_length")? {
        Some(length) => Ok(length),
        None if hidden_len.is_multiple_of(heads) => Ok(hidden_len / heads),
        None => {
            let expected =
                format!("a divisor of embedding_length, {hidden_len}, without attention.key_length");
            Err(keys.error("attention.head_count", expected))
        }
    }
}

fn rope_table(
    keys: &Keys<'_>,
    default: Rotary,
    head_dim: usize,
    context_len: usize,
) -> Result<RopeTable, CheckpointError> {
    let base = keys.number("rope.freq_base")?.unwrap_or(default.base);
    let part = (head_dim as f64 * default.part) as usize;
    let dim = keys.count("rope.dimension_count")?.unwrap_or(part).max(1);
    if dim > head_dim {
        return Err(keys.error("rope.dimension_count", format!("at most {head_dim}, a head's width")));
    }
    let grown = keys.number("rope.scaling.attn_factor")?;
    let (scaling, magnitude) = scaling(keys, dim.div_ceil(2), context_len, grown)?;
    let mut table = rope::table(base, dim, &scaling);
    table.magnitude *= magnitude as f32;
    Ok(table)
}

/// The scaling, and the factor of sine and cosine.
fn scaling(
    keys: &Keys<'_>,
    frequency_count: usize,
    context_len: usize,
    grown: Option<f64>,
) -> Result<(Scaling, f64), CheckpointError> {
    let key = "rope.scaling.type";
    let named = keys.get::<&str>(key)?.unwrap_or("none");
    let original = keys.count("rope.scaling.original_context_length")?.unwrap_or(context_len);
    let factor = match keys.number("rope.scaling.factor")?.filter(|&factor| factor != 0.0) {
        Some(factor) => factor,
        None => keys.number("rope.scale_linear")?.filter(|&factor| factor != 0.0).unwrap_or(1.0),
    };
    let own = keys.factors("rope_freqs.weight", frequency_count)?;
    let short = keys.factors("rope_factors_short.weight", frequency_count)?;
    let long = keys.factors("rope_factors_long.weight", frequency_count)?;
    let magnitude = grown.unwrap_or(1.0);
    Ok(match (named, own, short, long) {
        ("none" | "longrope", None, Some(short), Some(long)) => {
            let default = rope::long_magnitude(context_len as f64 / original as f64, original as f64);
            (Scaling::Long { short, long, original, magnitude: grown.unwrap_or(default) }, 1.0)
        }
        ("none", None, None, None) if factor == 1.0 => (Scaling::None, magnitude),
        ("none" | "linear", None, None, None) => (Scaling::Linear { factor }, magnitude),
        ("none" | "linear", Some(own), None, None) => {
            (Scaling::Divided { factors: own.iter().map(|own| own * factor).collect() }, magnitude)
        }
        ("yarn", None, None, None) => {
            let yarn = Scaling::Yarn {
                factor,
                original: original as f64,
                beta_fast: keys.number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: keys.number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                truncate: true,
                magnitude: rope::yarn_magnitude(factor, 1.0),
            };
            (yarn, magnitude)
        }
        ("none" | "linear" | "yarn" | "longrope", ..) => {
            let expected = "one scaling: by rope_freqs.weight, by both rope_factors tensors, linear or yarn";
            return Err(keys.error(key, expected));
        }
        _ => return Err(keys.error(key, "none, linear, yarn or longrope")),
    })
}
