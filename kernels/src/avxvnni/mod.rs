//! x86-64 with AVX2 and 256-bit `vpdpbusd` (AVX-VNNI: Alder Lake, its small-core derivatives, Zen
//! 5). A 64-byte line of a tile is two registers of 8 rows; one instruction multiplies each with
//! four activations and sums the products.
//!
//! Only integer matrices differ from [`avx2`](crate::avx2).

mod panel;
mod planes;
mod q4;
mod q8;

use crate::activations::Operand;
use crate::avx2::Avx2;
use crate::blocks::{mat_mul, mat_vec};
use crate::coded::{Coded, with_tile};
use crate::panels;
use crate::{Attention, AttentionScratch, Kernels};
use pith_format::{ActivationFunction, Encoding, Matrix};

/// Proof that the CPU has the features of this module: made only by [`AvxVnni::detect`].
#[derive(Clone, Copy)]
pub struct AvxVnni(Avx2);

impl AvxVnni {
    /// The kernels, if this CPU can run them.
    pub fn detect() -> Option<&'static Self> {
        static KERNELS: std::sync::OnceLock<Option<AvxVnni>> = std::sync::OnceLock::new();
        let found = is_x86_feature_detected!("avxvnni");
        KERNELS.get_or_init(|| Avx2::detect().filter(|_| found).map(|&avx2| AvxVnni(avx2))).as_ref()
    }
}

impl Kernels for AvxVnni {
    fn name(&self) -> &'static str {
        "avx-vnni"
    }

    fn mat_vec(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [f32]) {
        match w.encoding() {
            Encoding::Q8 => mat_vec(q8::Q8(*self), w, x, y),
            Encoding::Q4 => mat_vec(q4::Q4(*self), w, x, y),
            Encoding::Q4G64 => mat_vec(q4::Q4G64(*self), w, x, y),
            encoding => with_tile!(encoding, E => mat_vec(planes::Planes::<E>::new(*self), w, x, y), else {
                self.0.mat_vec(w, x, y)
            }),
        }
    }

    fn mat_mul(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        match (w.encoding(), x.packed.is_empty()) {
            (Encoding::Q8, true) => mat_mul(q8::Q8(*self), w, x, y),
            (Encoding::Q4, true) => mat_mul(q4::Q4(*self), w, x, y),
            (Encoding::Q4G64, true) => mat_mul(q4::Q4G64(*self), w, x, y),
            (encoding, few) => with_tile!(encoding, E => match few || !E::IS_PLAIN {
                true => mat_mul(planes::Planes::<E>::new(*self), w, x, y),
                false => panels::mat_mul::<1, E, _>(self, w, x, y),
            }, else self.0.mat_mul(w, x, y)),
        }
    }

    fn packs(&self) -> bool {
        true
    }

    fn reads_packed(&self, encoding: Encoding) -> bool {
        with_tile!(encoding, E => E::IS_PLAIN, else false)
    }

    fn rounds_again(&self, encoding: Encoding) -> bool {
        self.reads_packed(encoding)
    }

    fn quantize(&self, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        self.0.quantize(x, codes, scales, sums)
    }

    fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        self.0.rms_norm(x, weight, epsilon, out)
    }

    fn layer_norm(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32, out: &mut [f32]) {
        self.0.layer_norm(x, weight, bias, epsilon, out)
    }

    fn rope(&self, x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
        self.0.rope(x, head_dim, cos, sin)
    }

    fn softmax(&self, x: &mut [f32]) {
        self.0.softmax(x)
    }

    fn activate(&self, function: ActivationFunction, x: &mut [f32]) {
        self.0.activate(function, x)
    }

    fn activate_gated(&self, function: ActivationFunction, gate: &mut [f32], up: &[f32]) {
        self.0.activate_gated(function, gate, up)
    }

    fn attention(&self, task: &Attention<'_>, scratch: &mut AttentionScratch, records: &mut [f32]) {
        self.0.attention(task, scratch, records)
    }

    fn merge_attention(&self, head_dim: usize, parts: &[f32], total: &mut [f32]) {
        self.0.merge_attention(head_dim, parts, total)
    }
}
