//! x86-64 with AVX2, FMA and F16C (Haswell, Zen and later).
//!
//! A 64-byte line of a tile is two registers of 8 rows each.

#[macro_use]
mod inlined;

mod activations;
mod attention;
mod exp;
mod float;
mod kv4;
pub mod lines;
pub mod memory;
mod norm;
mod panel;
mod planes;
pub(crate) mod probe;
pub mod q4;
mod q8;
mod shuffle;

pub use lines::prefetch_run;
pub use memory::{prefetch, prefetch_ahead, prefetch_behind};

use crate::activations::Operand;
use crate::attention::InnerLoops;
use crate::blocks::{mat_mul, mat_vec};
use crate::coded::{Coded, with_tile};
use crate::panels;
use crate::{Attention, AttentionScratch, Kernels, attention as shared, portable};
pub use memory::fetch;
use panel::{Levels, has_panels};
use pith_format::{ActivationFunction, Encoding, Matrix};

/// Proof that the CPU has AVX2, FMA and F16C: made only by [`Avx2::detect`].
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// The kernels, if this CPU can run them.
    pub fn detect() -> Option<&'static Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(&Avx2(()))
    }
}

impl Kernels for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn mat_vec(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [f32]) {
        match w.encoding() {
            Encoding::F32 => mat_vec(float::F32(*self), w, x, y),
            Encoding::F16 => mat_vec(float::F16(*self), w, x, y),
            Encoding::Q8 => mat_vec(q8::Q8(*self), w, x, y),
            Encoding::Q4 => mat_vec(q4::Q4(*self), w, x, y),
            Encoding::Q4G64 => mat_vec(q4::Q4G64(*self), w, x, y),
            encoding => with_tile!(encoding, E => mat_vec(planes::Planes::<E>::new(*self), w, x, y), else {
                portable::mat_vec(w, x, y)
            }),
        }
    }

    fn mat_mul(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        match w.encoding() {
            Encoding::F32 => mat_mul(float::F32(*self), w, x, y),
            Encoding::F16 => mat_mul(float::F16(*self), w, x, y),
            Encoding::Q8 => mat_mul(q8::Q8(*self), w, x, y),
            Encoding::Q4 if x.packed.is_empty() => mat_mul(q4::Q4(*self), w, x, y),
            Encoding::Q4G64 if x.packed.is_empty() => mat_mul(q4::Q4G64(*self), w, x, y),
            encoding => with_tile!(encoding, E => match !x.packed.is_empty() && has_panels::<E>() {
                true if E::IS_SPLIT => panels::mat_mul::<1, E, _>(&Levels::<2, 0>(*self), w, x, y),
                true if E::MINIMA.is_some() => panels::mat_mul::<1, E, _>(&Levels::<1, 1>(*self), w, x, y),
                true => panels::mat_mul::<1, E, _>(&Levels::<1, 0>(*self), w, x, y),
                false => mat_mul(planes::Planes::<E>::new(*self), w, x, y),
            }, else portable::mat_mul(w, x, y)),
        }
    }

    fn packs(&self) -> bool {
        true
    }

    fn reads_packed(&self, encoding: Encoding) -> bool {
        with_tile!(encoding, E => has_panels::<E>(), else false)
    }

    fn quantize(&self, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { activations::quantize(x, codes, scales, sums) }
    }

    fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { norm::rms_norm(x, weight, epsilon, out) }
    }

    fn layer_norm(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32, out: &mut [f32]) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { norm::layer_norm(x, weight, bias, epsilon, out) }
    }

    fn rope(&self, x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { norm::rope(x, head_dim, cos, sin) }
    }

    fn softmax(&self, x: &mut [f32]) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { exp::softmax(x) }
    }

    fn activate(&self, function: ActivationFunction, x: &mut [f32]) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { exp::activate(function, x) }
    }

    fn activate_gated(&self, function: ActivationFunction, gate: &mut [f32], up: &[f32]) {
        // SAFETY: a value of `Avx2` exists only where `detect` found the features.
        unsafe { exp::activate_gated(function, gate, up) }
    }

    fn attention(&self, task: &Attention<'_>, scratch: &mut AttentionScratch, records: &mut [f32]) {
        shared::attention(*self, task, scratch, records)
    }

    fn merge_attention(&self, head_dim: usize, parts: &[f32], total: &mut [f32]) {
        shared::merge(head_dim, parts, total, |total, a, part, b| self.blend(total, a, part, b))
    }
}
