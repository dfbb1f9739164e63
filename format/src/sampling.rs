//! Sampling settings that a model's makers recommend.

use crate::error::FormatError;
use crate::limits::invalid;
use serde::{Deserialize, Serialize};

/// Sampling settings that a model's makers recommend; `None` where they say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Divisor of the logits; 0 always chooses the most likely token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Number of most likely tokens that are kept; 0 keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Sum of the probabilities of the most likely tokens that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Least probability of a kept token, as a part of the most likely one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Penalty for recent tokens; 1 changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f32>,
    /// Number of recent tokens that are penalised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_window: Option<usize>,
}

/// A setting that is a float: its name, its value, its range in words, and whether it is in range.
type Limit = (&'static str, Option<f32>, &'static str, bool);

impl Sampling {
    /// Checks that every setting is in its range.
    pub fn validate(&self) -> Result<(), FormatError> {
        match self.limits().into_iter().find(|(.., fits)| !fits) {
            Some((name, value, expected, _)) => {
                let found = value.expect("a setting that is not stated is in range");
                Err(invalid(format!("sampling.{name}"), found, expected))
            }
            None => Ok(()),
        }
    }

    fn limits(&self) -> [Limit; 4] {
        let limit = |name, value: Option<f32>, expected, fits: fn(f32) -> bool| {
            (name, value, expected, value.is_none_or(fits))
        };
        [
            limit("temperature", self.temperature, "0 or more", |t| t >= 0.0 && t.is_finite()),
            limit("top_p", self.top_p, "above 0, at most 1", |p| p > 0.0 && p <= 1.0),
            limit("min_p", self.min_p, "0 to 1", |p| (0.0..=1.0).contains(&p)),
            limit("repeat_penalty", self.repeat_penalty, "above 0", |p| p > 0.0 && p.is_finite()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let sound =
            Sampling { temperature: Some(0.0), top_p: Some(1.0), min_p: Some(0.0), ..Sampling::default() };
        sound.validate().unwrap();
        Sampling::default().validate().unwrap();
        for (name, spoiled) in [
            ("temperature is -1", Sampling { temperature: Some(-1.0), ..sound }),
            ("temperature is NaN", Sampling { temperature: Some(f32::NAN), ..sound }),
            ("top_p is 0", Sampling { top_p: Some(0.0), ..sound }),
            ("min_p is 1.5", Sampling { min_p: Some(1.5), ..sound }),
            ("repeat_penalty is 0", Sampling { repeat_penalty: Some(0.0), ..sound }),
        ] {
            let message = spoiled.validate().unwrap_err().to_string();
            assert!(message.contains(&format!("sampling.{name}")), "{message}");
        }
    }

    #[test]
    fn only_stated_settings_are_stored() {
        let sampling = Sampling { temperature: Some(0.6), top_k: Some(20), ..Sampling::default() };
        let json = serde_json::to_string(&sampling).unwrap();
        assert_eq!(json, r#"{"temperature":0.6,"top_k":20}"#);
        assert_eq!(serde_json::from_str::<Sampling>(&json).unwrap(), sampling);
    }
}
