//! Rotary embeddings.

use crate::error::FormatError;
use crate::limits::{MAX_LEN, invalid, positive, within};
use serde::{Deserialize, Serialize};

/// Frequencies of a rotary embedding, scaling already applied.
///
/// Dimension `i` of a head turns with dimension `i + dim/2` by the angle `position · inv_freq[i]`;
/// dimensions from `dim` on are unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeTable {
    /// Rotated dimensions of a head; even.
    pub dim: usize,
    /// `dim / 2` radians per position.
    pub inv_freq: Vec<f32>,
    /// Factor of sine and cosine.
    pub magnitude: f32,
    /// Frequencies for sessions longer than `long_from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_inv_freq: Option<Vec<f32>>,
    /// Longest context, in tokens, for `inv_freq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_from: Option<usize>,
}

impl RopeTable {
    pub(crate) fn validate(&self, index: usize) -> Result<(), FormatError> {
        let place = |field: &str| format!("rope[{index}].{field}");
        within(&place("dim"), self.dim, 2, MAX_LEN)?;
        if !self.dim.is_multiple_of(2) {
            return Err(invalid(place("dim"), self.dim, "an even number"));
        }
        positive(&place("magnitude"), Some(self.magnitude))?;
        if self.long_inv_freq.is_some() != self.long_from.is_some() {
            return Err(invalid(
                place("long_from"),
                format!("{:?}", self.long_from),
                "set with long_inv_freq, or neither",
            ));
        }
        for table in std::iter::once(&self.inv_freq).chain(&self.long_inv_freq) {
            if table.len() != self.dim / 2 || !table.iter().all(|value| value.is_finite()) {
                return Err(invalid(
                    place("inv_freq"),
                    format!("{} values", table.len()),
                    format!("{} finite values", self.dim / 2),
                ));
            }
        }
        Ok(())
    }
}
