//! Translates `config.json` to a [`ModelConfig`]: the part that all families share.

use pith_format::{ModelConfig, RopeTable};

use super::config::Config;
use super::family::{Family, Rotary, Translation};
use super::layers::Dimensions;
use super::rope::{self, Scaling};
use super::stray::stray_keys;
use super::windows::{FULL, SLIDING};
use crate::checkpoint::CheckpointError;

/// The largest number of layers in a file. Checked here because each layer takes memory before the
/// file's own check.
const LAYER_LIMIT: usize = 1 << 12;
const ROPE_TYPES: &str = "default, linear, dynamic, llama3, yarn or longrope";

/// Sets dimensions, norms, activations, tokens and one rotary table for all layers, then calls the
/// family's own function.
pub(super) fn translate(
    family: &Family,
    config: &Config<'_>,
    generation: Option<&Config<'_>>,
    vocab_len: usize,
) -> Result<Translation, CheckpointError> {
    refuse_variants(config)?;
    let hidden_len = config.required_count(&["hidden_size", "n_embd"])?;
    let heads = config.required_count(&["num_attention_heads", "n_head"])?;
    let kv_heads = config.count(&["num_key_value_heads"])?.unwrap_or(heads);
    let layer_count = config.required_count(&["num_hidden_layers", "n_layer"])?;
    if layer_count > LAYER_LIMIT {
        return Err(config.error("num_hidden_layers", format!("at most {LAYER_LIMIT}")));
    }
    let head_dim = head_dim(family, config, hidden_len, heads)?;
    let dimensions = Dimensions {
        heads,
        kv_heads,
        head_dim,
        inner_len: match config.count(&["intermediate_size", "n_inner"])? {
            Some(inner_len) => inner_len,
            None if config.has("n_embd") => 4 * hidden_len,
            None => return Err(config.error("intermediate_size", "a whole number")),
        },
        activation: config
            .activation(&["hidden_activation", "hidden_act", "activation_function"], family.activation)?,
    };
    let layer = dimensions.layer(family.tensors, family.rope.is_some());
    let layer = layer.map_err(|expected| config.error("num_key_value_heads", expected))?;
    let epsilon = config.number(&["rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"])?;
    let model = ModelConfig {
        name: String::new(),
        family: family.name.into(),
        vocab_len: config.count(&["vocab_size"])?.unwrap_or(vocab_len),
        hidden_len,
        context_len: config.required_count(&["max_position_embeddings", "n_positions"])?,
        norm: family.norm,
        norm_epsilon: epsilon.unwrap_or(family.norm_epsilon) as f32,
        embedding_scale: 1.0,
        tied_head: config.flag("tie_word_embeddings", family.tied)?,
        logit_softcap: None,
        bos: None,
        eos: Vec::new(),
        rope: Vec::new(),
        layers: vec![layer; layer_count],
    };
    let mut translation = Translation { model, warnings: Vec::new() };
    if let Some(rotary) = family.rope {
        let keys = ["rope_theta", "rotary_emb_base"];
        let table = rope_table(config, FULL, &keys, rotary, head_dim, &mut translation.warnings)?;
        translation.model.rope.push(table);
    }
    let mut bos = config.tokens("bos_token_id")?;
    let mut eos = config.tokens("eos_token_id")?;
    if let Some(generation) = generation {
        bos.extend(generation.tokens("bos_token_id")?);
        eos.extend(generation.tokens("eos_token_id")?);
    }
    translation.set_tokens(bos, eos);
    (family.huggingface)(config, &mut translation)?;
    translation.warnings.extend(stray_keys(config, family.name));
    Ok(translation)
}

/// The width of a head: the key's, else the family's, else a part of the hidden size.
fn head_dim(
    family: &Family,
    config: &Config<'_>,
    hidden_len: usize,
    heads: usize,
) -> Result<usize, CheckpointError> {
    match config.count(&["head_dim"])?.or(family.head_dim) {
        Some(head_dim) => Ok(head_dim),
        None if hidden_len.is_multiple_of(heads) => Ok(hidden_len / heads),
        None => {
            let key = if config.has("n_head") { "n_head" } else { "num_attention_heads" };
            Err(config.error(key, format!("a divisor of the hidden size, {hidden_len}, without head_dim")))
        }
    }
}

/// Refuses other models under a family's name.
fn refuse_variants(config: &Config<'_>) -> Result<(), CheckpointError> {
    for key in ["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"] {
        if config.number(&[key])?.is_some_and(|experts| experts > 0.0) {
            return Err(config.error(key, "none: mixtures of experts are not supported"));
        }
    }
    for key in ["use_bidirectional_attention", "add_cross_attention", "is_encoder_decoder", "lm_head_bias"] {
        if config.flag(key, false)? {
            return Err(config.error(key, "false"));
        }
    }
    Ok(())
}

