//! Sums of int8 products for cores without `sdot`: `smull` and `smlal` sum products in 16 bits,
//! where few fit, below 32768:
//! ```text
//! nibble   8 ·  16 · 127 = 16256, and 32512 for the sum of two lanes
//! level    4 ·  64 · 127 = 32512
//! byte     2 · 128 · 127 = 32512; a third would not fit
//! ```

use super::blocks::{Group, Rows, map};
use super::dot::{Codes, Dot, Halves, One, halves, written_out};
use super::lanes::*;
use crate::activations::Operand;

/// Products widened to 16 bits, on any core.
#[derive(Clone, Copy)]
pub struct Smull;

/// 16-bit sums of four rows, four per row: two rows, then the other two.
type Wide = [I16x8; 2];

#[inline(always)]
fn multiply(codes: I8x16, x: I8x16) -> Wide {
    [mul_low(codes, x), mul_high(codes, x)]
}

#[inline(always)]
fn multiply_add(sums: Wide, codes: I8x16, x: I8x16) -> Wide {
    [mul_add_low(sums[0], codes, x), mul_add_high(sums[1], codes, x)]
}

/// Pairs of some rows.
#[inline(always)]
fn pairs<const N: usize>(codes: impl Codes, index: usize, quads: [usize; N]) -> [[I8x16; 2]; N] {
    quads.map(|q| codes.pair(index, q))
}

impl Smull {
    #[inline(always)]
    fn nibble_start<const N: usize, const T: usize>(
        quads: [usize; N],
        codes: impl Codes,
        x: &[Halves; T],
    ) -> [[Wide; N]; T] {
        let pairs = pairs(codes, 0, quads);
        x.map(|x| {
            let x = x.map(repeat_four::<0>);
            let sums = pairs.map(|[first, _]| multiply(first, x[0]));
            std::array::from_fn(|q| multiply_add(sums[q], pairs[q][1], x[1]))
        })
    }

