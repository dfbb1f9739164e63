//! Typed access to the keys of a GGUF file.

use std::cell::RefCell;
use std::collections::BTreeSet;

use pith_format::ModelConfig;

use super::layers::attentions;
use crate::checkpoint::gguf::{FromGguf, GgufValue};
use crate::checkpoint::{Checkpoint, CheckpointError, GgufMetadata};

/// Far above any model's dimension, and small enough that products of a few cannot overflow.
const COUNT_LIMIT: u64 = 1 << 24;

/// The keys of one architecture.
pub(super) struct Keys<'a> {
    checkpoint: &'a Checkpoint,
    pub(super) metadata: &'a GgufMetadata,
    prefix: &'a str,
    /// The keys that were asked for, without the prefix.
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, metadata: &'a GgufMetadata, prefix: &'a str) -> Self {
        Self { checkpoint, metadata, prefix, read: RefCell::default() }
    }

    pub(super) fn get<T: FromGguf<'a>>(&self, key: &str) -> Result<Option<T>, CheckpointError> {
        self.read.borrow_mut().insert(key.into());
        self.metadata.get(&format!("{}.{key}", self.prefix))
    }

    /// The stored value. Does not count as reading the key.
    pub(super) fn value(&self, key: &str) -> Option<&'a GgufValue> {
        self.metadata.value(&format!("{}.{key}", self.prefix))
    }

    /// Whether a function asked for the key.
    pub(super) fn was_read(&self, key: &str) -> bool {
        self.read.borrow().contains(key)
    }

    pub(super) fn error(&self, key: &str, expected: impl Into<String>) -> CheckpointError {
        let key = format!("{}.{key}", self.prefix);
        let found = self.metadata.value(&key).map_or("missing".into(), ToString::to_string);
        let place = self.checkpoint.path().display().to_string();
        CheckpointError::Config { place, key, found, expected: expected.into() }
    }

    /// A dimension: 1 to 2²⁴. Writers use zero for a missing one.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        match self.get::<u64>(key)? {
            Some(count) if count > COUNT_LIMIT => {
                Err(self.error(key, format!("a whole number up to {COUNT_LIMIT}")))
            }
            count => Ok(count.filter(|&count| count > 0).map(|count| count as usize)),
        }
    }

    pub(super) fn required_count(&self, key: &str) -> Result<usize, CheckpointError> {
        self.count(key)?.ok_or_else(|| self.error(key, format!("a whole number from 1 to {COUNT_LIMIT}")))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.get(key)
    }

    pub(super) fn required_number(&self, key: &str) -> Result<f64, CheckpointError> {
        self.number(key)?.ok_or_else(|| self.error(key, "a number"))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.get(key)
    }

    /// Sets the file's window in the sliding layers: by the file's pattern, or by `default`.
    pub(super) fn set_windows(
        &self,
        model: &mut ModelConfig,
        default: impl Fn(usize) -> bool,
    ) -> Result<(), CheckpointError> {
        let Some(window) = self.count("attention.sliding_window")? else { return Ok(()) };
        let key = "attention.sliding_window_pattern";
        let layer_count = model.layers.len();
        let sliding: Vec<bool> = match (self.get::<Vec<bool>>(key), self.get::<u64>(key)) {
            (Ok(Some(flags)), _) if flags.len() == layer_count => flags,
            (_, Ok(Some(period))) if period > 0 => {
                (1..=layer_count as u64).map(|number: u64| !number.is_multiple_of(period)).collect()
            }
            (Ok(None), _) => (0..layer_count).map(default).collect(),
            _ => return Err(self.error(key, format!("a number or a list of {layer_count} flags"))),
        };
        for (attention, slides) in attentions(model).zip(sliding) {
            attention.window = slides.then_some(window);
        }
        Ok(())
    }

    /// Takes the attention scale from the file, where it has one.
    pub(super) fn set_attention_scale(&self, model: &mut ModelConfig) -> Result<(), CheckpointError> {
        if let Some(scale) = self.number("attention.scale")?.filter(|&scale| scale != 0.0) {
            attentions(model).for_each(|attention| attention.scale = scale as f32);
        }
        Ok(())
    }

    /// A tensor of divisors, one per frequency.
    pub(super) fn factors(&self, name: &str, count: usize) -> Result<Option<Vec<f64>>, CheckpointError> {
        let Some(tensor) = self.checkpoint.tensor(name) else { return Ok(None) };
        if tensor.elements() != count {
            let place = self.checkpoint.path().display().to_string();
            let found = format!("of shape {:?}", tensor.shape);
            let expected = format!("a list of {count}, one a frequency");
            return Err(CheckpointError::Config { place, key: name.into(), found, expected });
        }
        let values = self.checkpoint.load_f32(name)?;
        Ok(Some(values.into_iter().map(f64::from).collect()))
    }
}
