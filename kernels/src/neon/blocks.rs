//! Products of a matrix in any encoding and any number of tokens.

use super::lanes::*;
use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::tiles::Tiles;
use pith_format::{Matrix, TILE_ROWS};

/// Sums of 16 rows.
pub type Rows = [F32x4; 4];

/// The activations of 32 columns, −127 ..= 127.
pub type Group<'a> = &'a [i8; ACTIVATION_GROUP];

/// Most tokens that share one read of a row block.
pub const TOKENS: usize = 4;

/// Multiplication of one block of 16 rows.
pub trait Block: Copy {
    /// One block.
    type Bytes<'a>: Tiles<'a>;
    /// Whether up to [`TOKENS`] tokens share one read.
    const SHARES: bool;
    /// Most tokens for which the sums of 16 rows fit the registers.
    const WHOLE_TOKENS: usize;

    /// [`Block::multiply`] for one token, as a separate function.
    fn one(self, bytes: Self::Bytes<'_>, x: Operand<'_>) -> Rows;

    /// `out[t][n] = Σ_c w[r,c] · x[t,c]` of rows `4·q..4·q + 4`, for each `q = quads[n]`; `bytes`
    /// is one block in this encoding.
    fn quads<const N: usize, const T: usize>(
        self,
        bytes: Self::Bytes<'_>,
        x: [Operand<'_>; T],
        quads: [usize; N],
    ) -> [[F32x4; N]; T];

    /// All 16 rows, in two rounds where their sums do not fit the registers.
    #[inline(always)]
    fn multiply<const T: usize>(self, bytes: Self::Bytes<'_>, x: [Operand<'_>; T]) -> [Rows; T] {
        // Constant, so that the compiler drops the other branch before it inlines.
        if const { T <= Self::WHOLE_TOKENS } {
            return self.quads(bytes, x, [0, 1, 2, 3]);
        }
        let (first, last) = (self.quads(bytes, x, [0, 1]), self.quads(bytes, x, [2, 3]));
        std::array::from_fn(|token| {
            let ([a, b], [c, d]) = (first[token], last[token]);
            [a, b, c, d]
        })
    }
}

/// See [`Kernels::mat_mul`](crate::Kernels::mat_mul). A block stays in the L1 cache while all
/// tokens pass.
#[inline(always)]
pub fn mat_mul<E: Block>(block: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
    let (rows, tokens) = (w.rows(), x.tokens());
    x.assert_product(w, y);
    for block_index in 0..w.block_count() {
        let bytes = E::Bytes::of_block(w, block_index);
        let first_row = block_index * TILE_ROWS;
        let mut token = 0;
        while token < tokens {
            let out = &mut y[token..];
            token += match tokens - token {
                TOKENS.. if E::SHARES => run::<E, TOKENS>(block, bytes, x, token, rows, first_row, out),
                3 if E::SHARES => run::<E, 3>(block, bytes, x, token, rows, first_row, out),
                2 if E::SHARES => run::<E, 2>(block, bytes, x, token, rows, first_row, out),
                _ => {
                    let sums = block.one(bytes, x.token(token));
                    write([sums], rows, first_row, out)
                }
            };
        }
    }
}

/// Multiplies one block with `T` tokens from `token` on, the first of `out`. Returns `T`.
#[inline(always)]
fn run<E: Block, const T: usize>(
    block: E,
    bytes: E::Bytes<'_>,
    x: Operand<'_>,
    token: usize,
    rows: usize,
    first_row: usize,
    out: &mut [&mut [f32]],
) -> usize {
    let sums = block.multiply::<T>(bytes, std::array::from_fn(|offset| x.token(token + offset)));
    write(sums, rows, first_row, out)
}

/// Writes those rows of a block that the matrix has. Returns `T`.
#[inline(always)]
fn write<const T: usize>(sums: [Rows; T], rows: usize, first_row: usize, out: &mut [&mut [f32]]) -> usize {
    let count = TILE_ROWS.min(rows - first_row);
    for (sums, out) in sums.iter().zip(out) {
        let mut values = [[0.0f32; 4]; 4];
        for (values, sums) in values.iter_mut().zip(sums) {
            store_f32(values, *sums);
        }
        out[first_row..][..count].copy_from_slice(&values.as_flattened()[..count]);
    }
    T
}

/// Rounded activations of a token, in groups of 32 columns.
#[derive(Clone, Copy)]
pub struct Rounded<'a> {
    codes: &'a [[i8; ACTIVATION_GROUP]],
    scales: &'a [f32],
    sums: &'a [i32],
    half_sums: &'a [i32],
}

impl<'a> Rounded<'a> {
    /// Views the first `count` groups; tokens are padded to whole tiles of every encoding.
    #[inline(always)]
    pub fn new(x: Operand<'a>, count: usize) -> Self {
        let Operand { scales, sums, half_sums, .. } = x;
        Self { codes: x.codes.as_chunks().0, scales, sums, half_sums }.part(0, count)
    }

    /// Views `count` groups.
    #[inline(always)]
    pub fn part(&self, first: usize, count: usize) -> Self {
        Self {
            codes: &self.codes[first..][..count],
            scales: &self.scales[first..][..count],
            sums: &self.sums[first..][..count],
            half_sums: &self.half_sums[first..][..count],
        }
    }

    /// Codes of a group.
    #[inline(always)]
    pub fn codes(&self, group: usize) -> Group<'a> {
        &self.codes[group]
    }

    /// Scale of a group.
    #[inline(always)]
    pub fn scale(&self, group: usize) -> f32 {
        self.scales[group]
    }

    /// Sum of a group's codes.
    #[inline(always)]
    pub fn sum(&self, group: usize) -> i32 {
        self.sums[group]
    }

    /// Sums of the first and of the last 16 codes of a group.
    #[inline(always)]
    pub fn half_sums(&self, group: usize) -> [i32; 2] {
        [self.half_sums[group], self.sums[group] - self.half_sums[group]]
    }
}

/// `rows += products · (weight_scales · scale)`.
#[inline(always)]
pub fn add_scaled(rows: &mut F32x4, products: F32x4, weight_scales: F32x4, scale: f32) {
    *rows = mul_add(*rows, products, mul_scalar(weight_scales, scale));
}

/// [`array::map`](https://doc.rust-lang.org/std/primitive.array.html#method.map), always inlined:
/// in large loops the compiler leaves the library's a call. `T` is not 0.
#[inline(always)]
pub fn map<A: Copy, B: Copy, const T: usize>(values: [A; T], f: impl Fn(A) -> B) -> [B; T] {
    let mut results = [f(values[0]); T];
    for index in 1..T {
        results[index] = f(values[index]);
    }
    results
}
