//! x86-64 with AVX-512 F/BW/DQ/VL and VNNI. A 64-byte line of a tile is one register; `vpdpbusd`
//! multiplies it with four activations and sums the four products of each row.
//!
//! Most vector operations use [`avx2`](crate::avx2): they are a small part of a token's time.

mod activations;
mod attention;
mod exact;
mod exp;
mod few;
mod float;
mod kv4;
mod lines;
mod memory;
mod one;
mod panel;
pub(crate) mod probe;
mod q4;
mod q8;
mod rows;
mod shuffle;

use crate::activations::Operand;
use crate::attention::InnerLoops;
use crate::avx2::Avx2;
use crate::blocks::{mat_mul, mat_vec};
use crate::coded::{Coded, with_tile};
use crate::panels;
use crate::{Attention, AttentionScratch, Kernels, KvRows, attention as shared, portable};
use exact::Exact;
use panel::BLOCKS;
use pith_format::{ActivationFunction, Encoding, Matrix, Operation};

/// Proof that the CPU has the features of this module: made only by [`Avx512::detect`].
#[derive(Clone, Copy)]
pub struct Avx512(Avx2);

impl Avx512 {
    /// The kernels, if this CPU can run them.
    pub fn detect() -> Option<&'static Self> {
        static KERNELS: std::sync::OnceLock<Option<Avx512>> = std::sync::OnceLock::new();
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        KERNELS.get_or_init(|| Avx2::detect().filter(|_| found).map(|&avx2| Avx512(avx2))).as_ref()
    }
}

impl Kernels for Avx512 {
    fn name(&self) -> &'static str {
        "avx512-vnni"
    }

    fn mat_vec(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [f32]) {
        match w.encoding() {
            Encoding::F32 => mat_vec(float::F32(*self), w, x, y),
            Encoding::F16 => mat_vec(float::F16(*self), w, x, y),
            Encoding::Q8 => mat_vec(q8::Q8(*self), w, x, y),
            Encoding::Q4 => mat_vec(q4::Q4(*self), w, x, y),
            Encoding::Q4G64 => mat_vec(q4::Q4G64(*self), w, x, y),
            encoding => with_tile!(encoding, E => mat_vec(one::One::<E>::new(*self), w, x, y), else {
                portable::mat_vec(w, x, y)
            }),
        }
    }

    fn mat_mul(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        match w.encoding() {
            Encoding::F32 => mat_mul(float::F32(*self), w, x, y),
            Encoding::F16 => mat_mul(float::F16(*self), w, x, y),
            encoding => with_tile!(encoding, E => match x.packed.is_empty() {
                true => few::mat_mul::<E>(*self, w, x, y),
                false if E::ROUNDS_AGAIN => panels::mat_mul::<BLOCKS, E, _>(self, w, x, y),
                false if E::IS_SPLIT && !E::HAS_SMALL_PRODUCTS => panels::mat_mul::<BLOCKS, E, _>(&Exact::<2, 0>(*self), w, x, y),
                false if E::MINIMA.is_some() && E::ZERO_SHIFT.is_none() => panels::mat_mul::<BLOCKS, E, _>(&Exact::<1, 1>(*self), w, x, y),
                false => panels::mat_mul::<BLOCKS, E, _>(&Exact::<1, 0>(*self), w, x, y),
            }, else portable::mat_mul(w, x, y)),
        }
    }

    fn packs(&self) -> bool {
        true
    }

    fn reads_packed(&self, encoding: Encoding) -> bool {
        encoding.operation() == Operation::Integer
    }

    fn rounds_again(&self, encoding: Encoding) -> bool {
        with_tile!(encoding, E => E::ROUNDS_AGAIN, else false)
    }

    fn quantize(&self, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { activations::quantize(x, codes, scales, sums) }
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
        let (gate, up) = match function {
            // SAFETY: a value of `Avx512` exists only where `detect` found the features.
            ActivationFunction::Silu => unsafe { exp::silu_gated(gate, up) },
            _ => (gate, up),
        };
        if gate.is_empty() {
            return;
        }
        self.0.activate_gated(function, gate, up)
    }

    fn attention(&self, task: &Attention<'_>, scratch: &mut AttentionScratch, records: &mut [f32]) {
        let in_rows = match task.keys {
            KvRows::Q4 { head_dim, .. } => head_dim.is_multiple_of(16) && kv4::in_rows(head_dim),
            keys => keys.head_dim().is_multiple_of(16),
        };
        if task.few && in_rows {
            return shared::attention_in_rows(*self, task, scratch, records);
        }
        shared::attention(*self, task, scratch, records)
    }

    fn merge_attention(&self, head_dim: usize, parts: &[f32], total: &mut [f32]) {
        shared::merge(head_dim, parts, total, |total, a, part, b| self.blend(total, a, part, b))
    }
}
