//! Typed access to `config.json`.

use std::cell::RefCell;
use std::collections::BTreeSet;

use pith_format::ActivationFunction;
use serde_json::Value;

use crate::checkpoint::CheckpointError;

/// Far above any model's dimension, and small enough that products of a few cannot overflow.
const COUNT_LIMIT: u64 = 1 << 24;

/// An object of a configuration and its place in the file.
#[derive(Clone, Debug)]
pub(super) struct Config<'a> {
    place: String,
    value: &'a Value,
    /// The keys that were asked for.
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Config<'a> {
    pub(super) fn new(place: String, value: &'a Value) -> Self {
        Self { place, value, read: RefCell::default() }
    }

    pub(super) fn error(&self, key: &str, expected: impl Into<String>) -> CheckpointError {
        let found = match self.value.get(key) {
            None => "missing".into(),
            Some(Value::Array(values)) => format!("a list of {}", values.len()),
            Some(Value::Object(_)) => "an object".into(),
            Some(value) => shortened(value.to_string()),
        };
        CheckpointError::Config {
            place: self.place.clone(),
            key: key.into(),
            found,
            expected: expected.into(),
        }
    }

    /// The first of `keys` that is present and not null.
    fn find<'k>(&self, keys: &[&'k str]) -> Option<(&'k str, &'a Value)> {
        self.read.borrow_mut().extend(keys.iter().map(ToString::to_string));
        keys.iter()
            .find_map(|&key| self.value.get(key).filter(|value| !value.is_null()).map(|value| (key, value)))
    }

    /// Whether the key is present, even as null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.read.borrow_mut().insert(key.into());
        self.value.get(key).is_some()
    }

    /// The stored value. Does not count as reading the key.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key)
    }

    /// Whether a function asked for the key.
    pub(super) fn was_read(&self, key: &str) -> bool {
        self.read.borrow().contains(key)
    }

    /// A dimension: 1 to 2²⁴, under the first of `keys` that is present. Others may repeat it.
    pub(super) fn count(&self, keys: &[&str]) -> Result<Option<usize>, CheckpointError> {
        let Some((key, value)) = self.find(keys) else { return Ok(None) };
        let differs = |other: &&&str| self.value.get(**other).is_some_and(|v| !v.is_null() && v != value);
        if let Some(other) = keys.iter().find(differs) {
            return Err(self.error(other, format!("{value}, as {key} says")));
        }
        match value.as_u64() {
            Some(count @ 1..=COUNT_LIMIT) => Ok(Some(count as usize)),
            _ => Err(self.error(key, format!("a whole number from 1 to {COUNT_LIMIT}"))),
        }
    }

    /// A required dimension.
    pub(super) fn required_count(&self, keys: &[&str]) -> Result<usize, CheckpointError> {
        self.count(keys)?.ok_or_else(|| self.error(keys[0], "a whole number"))
    }

    pub(super) fn number(&self, keys: &[&str]) -> Result<Option<f64>, CheckpointError> {
        let Some((key, value)) = self.find(keys) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.error(key, "a number"))
    }

    /// A required number.
    pub(super) fn required_number(&self, key: &str) -> Result<f64, CheckpointError> {
        self.number(&[key])?.ok_or_else(|| self.error(key, "a number"))
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, CheckpointError> {
        let Some((key, value)) = self.find(&[key]) else { return Ok(None) };
        let numbers = value.as_array().and_then(|all| all.iter().map(Value::as_f64).collect());
        numbers.map(Some).ok_or_else(|| self.error(key, "a list of numbers"))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, CheckpointError> {
        let Some((key, value)) = self.find(&[key]) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.error(key, "true or false"))
    }

    pub(super) fn text(&self, keys: &[&str]) -> Result<Option<&'a str>, CheckpointError> {
        let Some((key, value)) = self.find(keys) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.error(key, "a string"))
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, CheckpointError> {
        let Some((key, value)) = self.find(&[key]) else { return Ok(None) };
        let texts = value.as_array().and_then(|all| all.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.error(key, "a list of strings"))
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Config<'a>>, CheckpointError> {
        let Some((key, value)) = self.find(&[key]) else { return Ok(None) };
        if !value.is_object() {
            return Err(self.error(key, "an object"));
        }
        Ok(Some(Config::new(format!("{}: {key}", self.place), value)))
    }

    /// Token ids: one number or a list.
    pub(super) fn tokens(&self, key: &str) -> Result<Vec<u32>, CheckpointError> {
        let Some((key, value)) = self.find(&[key]) else { return Ok(Vec::new()) };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(all) => all.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.error(key, "a token id or a list of them"))
    }

    /// The activation function, by its name in `transformers`.
    pub(super) fn activation(
        &self,
        keys: &[&str],
        default: ActivationFunction,
    ) -> Result<ActivationFunction, CheckpointError> {
        let Some((key, _)) = self.find(keys) else { return Ok(default) };
        Ok(match self.text(&[key])?.unwrap_or_default() {
            "silu" | "swish" => ActivationFunction::Silu,
            "gelu" | "gelu_python" => ActivationFunction::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => {
                ActivationFunction::GeluTanh
            }
            _ => return Err(self.error(key, "silu, gelu, gelu_new or gelu_pytorch_tanh")),
        })
    }
}

/// Shortens a value for a message.
fn shortened(text: String) -> String {
    if text.chars().count() <= 80 { text } else { text.chars().take(80).chain("…".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wrong_values_are_named() {
        let value = json!({"a": -1, "b": "x", "c": {"d": [1, "x"]}, "e": 0, "act": "relu"});
        let config = Config::new("config.json".into(), &value);
        let message = |error: CheckpointError| error.to_string();
        assert!(message(config.count(&["a"]).unwrap_err()).contains("a is -1, expected a whole number"));
        assert!(config.count(&["e"]).is_err());
        assert!(message(config.number(&["b"]).unwrap_err()).contains("b is \"x\", expected a number"));
        assert!(message(config.required_count(&["z", "y"]).unwrap_err()).contains("z is missing"));
        let inner = config.object("c").unwrap().unwrap();
        assert!(message(inner.numbers("d").unwrap_err()).starts_with("config.json: c: d is a list of 2"));
        let activation = config.activation(&["act"], ActivationFunction::Silu).unwrap_err();
        assert!(message(activation).contains("act is \"relu\", expected silu"));
    }

    #[test]
    fn null_is_absent_and_the_first_key_wins() {
        let value = json!({"a": null, "b": 3, "c": 3, "d": 4, "eos": [1, 2], "bos": 7});
        let config = Config::new("config.json".into(), &value);
        assert_eq!(config.count(&["a", "b", "c"]).unwrap(), Some(3));
        let error = config.count(&["a", "b", "c", "d"]).unwrap_err().to_string();
        assert!(error.contains("d is 4, expected 3, as b says"), "{error}");
        assert!(config.has("a") && config.number(&["a"]).unwrap().is_none());
        assert_eq!(config.tokens("eos").unwrap(), [1, 2]);
        assert_eq!(config.tokens("bos").unwrap(), [7]);
        assert!(config.tokens("none").unwrap().is_empty());
    }
}
