//! A small seeded generator (xorshift64*): failures are reproducible.

use half::f16;

pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn byte(&mut self) -> u8 {
        (self.bits() >> 56) as u8
    }

    /// Uniform between −1 and 1.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    /// Uniform between −`limit` and `limit`.
    pub fn floats(&mut self, count: usize, limit: f32) -> Vec<f32> {
        (0..count).map(|_| limit * self.float()).collect()
    }

    pub fn halves(&mut self, count: usize, limit: f32) -> Vec<f16> {
        (0..count).map(|_| f16::from_f32(limit * self.float())).collect()
    }
}
