//! The object `quantization_config` of `config.json`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::CheckpointError;

/// An object of the configuration and its place in the file.
pub(super) struct Settings<'a> {
    path: PathBuf,
    /// Keys on the path to it, each followed by a dot.
    prefix: String,
    map: &'a Map<String, Value>,
}

impl<'a> Settings<'a> {
    /// `quantization_config`, or its first name in compressed-tensors; `None` where there is
    /// neither.
    pub(super) fn of(folder: &Path, config: &'a Value) -> Result<Option<Self>, CheckpointError> {
        let path = folder.join("config.json");
        let found = ["quantization_config", "compression_config"]
            .into_iter()
            .find_map(|key| config.get(key).filter(|value| !value.is_null()).map(|value| (key, value)));
        let Some((key, value)) = found else { return Ok(None) };
        match value.as_object() {
            Some(map) => Ok(Some(Self { path, prefix: format!("{key}."), map })),
            None => Err(CheckpointError::Quantization {
                path,
                key: key.into(),
                found: shortened(value),
                expected: "an object".into(),
            }),
        }
    }

    pub(super) fn error(&self, key: &str, expected: &str) -> CheckpointError {
        CheckpointError::Quantization {
            path: self.path.clone(),
            key: format!("{}{key}", self.prefix),
            found: self.map.get(key).map_or("missing".into(), shortened),
            expected: expected.into(),
        }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.error(key, "a string"));
        self.get(key).map(text).transpose()
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, CheckpointError> {
        let flag = |value: &'a Value| value.as_bool().ok_or_else(|| self.error(key, "true or false"));
        self.get(key).map_or(Ok(false), flag)
    }

    /// Columns of a group; `None` where one scale serves a whole row, which is stored as −1.
    pub(super) fn group_size(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_i64() {
            Some(-1) => Ok(None),
            Some(size @ 1..=0x100_0000) => Ok(Some(size as usize)),
            _ => Err(self.error(key, "-1 or a number of columns from 1 to 16777216")),
        }
    }

    /// Bits of a code, one of `allowed`.
    pub(super) fn bits(&self, key: &str, allowed: &[u32]) -> Result<u32, CheckpointError> {
        let found = self.get(key).and_then(Value::as_u64);
        allowed.iter().copied().find(|&bits| found == Some(bits.into())).ok_or_else(|| {
            let names: Vec<_> = allowed.iter().map(u32::to_string).collect();
            self.error(key, &format!("one of {} bits", names.join(", ")))
        })
    }

    /// A nested object.
    pub(super) fn object(&self, key: &str) -> Result<Option<Settings<'a>>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.error(key, "an object"))?;
        Ok(Some(Settings { path: self.path.clone(), prefix: format!("{}{key}.", self.prefix), map }))
    }

    /// All keys of the object.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    /// Whether `key` is missing, null, or an empty object or list.
    pub(super) fn is_empty(&self, key: &str) -> bool {
        match self.get(key) {
            None => true,
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(values)) => values.is_empty(),
            Some(_) => false,
        }
    }
}

fn shortened(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".into(),
        Value::Array(values) => format!("a list of {}", values.len()),
        other => {
            let text = other.to_string();
            if text.chars().count() <= 80 {
                text
            } else {
                text.chars().take(80).chain("…".chars()).collect()
            }
        }
    }
}
