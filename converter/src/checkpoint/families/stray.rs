//! Keys of mechanisms that the family does not have. A model with one of them would be another
//! model, so they are not passed over in silence.

use serde_json::{Value, json};

use super::config::Config;
use super::keys::Keys;
use crate::checkpoint::gguf::GgufValue;

/// Keys of `config.json` that change the forward pass, with the value that changes nothing.
const KEYS: &[(&str, Neutral)] = &[
    ("alibi", Neutral::False),
    ("attention_chunk_size", Neutral::Null),
    ("attention_multiplier", Neutral::Null),
    ("attn_logit_softcapping", Neutral::Null),
    ("clip_qkv", Neutral::Null),
    ("embedding_multiplier", Neutral::One),
    ("final_logit_softcapping", Neutral::Null),
    ("logit_scale", Neutral::One),
    ("logits_scaling", Neutral::One),
    ("no_rope_layers", Neutral::Null),
    ("parallel_attn", Neutral::False),
    ("qk_layernorm", Neutral::False),
    ("query_pre_attn_scalar", Neutral::Null),
    ("residual_multiplier", Neutral::One),
    ("rope_local_base_freq", Neutral::Null),
    ("scale_attn_by_inverse_layer_idx", Neutral::False),
    ("scale_depth", Neutral::Null),
    ("scale_emb", Neutral::One),
    ("sliding_window", Neutral::Null),
    ("use_parallel_residual", Neutral::False),
    ("use_qk_norm", Neutral::False),
];

/// Keys of GGUF, without the architecture, that change the forward pass. Zero changes nothing.
const GGUF_KEYS: &[(&str, Neutral)] = &[
    ("attention.clamp_kqv", Neutral::Null),
    ("attention.max_alibi_bias", Neutral::Null),
    ("attention.sliding_window", Neutral::Null),
    ("attn_logit_softcapping", Neutral::Null),
    ("embedding_scale", Neutral::One),
    ("final_logit_softcapping", Neutral::Null),
    ("logit_scale", Neutral::One),
    ("residual_scale", Neutral::One),
    ("rope.freq_base_swa", Neutral::Null),
    ("use_parallel_residual", Neutral::False),
];

/// The value with which a mechanism changes nothing; null always does.
#[derive(Clone, Copy, PartialEq)]
enum Neutral {
    Null,
    False,
    One,
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::False => value.is_null() || *value == json!(false),
            Self::One => value.is_null() || value.as_f64() == Some(1.0),
        }
    }
}

/// A warning for each such key of `config.json` that nothing has read.
pub(super) fn stray_keys(config: &Config<'_>, family: &str) -> Vec<String> {
    let window_is_off = config.value("use_sliding_window") == Some(&Value::Bool(false));
    let is_off = |key: &str| key == "sliding_window" && window_is_off;
    let unread = KEYS.iter().filter(|(key, _)| !config.was_read(key) && !is_off(key));
    let stray = unread.filter_map(|&(key, neutral)| {
        let value = config.value(key).filter(|value| !neutral.is(value))?;
        Some(warning(key, value, family))
    });
    stray.collect()
}

/// A warning for each such key of a GGUF file that nothing has read.
pub(super) fn stray_gguf_keys(keys: &Keys<'_>, family: &str) -> Vec<String> {
    let unread = GGUF_KEYS.iter().filter(|(key, _)| !keys.was_read(key));
    let stray = unread.filter_map(|&(key, neutral)| {
        let value = keys.value(key).filter(|value| !is_neutral(neutral, value))?;
        Some(warning(key, value, family))
    });
    stray.collect()
}

fn is_neutral(neutral: Neutral, value: &GgufValue) -> bool {
    let number = match *value {
        GgufValue::Bool(flag) => f64::from(u8::from(flag)),
        GgufValue::F32(number) => f64::from(number),
        GgufValue::F64(number) => number,
        GgufValue::U32(number) => f64::from(number),
        GgufValue::I32(number) => f64::from(number),
        _ => return false,
    };
    number == 0.0 || (neutral == Neutral::One && number == 1.0)
}

fn warning(key: &str, value: impl std::fmt::Display, family: &str) -> String {
    format!("{key} is {value}, but models of the family {family} have no such mechanism: it is ignored")
}
