//! Kernels for aarch64: `neon` for every core, `neon-dotprod` for cores with `sdot`.
//!
//! ```text
//! lanes      instructions as safe functions: the unsafe of this folder lies here and in `dot`
//! dot        sums of int8 products: smull and smlal (Cortex-A53, A72) or sdot (A76 on)
//! tiles      walks the row blocks and tokens of a product, whatever the encoding
//! float, q4, q8   one row block, by encoding
//! vector     quantize, softmax, activations
//! attention  scores and mix over the KV cache
//! ```
//! Norms and rope keep their provided bodies: NEON belongs to every aarch64 target, so `wide` and the compiler's
//! own vectors already use it there.

mod attention;
mod dot;
mod float;
mod lanes;
pub(crate) mod probe;
mod q4;
mod q8;
mod tiles;
mod vector;

use crate::activations::Operand;
use crate::{Kernels, KvRows, portable};
use dot::{Dot, Sdot, Smull};
use pith_format::{ActivationFunction, Encoding, Matrix};
use std::sync::OnceLock;

/// The kernels of this folder that the CPU can run, slowest first.
pub fn available() -> Vec<&'static dyn Kernels> {
    static SMULL: Neon<Smull> = Neon(Smull);
    static SDOT: OnceLock<Option<Neon<Sdot>>> = OnceLock::new();
    let mut list: Vec<&'static dyn Kernels> = vec![&SMULL];
    if let Some(kernels) = SDOT.get_or_init(|| Sdot::detect().map(Neon)) {
        list.push(kernels);
    }
    list
}

/// NEON with one way to sum products of int8.
struct Neon<D>(D);

impl<D: Dot> Neon<D> {
    fn multiply(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        let dot = self.0;
        match w.encoding() {
            Encoding::F32 => tiles::mat_mul(float::F32, w, x, y),
            Encoding::F16 => tiles::mat_mul(float::F16, w, x, y),
            Encoding::Q8 => dot.mat_mul(q8::Q8(dot), w, x, y),
            Encoding::Q4 => dot.mat_mul(q4::Q4(dot), w, x, y),
            Encoding::Q4G64 => dot.mat_mul(q4::Q4G64(dot), w, x, y),
            _ => portable::mat_mul(w, x, y),
        }
    }
}

impl<D: Dot> Kernels for Neon<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn mat_vec(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [f32]) {
        self.multiply(w, x, &mut [y]);
    }

    fn mat_mul(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        self.multiply(w, x, y);
    }

    fn quantize(&self, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        vector::quantize(x, codes, scales, sums);
    }

    fn softmax(&self, x: &mut [f32]) {
        vector::softmax(x);
    }

    fn activate(&self, function: ActivationFunction, x: &mut [f32]) {
        vector::activate(function, x);
    }

    fn scores(&self, queries: &[f32], keys: KvRows<'_>, scale: f32, out: &mut [f32]) {
        attention::scores(queries, keys, scale, out);
    }

    fn mix(&self, weights: &[f32], values: KvRows<'_>, out: &mut [f32]) {
        attention::mix(weights, values, out);
    }
}