    #[inline(always)]
    fn nibble_step<const LANE: i32, const N: usize, const T: usize>(
        sums: &mut [[Wide; N]; T],
        quads: [usize; N],
        codes: impl Codes,
        x: &[Halves; T],
    ) {
        let pairs = pairs(codes, LANE as usize, quads);
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = [repeat_four::<LANE>(x[0]), repeat_four::<LANE>(x[1])];
            written_out!(Q: 0, 1, 2, 3; if const { Q < N } {
                sums[Q] = multiply_add(sums[Q], pairs[Q][0], x[0]);
            });
            written_out!(Q: 0, 1, 2, 3; if const { Q < N } {
                sums[Q] = multiply_add(sums[Q], pairs[Q][1], x[1]);
            });
        }
    }

    /// Products of lanes `A` and `B` of both halves.
    #[inline(always)]
    fn four_products<const A: i32, const B: i32, const N: usize>(
        quads: [usize; N],
        codes: impl Codes,
        x: Halves,
    ) -> [Wide; N] {
        let (a, b) = (x.map(repeat_four::<A>), x.map(repeat_four::<B>));
        let mut sums = quads.map(|q| {
            let [first, second] = codes.pair(A as usize, q);
            multiply_add(multiply(first, a[0]), second, a[1])
        });
        written_out!(Q: 0, 1, 2, 3; if const { Q < N } {
            let [first, second] = codes.pair(B as usize, quads[Q]);
            sums[Q] = multiply_add(multiply_add(sums[Q], first, b[0]), second, b[1]);
        });
        sums
    }

    #[inline(always)]
    fn byte_step<const LANE: i32, const N: usize, const T: usize>(
        sums: &mut [[[I32x4; 2]; N]; T],
        quads: [usize; N],
        codes: impl Codes,
        x: &[Halves; T],
    ) {
        let pairs = pairs(codes, LANE as usize, quads);
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = x.map(repeat_four::<LANE>);
            for (sums, [first, second]) in sums.iter_mut().zip(pairs) {
                let [low, high] = multiply_add(multiply(first, x[0]), second, x[1]);
                *sums = [add_pairs_to_i32(sums[0], low), add_pairs_to_i32(sums[1], high)];
            }
        }
    }

    #[inline(always)]
    fn nibbles<const N: usize, const T: usize>(
        quads: [usize; N],
        codes: impl Codes,
        x: [Group<'_>; T],
        start: [i32; T],
        mut add: impl FnMut(usize, usize, F32x4),
    ) {
        let x = x.map(halves);
        let mut sums = Self::nibble_start(quads, codes, &x);
        Self::nibble_step::<1, N, T>(&mut sums, quads, codes, &x);
        Self::nibble_step::<2, N, T>(&mut sums, quads, codes, &x);
        Self::nibble_step::<3, N, T>(&mut sums, quads, codes, &x);
        for (token, sums) in sums.iter().enumerate() {
            let start = splat_i32(start[token]);
            for (n, [low, high]) in sums.iter().enumerate() {
                add(token, n, to_f32(add_pairs_to_i32(start, add_pairs_i16(*low, *high))));
            }
        }
    }

    #[inline(always)]
    fn bytes<const N: usize, const T: usize>(
        quads: [usize; N],
        codes: impl Codes,
        x: [Group<'_>; T],
        start: [i32; T],
        mut add: impl FnMut(usize, usize, F32x4),
    ) {
        let x = x.map(halves);
        let mut sums = [[[splat_i32(0); 2]; N]; T];
        Self::byte_step::<0, N, T>(&mut sums, quads, codes, &x);
        Self::byte_step::<1, N, T>(&mut sums, quads, codes, &x);
        Self::byte_step::<2, N, T>(&mut sums, quads, codes, &x);
        Self::byte_step::<3, N, T>(&mut sums, quads, codes, &x);
        for (token, sums) in sums.iter().enumerate() {
            for (n, [low, high]) in sums.iter().enumerate() {
                add(token, n, to_f32(add_i32(add_pairs_i32(*low, *high), splat_i32(start[token]))));
            }
        }
    }

    #[inline(always)]
    fn levels<const N: usize, const T: usize>(
        quads: [usize; N],
        codes: impl Codes,
        x: [Group<'_>; T],
        start: [i32; T],
        mut add: impl FnMut(usize, usize, F32x4),
    ) {
        for token in 0..T {
            let x = halves(x[token]);
            // One line of single bits serves lanes 0 and 2, another lanes 1 and 3.
            let first = Self::four_products::<0, 2, N>(quads, codes, x);
            let mut sums = first.map(|sums| sums.map(pairs_to_i32));
            let last = Self::four_products::<1, 3, N>(quads, codes, x);
            for (sums, [low, high]) in sums.iter_mut().zip(last) {
                *sums = [add_pairs_to_i32(sums[0], low), add_pairs_to_i32(sums[1], high)];
            }
            for (n, [low, high]) in sums.into_iter().enumerate() {
                let sum = add_i32(add_pairs_i32(low, high), splat_i32(start[token]));
                add(token, n, to_f32(sum));
            }
        }
    }
}

impl Dot for Smull {
    // The multiplier is the bottleneck: sharing loads between tokens gains nothing.
    const SHARES: bool = false;
    const WHOLE_TOKENS: usize = 1;

    #[inline(always)]
    fn sums<C: Codes, const N: usize, const T: usize>(
        self,
        quads: [usize; N],
        codes: C,
        x: [Group<'_>; T],
        start: [i32; T],
        add: impl FnMut(usize, usize, F32x4),
    ) {
        if C::ARE_NIBBLES {
            Self::nibbles(quads, codes, x, start, add)
        } else if C::ARE_LEVELS {
            Self::levels(quads, codes, x, start, add)
        } else {
            Self::bytes(quads, codes, x, start, add)
        }
    }

    #[inline(always)]
    fn split_sums<C: Codes, const N: usize, const T: usize>(
        self,
        quads: [usize; N],
        codes: C,
        x: [Group<'_>; T],
        start: [[i32; 2]; T],
        mut add: impl FnMut(usize, usize, [F32x4; 2]),
    ) {
        for token in 0..T {
            let x = halves(x[token]);
            let (x0, x1) = (x.map(repeat_four::<0>), x.map(repeat_four::<1>));
            let (x2, x3) = (x.map(repeat_four::<2>), x.map(repeat_four::<3>));
            let step = |[first, last]: [Wide; 2], [a, b]: [I8x16; 2], x: Halves| {
                [multiply_add(first, a, x[0]), multiply_add(last, b, x[1])]
            };
            let start = map(start[token], splat_i32);
            let whole = |[low, high]: Wide, start: I32x4| {
                to_f32(match C::ARE_NIBBLES {
                    true => add_pairs_to_i32(start, add_pairs_i16(low, high)),
                    false => add_i32(add_pairs_i32(pairs_to_i32(low), pairs_to_i32(high)), start),
                })
            };
            // Four rows at a time: sums of halves of all rows would not fit the registers.
            written_out!(Q: 0, 1, 2, 3; if const { Q < N } {
                let [first, last] = codes.pair(0, quads[Q]);
                let sums = [multiply(first, x0[0]), multiply(last, x0[1])];
                let sums = step(sums, codes.pair(2, quads[Q]), x2);
                let sums = step(sums, codes.pair(1, quads[Q]), x1);
                let sums = step(sums, codes.pair(3, quads[Q]), x3);
                add(token, Q, [whole(sums[0], start[0]), whole(sums[1], start[1])]);
            });
        }
    }

    #[inline(always)]
    fn one<E: One>(self, bytes: E::Bytes<'_>, x: Operand<'_>) -> Rows {
        E::plain(bytes, x)
    }
}
