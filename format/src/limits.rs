//! Checks of the configuration's numbers, so that later arithmetic on them cannot overflow.

use crate::error::FormatError;

/// Largest dimension.
pub(crate) const MAX_LEN: usize = 1 << 24;

pub(crate) fn invalid(
    field: impl Into<String>,
    found: impl ToString,
    expected: impl ToString,
) -> FormatError {
    FormatError::ConfigValue { field: field.into(), found: found.to_string(), expected: expected.to_string() }
}

pub(crate) fn within(field: &str, value: usize, low: usize, high: usize) -> Result<(), FormatError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(invalid(field, value, format!("{low} to {high}")))
    }
}

pub(crate) fn positive(field: &str, value: Option<f32>) -> Result<(), FormatError> {
    match value {
        Some(value) if !(value.is_finite() && value > 0.0) => {
            Err(invalid(field, value, "a finite number above 0"))
        }
        _ => Ok(()),
    }
}
