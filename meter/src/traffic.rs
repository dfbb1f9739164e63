//! Bytes moved by a forward pass.

use serde::Serialize;
use std::ops::{AddAssign, Sub};

/// Bytes that the forward pass touched, counted where it touches them: bytes read and written, not
/// DRAM transfers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Every streamed tensor, once per forward call: matrices with padding, norms, biases. For one
    /// decoded token this equals the model's `streamed_bytes`.
    pub weight_bytes: u64,
    /// Embedding look-ups: the block of 16 rows that contains a token's row.
    pub embedding_bytes: u64,
    /// Keys and values read: once for all tokens of a call that are processed together.
    pub kv_read_bytes: u64,
    /// Keys and values written.
    pub kv_write_bytes: u64,
    /// Bytes that matrices read and wrote beside their weights: operands (floats, codes, scales,
    /// sums) and results.
    pub activation_bytes: u64,
}

impl Traffic {
    /// The sum of all fields.
    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes
            + self.embedding_bytes
            + self.kv_read_bytes
            + self.kv_write_bytes
            + self.activation_bytes
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.weight_bytes += other.weight_bytes;
        self.embedding_bytes += other.embedding_bytes;
        self.kv_read_bytes += other.kv_read_bytes;
        self.kv_write_bytes += other.kv_write_bytes;
        self.activation_bytes += other.activation_bytes;
    }
}

/// The traffic since `before`, an earlier state of the same counter.
impl Sub for Traffic {
    type Output = Traffic;

    fn sub(self, before: Traffic) -> Traffic {
        Traffic {
            weight_bytes: self.weight_bytes - before.weight_bytes,
            embedding_bytes: self.embedding_bytes - before.embedding_bytes,
            kv_read_bytes: self.kv_read_bytes - before.kv_read_bytes,
            kv_write_bytes: self.kv_write_bytes - before.kv_write_bytes,
            activation_bytes: self.activation_bytes - before.activation_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_added_and_taken_away() {
        let first = Traffic {
            weight_bytes: 1,
            embedding_bytes: 20,
            kv_read_bytes: 300,
            kv_write_bytes: 4000,
            activation_bytes: 50_000,
        };
        assert_eq!(first.total_bytes(), 54_321);
        let mut sum = first;
        sum += first;
        assert_eq!(sum.total_bytes(), 2 * 54_321);
        assert_eq!(sum - first, first);
    }
}