/// The rotary table of one kind of layer. `base_keys`: keys of the base where the scaling's object
/// does not hold it.
pub(super) fn rope_table(
    config: &Config<'_>,
    layer_type: &str,
    base_keys: &[&str],
    default: Rotary,
    head_dim: usize,
    warnings: &mut Vec<String>,
) -> Result<RopeTable, CheckpointError> {
    // transformers 5 has `rope_parameters`, nested by kind of layer where kinds differ; 4 has
    // `rope_scaling`.
    let settings = match config.object("rope_parameters")? {
        Some(all) if all.has(FULL) || all.has(SLIDING) => all.object(layer_type)?,
        Some(one) => Some(one),
        None if layer_type == FULL => config.object("rope_scaling")?,
        None => None,
    };
    let within = |keys: &[&str]| settings.as_ref().map_or(Ok(None), |settings| settings.number(keys));
    let base = match within(&["rope_theta"])? {
        Some(base) => base,
        None => config.number(base_keys)?.unwrap_or(default.base),
    };
    let part = match within(&["partial_rotary_factor"])? {
        Some(part) => part,
        None => config.number(&["partial_rotary_factor", "rotary_pct"])?.unwrap_or(default.part),
    };
    let dim = (head_dim as f64 * part) as usize;
    if dim == 0 || part > 1.0 {
        return Err(config.error("partial_rotary_factor", "a part of a head, from 1 dimension to all"));
    }
    let scaling = match &settings {
        Some(settings) => scaling(config, settings, dim, warnings)?,
        None => Scaling::None,
    };
    Ok(rope::table(base, dim, &scaling))
}

fn scaling(
    config: &Config<'_>,
    settings: &Config<'_>,
    dim: usize,
    warnings: &mut Vec<String>,
) -> Result<Scaling, CheckpointError> {
    let context_len = config.required_count(&["max_position_embeddings", "n_positions"])?;
    let key = "original_max_position_embeddings";
    let original = match config.count(&[key])? {
        Some(original) => original,
        None => settings.count(&[key])?.unwrap_or(context_len),
    };
    let grown = context_len as f64 / original as f64;
    let named = settings.text(&["rope_type", "type"])?.unwrap_or("default");
    // Phi-3's first configurations say "su", or "yarn" for LongRoPE.
    let named =
        if named == "su" || (named == "yarn" && settings.has("short_factor")) { "longrope" } else { named };
    Ok(match named {
        "default" => Scaling::None,
        "dynamic" => {
            warnings.push(format!(
                "dynamic rope scaling changes nothing up to {context_len} tokens, the file's context length"
            ));
            Scaling::None
        }
        "linear" => Scaling::Linear { factor: settings.required_number("factor")? },
        "llama3" => Scaling::Llama3 {
            factor: settings.required_number("factor")?,
            low: settings.required_number("low_freq_factor")?,
            high: settings.required_number("high_freq_factor")?,
            original: original as f64,
        },
        "yarn" => {
            let factor = settings.number(&["factor"])?.unwrap_or(grown);
            let weights = [settings.number(&["mscale"])?, settings.number(&["mscale_all_dim"])?];
            let magnitude = match (settings.number(&["attention_factor"])?, weights) {
                (Some(magnitude), _) => magnitude,
                (None, [Some(one), Some(all)]) if one != 0.0 && all != 0.0 => {
                    rope::yarn_magnitude(factor, one) / rope::yarn_magnitude(factor, all)
                }
                _ => rope::yarn_magnitude(factor, 1.0),
            };
            Scaling::Yarn {
                factor,
                original: original as f64,
                beta_fast: settings.number(&["beta_fast"])?.filter(|&beta| beta != 0.0).unwrap_or(32.0),
                beta_slow: settings.number(&["beta_slow"])?.filter(|&beta| beta != 0.0).unwrap_or(1.0),
                truncate: settings.flag("truncate", true)?,
                magnitude,
            }
        }
        "longrope" => {
            let factor = settings.number(&["factor"])?.unwrap_or(grown);
            let factors = |key: &str| match settings.numbers(key)? {
                Some(factors) if factors.len() == dim.div_ceil(2) => Ok(factors),
                _ => Err(settings.error(key, format!("a list of {}, one a frequency", dim.div_ceil(2)))),
            };
            Scaling::Long {
                short: factors("short_factor")?,
                long: factors("long_factor")?,
                original,
                magnitude: settings
                    .number(&["attention_factor"])?
                    .unwrap_or_else(|| rope::long_magnitude(factor, original as f64)),
            }
        }
        _ => {
            let key = if settings.has("rope_type") { "rope_type" } else { "type" };
            return Err(settings.error(key, ROPE_TYPES));
        }
    })
}
