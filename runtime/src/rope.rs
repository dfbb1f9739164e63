//! Sine and cosine for the positions of a call.

use crate::error::RuntimeError;
use crate::memory::{product, zeros};
use pith_format::RopeTable;

/// A rotary table and the angles of a call's tokens.
pub(crate) struct Rotation {
    inv_freq: Vec<f32>,
    magnitude: f32,
    /// `tokens × dim/2`.
    cos: Vec<f32>,
    /// `tokens × dim/2`.
    sin: Vec<f32>,
}

/// Chooses the table's frequencies by the session's context, as llama.cpp does. They cannot change
/// later: earlier keys are already cached.
pub(crate) fn frequencies(table: &RopeTable, context_len: usize) -> &[f32] {
    let long = table.long_from.is_some_and(|long_from| context_len > long_from);
    table.long_inv_freq.as_ref().filter(|_| long).unwrap_or(&table.inv_freq)
}

impl Rotation {
    /// Buffers for the angles of `max_tokens`, with the frequencies for that context.
    pub fn new(table: &RopeTable, context_len: usize, max_tokens: usize) -> Result<Self, RuntimeError> {
        let inv_freq = frequencies(table, context_len).to_vec();
        let count = product(&[max_tokens, inv_freq.len()]).unwrap_or(usize::MAX);
        let what = "the table of positions";
        Ok(Self { inv_freq, magnitude: table.magnitude, cos: zeros(what, count)?, sin: zeros(what, count)? })
    }

    /// Bytes of [`Rotation::new`]; `None` on overflow.
    pub fn bytes(table: &RopeTable, max_tokens: usize) -> Option<usize> {
        let angles = product(&[2, max_tokens, table.inv_freq.len()])?;
        angles.checked_add(table.inv_freq.len())?.checked_mul(size_of::<f32>())
    }

    /// Computes the angles of positions `first .. first + tokens`.
    ///
    /// The angle is an f32 product, as in the models' own code, so that long contexts round alike;
    /// sine and cosine of it are then exact to f32.
    pub fn set(&mut self, first: usize, tokens: usize) {
        let half = self.inv_freq.len();
        let rows = self.cos.chunks_exact_mut(half).zip(self.sin.chunks_exact_mut(half));
        for (position, (cos, sin)) in (first..first + tokens).zip(rows) {
            for ((cos, sin), inv_freq) in cos.iter_mut().zip(sin).zip(&self.inv_freq) {
                let (sine, cosine) = f64::from(position as f32 * inv_freq).sin_cos();
                *cos = cosine as f32 * self.magnitude;
                *sin = sine as f32 * self.magnitude;
            }
        }
    }

    /// Cosine and sine of the call's token `token`.
    pub fn token(&self, token: usize) -> (&[f32], &[f32]) {
        let half = self.inv_freq.len();
        (&self.cos[token * half..][..half], &self.sin[token * half..][..half])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_contexts_have_their_own_frequencies() {
        let table = RopeTable {
            dim: 4,
            inv_freq: vec![1.0, 0.5],
            magnitude: 2.0,
            long_inv_freq: Some(vec![0.25, 0.125]),
            long_from: Some(8),
        };
        for (context_len, frequency) in [(8, 0.5f64), (9, 0.125)] {
            let mut rotation = Rotation::new(&table, context_len, 3).unwrap();
            rotation.set(5, 2);
            let (cos, sin) = rotation.token(1);
            assert_eq!(cos[1], 2.0 * (6.0 * frequency).cos() as f32);
            assert_eq!(sin[1], 2.0 * (6.0 * frequency).sin() as f32);
        }
    }
}
