//! Micro-kernel with `sdot`. A register of weights is 4 rows × 4 columns, as in the file; it
//! multiplies a lane, four bytes of one token.

use super::blocks::map;
use super::dot::{Codes, Sdot, exact, sdot_in_turn, start_of};
use super::lanes::*;
use super::panel::{Columns, MICRO_TOKENS, Micro, STRIP_ROWS, Strips, Sums};

/// 8 rows × 32 columns.
#[derive(Clone, Copy, Default)]
#[repr(align(16))]
pub struct Weights {
    /// `[columns / 4][rows / 4]`.
    codes: [[[i8; 16]; 2]; 8],
    scales: [[f32; 4]; 2],
}

impl Micro for Sdot {
    type Weights = Weights;
    type Scratch = ();
    type Tokens<'a> = [Columns<'a>; MICRO_TOKENS];

    #[inline(always)]
    fn weights<C: Codes>(codes: C, scales: [F32x4; 4], strips: Strips<'_, Self>) {
        for (strip, quads) in strips.into_iter().zip([[0, 1], [2, 3]]) {
            for index in 0..4 {
                let [first, second] = quads.map(|q| codes.signed_pair(index, q));
                for half in 0..2 {
                    let out = &mut strip.codes[4 * half + index];
                    store_i8(&mut out[0], first[half]);
                    store_i8(&mut out[1], second[half]);
                }
            }
            for (out, q) in strip.scales.iter_mut().zip(quads) {
                store_f32(out, scales[q]);
            }
        }
    }

    #[inline(always)]
    fn tokens<'a>(x: [Columns<'a>; MICRO_TOKENS], _: &'a mut [()]) -> Self::Tokens<'a> {
        x
    }

    #[inline(always)]
    fn multiply(self, weights: &[Weights], tokens: Self::Tokens<'_>, sums: &mut Sums) {
        // SAFETY: `self` exists only where dotprod was detected.
        unsafe { multiply(weights, tokens, sums) }
    }
}

/// Products of a micro-kernel: `[token][rows / 4]`.
type Products = [[I32x4; 2]; MICRO_TOKENS];

/// See [`Micro::multiply`].
#[inline(never)]
#[target_feature(enable = "dotprod")]
pub fn multiply(weights: &[Weights], tokens: [Columns<'_>; MICRO_TOKENS], sums: &mut Sums) {
    let quads = sums.as_flattened_mut().as_chunks_mut::<4>().0;
    let quads: &mut [[[f32; 4]; 2]; MICRO_TOKENS] =
        quads.as_chunks_mut().0.first_chunk_mut().expect("four tokens of 8 rows");
    let mut totals = quads.each_ref().map(|quads| quads.each_ref().map(load_f32));
    let count = weights.len();
    let codes = map(tokens, |token| &token.codes[..count]);
    let scales = map(tokens, |token| &token.scales[..count]);
    for index in 0..count {
        let weights = &weights[index];
        let mut products = start_of::<{ STRIP_ROWS / 4 * MICRO_TOKENS }>();
        let products: &mut Products = products.as_chunks_mut().0.first_chunk_mut().expect("as many");
        for half in 0..2 {
            let x = map(codes, |codes| load_i8(&codes[index].as_chunks().0[half]));
            step::<0>(products, &weights.codes[4 * half], x);
            step::<1>(products, &weights.codes[4 * half + 1], x);
            step::<2>(products, &weights.codes[4 * half + 2], x);
            step::<3>(products, &weights.codes[4 * half + 3], x);
        }
        let weight_scales = weights.scales.each_ref().map(load_f32);
        for token in 0..MICRO_TOKENS {
            for q in 0..2 {
                let scale = mul_scalar(weight_scales[q], scales[token][index]);
                totals[token][q] = mul_add(totals[token][q], exact(products[token][q]), scale);
            }
        }
    }
    for (quads, totals) in quads.iter_mut().zip(totals) {
        for (quad, total) in quads.iter_mut().zip(totals) {
            store_f32(quad, total);
        }
    }
}

/// Adds the `LANE`-th four of 16 columns.
#[inline]
#[target_feature(enable = "dotprod")]
fn step<const LANE: i32>(products: &mut Products, codes: &[[i8; 16]; 2], x: [I8x16; MICRO_TOKENS]) {
    let codes = codes.each_ref().map(load_i8);
    for (products, x) in products.iter_mut().zip(x) {
        for (product, codes) in products.iter_mut().zip(codes) {
            *product = sdot_in_turn::<LANE>(*product, codes, x);
        }
    }
}
