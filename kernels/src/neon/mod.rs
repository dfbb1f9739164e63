//! Kernels for aarch64: `neon` for every core, `neon-dotprod` for cores with `sdot`, `neon-i8mm`
//! for those with `smmla` too.
//!
//! ```text
//! lanes      instructions as safe functions: holds the unsafe of this folder, except where other
//!            files wrap an instruction
//! sets       the three sets: required CPU features, and how each computes a product
//! dot, smull sums of int8 products: sdot (Cortex-A76 on), or smull and smlal (A53, A72)
//! blocks     few tokens: walks the row blocks and tokens of a product, whatever the encoding
//! float, planes   one row block: of floats, of integer codes
//! coded, nested, multipliers   an integer encoding's codes; its scales and minima
//! decode     one row block and one token: a function per integer encoding and set
//! panel, panel_sdot, panel_smmla   many tokens: weights expanded once, micro-kernels of 8 × 4
//! vector     quantize, softmax, activations
//! attention  scores and mix over the KV cache
//! ```
//! Norms and rope keep their provided bodies: NEON belongs to every aarch64 target, so `wide` and
//! the compiler's vectors already use it there. Nothing is computed in f16: sums of products in
//! f16, or activations rounded to it, would exceed the error bounds of [`Kernels`].

mod attention;
mod blocks;
mod coded;
mod decode;
mod dot;
mod float;
mod kv4;
mod lanes;
mod multipliers;
mod nested;
mod panel;
mod panel_sdot;
mod panel_smmla;
mod planes;
pub(crate) mod probe;
mod sets;
mod smull;
mod vector;

use crate::activations::Operand;
use crate::coded::with_tile;
use crate::{Kernels, KvRows, portable};
use pith_format::{ActivationFunction, Encoding, Matrix};
use planes::Planes;
use sets::{Dotprod, I8mm, Plain, Set};
use std::sync::OnceLock;

/// Kernels of this folder that the CPU can run, slowest first.
pub fn available() -> Vec<&'static dyn Kernels> {
    static PLAIN: Neon<Plain> = Neon(Plain);
    static DOTPROD: OnceLock<Option<Neon<Dotprod>>> = OnceLock::new();
    static I8MM: OnceLock<Option<Neon<I8mm>>> = OnceLock::new();
    let mut list: Vec<&'static dyn Kernels> = vec![&PLAIN];
    if let Some(kernels) = DOTPROD.get_or_init(|| Dotprod::detect().map(Neon)) {
        list.push(kernels);
    }
    if let Some(kernels) = I8MM.get_or_init(|| I8mm::detect().map(Neon)) {
        list.push(kernels);
    }
    list
}

/// NEON with one way to multiply int8: its set.
struct Neon<S>(S);

impl<S: Set> Neon<S> {
    fn multiply(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        let (set, dot) = (self.0, self.0.dot());
        match w.encoding() {
            Encoding::F32 => blocks::mat_mul(float::F32, w, x, y),
            Encoding::F16 => blocks::mat_mul(float::F16, w, x, y),
            encoding => with_tile!(encoding, E => set.mat_mul(Planes::<E, _>::new(dot), w, x, y),
                else portable::mat_mul(w, x, y)),
        }
    }
}

impl<S: Set> Kernels for Neon<S> {
    fn name(&self) -> &'static str {
        S::NAME
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
