//! Micro-kernel with `smmla`: two tokens × 8 columns times two rows × 8 columns gives four products
//! in one register.

use super::dot::{Codes, exact, start_of};
use super::lanes::*;
use super::panel::{Columns, MICRO_TOKENS, Micro, Strips, Sums};
use super::sets::Smmla;
use std::arch::asm;

/// 8 rows × 32 columns.
#[derive(Clone, Copy, Default)]
#[repr(align(16))]
pub struct Weights {
    /// `[columns / 8][rows / 2]`: 8 columns of a row, then 8 of the next.
    codes: [[[i8; 16]; 4]; 4],
    /// `[rows / 2]`: scales of two rows, twice.
    scales: [[f32; 4]; 4],
}

/// 4 tokens × 32 columns.
#[derive(Clone, Copy, Default)]
#[repr(align(16))]
pub struct Group {
    /// `[columns / 8][tokens / 2]`: 8 columns of a token, then 8 of the next.
    codes: [[[i8; 16]; 2]; 4],
    /// `[tokens / 2]`: each scale twice.
    scales: [[f32; 4]; 2],
}

impl Micro for Smmla {
    type Weights = Weights;
    type Scratch = Group;
    type Tokens<'a> = &'a [Group];

    #[inline(always)]
    fn weights<C: Codes>(codes: C, scales: [F32x4; 4], strips: Strips<'_, Self>) {
        for (strip, quads) in strips.into_iter().zip([[0, 1], [2, 3]]) {
            for index in 0..2 {
                let pairs = quads.map(|q| [2 * index, 2 * index + 1].map(|line| codes.signed_pair(line, q)));
                for half in 0..2 {
                    let out = strip.codes[2 * half + index].as_chunks_mut::<2>().0;
                    for (out, [low, high]) in out.iter_mut().zip(pairs) {
                        store_i8(&mut out[0], zip_low_words(low[half], high[half]));
                        store_i8(&mut out[1], zip_high_words(low[half], high[half]));
                    }
                }
            }
            for (out, q) in strip.scales.as_chunks_mut::<2>().0.iter_mut().zip(quads) {
                store_f32(&mut out[0], low_halves(scales[q], scales[q]));
                store_f32(&mut out[1], high_halves(scales[q], scales[q]));
            }
        }
    }

    #[inline(always)]
    fn tokens<'a>(x: [Columns<'a>; MICRO_TOKENS], scratch: &'a mut [Group]) -> &'a [Group] {
        let codes = x.map(|x| &x.codes[..scratch.len()]);
        let scales = x.map(|x| &x.scales[..scratch.len()]);
        for (index, group) in scratch.iter_mut().enumerate() {
            let codes = codes.map(|codes| codes[index].as_chunks::<16>().0);
            for pair in 0..2 {
                for (half, (a, b)) in codes[2 * pair].iter().zip(codes[2 * pair + 1]).enumerate() {
                    let (a, b) = (load_i8(a), load_i8(b));
                    store_i8(&mut group.codes[2 * half][pair], low_eight(a, b));
                    store_i8(&mut group.codes[2 * half + 1][pair], high_eight(a, b));
                }
                let (a, b) = (scales[2 * pair][index], scales[2 * pair + 1][index]);
                group.scales[pair] = [a, a, b, b];
            }
        }
        scratch
    }

    #[inline(always)]
    fn multiply(self, weights: &[Weights], tokens: &[Group], sums: &mut Sums) {
        // SAFETY: `self` exists only where i8mm was detected.
        unsafe { multiply(weights, tokens, sums) }
    }
}

/// See [`Micro::multiply`].
#[inline(never)]
#[target_feature(enable = "i8mm")]
pub fn multiply(weights: &[Weights], tokens: &[Group], sums: &mut Sums) {
    // [tokens / 2][rows / 2]
    let mut totals = [[splat(0.0); 4]; 2];
    for (sums, totals) in sums.as_chunks::<2>().0.iter().zip(&mut totals) {
        let [a, b] = sums.each_ref().map(|sums| sums.as_chunks::<4>().0);
        for quad in 0..2 {
            let (a, b) = (load_f32(&a[quad]), load_f32(&b[quad]));
            (totals[2 * quad], totals[2 * quad + 1]) = (low_halves(a, b), high_halves(a, b));
        }
    }
    for (weights, tokens) in weights.iter().zip(tokens) {
        let mut products = start_of::<8>();
        for (codes, x) in weights.codes.iter().zip(&tokens.codes) {
            let codes = codes.each_ref().map(load_i8);
            for (products, x) in products.as_chunks_mut::<4>().0.iter_mut().zip(x) {
                let x = load_i8(x);
                for (product, codes) in products.iter_mut().zip(codes) {
                    *product = smmla(*product, x, codes);
                }
            }
        }
        let weight_scales = weights.scales.each_ref().map(load_f32);
        for (pair, totals) in totals.iter_mut().enumerate() {
            let scales = load_f32(&tokens.scales[pair]);
            for (rows, total) in totals.iter_mut().enumerate() {
                *total = mul_add(*total, exact(products[4 * pair + rows]), mul(weight_scales[rows], scales));
            }
        }
    }
    for (sums, totals) in sums.as_chunks_mut::<2>().0.iter_mut().zip(totals) {
        let [a, b] = sums.each_mut().map(|sums| sums.as_chunks_mut::<4>().0);
        for quad in 0..2 {
            store_f32(&mut a[quad], low_halves(totals[2 * quad], totals[2 * quad + 1]));
            store_f32(&mut b[quad], high_halves(totals[2 * quad], totals[2 * quad + 1]));
        }
    }
}

/// `sum[2i + j] + Σ a[8i..8i+8] · b[8j..8j+8]`, `i, j < 2`.
#[inline]
#[target_feature(enable = "i8mm")]
fn smmla(mut sum: I32x4, a: I8x16, b: I8x16) -> I32x4 {
    // SAFETY: an instruction on registers alone, of the feature that this function asks for.
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(nomem, nostack, preserves_flags));
    }
    sum
}
