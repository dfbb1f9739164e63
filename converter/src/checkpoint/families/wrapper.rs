//! Language models inside wrappers: of models of text and images, of compiled models, of adapters.

use serde_json::{Map, Value};

use super::FAMILIES;

/// What the names of a model's tensors begin with, and what they begin with in the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrapper {
    inner: &'static str,
    outer: &'static str,
}

/// The known wrappers; the first changes nothing.
pub(super) const WRAPPERS: &[Wrapper] = &[
    Wrapper { inner: "", outer: "" },
    // Models of text and images, as transformers 5 and 4 write them.
    Wrapper { inner: "model.", outer: "model.language_model." },
    Wrapper { inner: "", outer: "language_model." },
    // torch.compile, PEFT, torch's data parallelism.
    Wrapper { inner: "", outer: "_orig_mod." },
    Wrapper { inner: "", outer: "base_model.model." },
    Wrapper { inner: "", outer: "module." },
];

/// What the names of tensors begin with that see or hear, in models of more than text.
const SENSES: &[&str] =
    &["vision_tower.", "vision_model.", "visual.", "audio_tower.", "multi_modal_projector.", "embed_vision."];

impl Wrapper {
    /// The name in the checkpoint.
    pub(super) fn wrapped(self, name: &str) -> String {
        match name.strip_prefix(self.inner) {
            Some(rest) => format!("{}{rest}", self.outer),
            None => name.to_string(),
        }
    }
}

/// Whether the tensor belongs to the part of a model that sees or hears.
pub(super) fn is_of_senses(name: &str) -> bool {
    let name = name.strip_prefix("model.").unwrap_or(name);
    SENSES.iter().any(|prefix| name.starts_with(prefix))
}

/// The configuration of the language model within that of a model of more than text: its
/// `text_config`, with the family's defaults, and with the tokens and flags that stand outside of
/// it. `None` where `config` has no such part.
pub(crate) fn text_config(config: &Value) -> Option<Value> {
    let text = config.get("text_config")?.as_object()?;
    let model_type = text.get("model_type").and_then(Value::as_str);
    let family =
        FAMILIES.iter().find(|family| model_type.is_some_and(|name| family.model_types.contains(&name)));
    let defaults = family.map_or(&[][..], |family| family.text_defaults);
    let mut inner: Map<String, Value> =
        defaults.iter().map(|&(key, value)| (key.into(), value.into())).collect();
    inner.extend(text.clone());
    for key in ["bos_token_id", "eos_token_id", "tie_word_embeddings"] {
        let outer = config.get(key).filter(|value| !value.is_null());
        // Lists of tokens that end a reply stand outside.
        if let Some(outer) = outer.filter(|_| key == "eos_token_id" || !inner.contains_key(key)) {
            inner.insert(key.into(), outer.clone());
        }
    }
    Some(Value::Object(inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_wrapped() {
        let wrapped = |index: usize, name: &str| WRAPPERS[index].wrapped(name);
        assert_eq!(wrapped(0, "model.norm.weight"), "model.norm.weight");
        assert_eq!(wrapped(1, "model.norm.weight"), "model.language_model.norm.weight");
        assert_eq!(wrapped(1, "lm_head.weight"), "lm_head.weight");
        assert_eq!(wrapped(2, "lm_head.weight"), "language_model.lm_head.weight");
        assert_eq!(wrapped(4, "model.norm.weight"), "base_model.model.model.norm.weight");
        assert!(is_of_senses("model.vision_tower.x") && is_of_senses("multi_modal_projector.x"));
        assert!(!is_of_senses("model.layers.0.visual.weight"));
    }

    #[test]
    fn the_inner_configuration_is_completed() {
        let config = json!({"model_type": "gemma3", "eos_token_id": [1, 106], "tie_word_embeddings": false,
            "text_config": {"model_type": "gemma3_text", "hidden_size": 64, "num_attention_heads": 2, "eos_token_id": 1}});
        let inner = text_config(&config).unwrap();
        assert_eq!(inner["hidden_size"], 64);
        assert_eq!((&inner["num_attention_heads"], &inner["num_key_value_heads"]), (&json!(2), &json!(4)));
        assert_eq!(
            (&inner["eos_token_id"], &inner["tie_word_embeddings"]),
            (&json!([1, 106]), &json!(false))
        );
        assert!(text_config(&json!({"model_type": "llama"})).is_none());
    }
}
