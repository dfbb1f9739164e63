//! Reconstructs the original checkpoint of a file's model: names by the family's table, and a
//! `config.json`.

use pith_format::{ActivationFunction, Kind, Layer, ModelConfig, RopeTable, TensorId};
use serde_json::{Map, Value, json};

use super::binding::{Binding, file_order};
use super::config::Config;
use super::family::{Family, ROTARY};
use super::rope::{self, Scaling};
use super::rule::{Presence, Rule};
use super::{FAMILIES, huggingface};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::SourceType;

/// Families whose configuration follows from the model.
const RECONSTRUCTED: &[&str] = &["llama", "mistral", "qwen2", "qwen3", "smollm3"];

/// The Hugging Face tensor of every tensor of the file. `has` tells which tensors the file holds.
pub(crate) fn original_bindings(
    model: &ModelConfig,
    has: impl Fn(TensorId) -> bool,
) -> Result<Vec<Binding>, CheckpointError> {
    let family = family(model)?;
    let mut bindings = Vec::new();
    for id in file_order(model.layers.len()).filter(|&id| id.role.kind() != Kind::Bytes && has(id)) {
        let Some(rule) = rules(family).find(|rule| rule.role == id.role) else { continue };
        let shape = id.shape(model);
        let (rows, cols) = shape.expect("a table has roles with shapes only");
        bindings.push(Binding {
            id,
            tensor: rule.source_name(id.layer),
            dtype: SourceType::F32,
            rows,
            cols,
            row_map: rule.row_map(model, id).1,
            transposed: rule.transposed,
            offset: rule.offset,
            stored_bytes: 0,
            survey: None,
        });
    }
    Ok(bindings)
}

/// A `config.json` that is read back as this model.
pub(crate) fn original_config(
    model: &ModelConfig,
    has: impl Fn(TensorId) -> bool,
) -> Result<Value, CheckpointError> {
    let family = family(model)?;
    if !RECONSTRUCTED.contains(&family.name) {
        let known = RECONSTRUCTED.join(", ");
        return Err(unknown(model, format!("configurations are put together for {known}")));
    }
    let first = model.layers.first().and_then(|layer| Some((layer.attention()?, layer.dense()?)));
    let Some((attention, dense)) = first else {
        return Err(unknown(model, "its first layer lacks attention or a feed-forward block".into()));
    };
    let all = || model.layers.iter().map(Layer::attention);
    let windows: Vec<_> = all().map(|attention| attention.and_then(|attention| attention.window)).collect();
    let window = windows.iter().flatten().next();
    let mut config = json!({
        "architectures": [family.classes[0]],
        "model_type": family.model_types[0],
        "vocab_size": model.vocab_len,
        "hidden_size": model.hidden_len,
        "intermediate_size": dense.len,
        "num_hidden_layers": model.layers.len(),
        "num_attention_heads": attention.heads(),
        "num_key_value_heads": attention.kv_heads(),
        "head_dim": attention.head_dim,
        "max_position_embeddings": model.context_len,
        "rms_norm_eps": shortest(model.norm_epsilon),
        "hidden_act": match dense.activation {
            ActivationFunction::Silu => "silu",
            ActivationFunction::Gelu => "gelu",
            ActivationFunction::GeluTanh => "gelu_pytorch_tanh",
        },
        "tie_word_embeddings": model.tied_head,
        "rope_theta": rope_base(model)?,
        "bos_token_id": model.bos,
        "eos_token_id": match model.eos.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            all => json!(all),
        },
        "sliding_window": window,
        "use_sliding_window": window.is_some(),
    });
    let map = config.as_object_mut().expect("made as an object");
    set_flags(family, map, &has);
    if window.is_some() && family.name != "mistral" {
        let kind =
            |window: &Option<usize>| if window.is_some() { "sliding_attention" } else { "full_attention" };
        map.insert("layer_types".into(), windows.iter().map(kind).collect());
        map.insert("max_window_layers".into(), json!(0));
    }
    if family.name == "smollm3" {
        let turned =
            all().map(|attention| u8::from(attention.is_some_and(|attention| attention.rope.is_some())));
        map.insert("no_rope_layers".into(), turned.collect());
    }
    check(family, &config, model)?;
    Ok(config)
}

/// Sets the flags of optional tensors.
fn set_flags(family: &'static Family, map: &mut Map<String, Value>, has: &impl Fn(TensorId) -> bool) {
    for rule in rules(family) {
        if let Presence::Flag(key, _) = rule.presence {
            let set = map.get(key).is_some_and(|value| value == true);
            map.insert(key.into(), json!(set || has(TensorId::layer(rule.role, 0))));
        }
    }
}

/// Reads the configuration back and compares it with the model.
fn check(family: &Family, config: &Value, model: &ModelConfig) -> Result<(), CheckpointError> {
    let read = Config::new("config.json".into(), config);
    let translation = huggingface::translate(family, &read, None, model.vocab_len)?;
    let mut found = translation.model;
    found.name.clone_from(&model.name);
    if found == *model {
        return Ok(());
    }
    Err(unknown(model, "its layers or frequencies are not those of a plain model".into()))
}

/// The base of unscaled frequencies.
fn rope_base(model: &ModelConfig) -> Result<f64, CheckpointError> {
    let plain = |table: &RopeTable, base: f64| rope::table(base, table.dim, &Scaling::None) == *table;
    let Some(table) = model.rope.first() else { return Ok(ROTARY.base) };
    let measured = match table.inv_freq.get(1) {
        Some(&second) => f64::from(second).powf(-(table.dim as f64) / 2.0),
        None => ROTARY.base,
    };
    // Bases are round numbers; the frequencies give seven digits of them.
    let digits = 10f64.powf(measured.log10().floor() - 5.0);
    [(measured / digits).round() * digits, measured.round(), measured]
        .into_iter()
        .find(|&base| plain(table, base))
        .ok_or_else(|| unknown(model, "its rotary frequencies are scaled".into()))
}

fn rules(family: &'static Family) -> impl Iterator<Item = &'static Rule> {
    family.tensors.iter().flat_map(|rules| rules.iter())
}

fn family(model: &ModelConfig) -> Result<&'static Family, CheckpointError> {
    let found = FAMILIES.iter().copied().find(|family| family.name == model.family);
    found.ok_or_else(|| unknown(model, "this version has no table of the family".into()))
}

/// The shortest decimal number for `value`.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().expect("a number as it is printed")
}

fn unknown(model: &ModelConfig, reason: String) -> CheckpointError {
    CheckpointError::NoOriginal { family: model.family.clone(), reason }
}
