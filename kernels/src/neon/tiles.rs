//! Products of a matrix in any encoding with any number of tokens.

use super::dot::Group;
use super::lanes::*;
use crate::FEW_TOKENS;
use crate::activations::{ACTIVATION_GROUP, Operand};
use pith_format::{Matrix, TILE_ROWS};

/// Sums of 16 rows.
pub type Rows = [F32x4; 4];

/// Most tokens for which a row block is read once.
pub const TOKENS: usize = 4;

/// How one block of 16 rows is multiplied.
pub trait Tiles: Copy {
    /// Tokens that one call takes at most, up to [`TOKENS`].
    const TOKENS: usize;

    /// Most tokens that one call takes whose sums have the bits that each would have alone; no more are taken where
    /// there are fewer than [`FEW_TOKENS`].
    const ALIKE: usize = Self::TOKENS;

    /// `out[t][r] = Σ_c w[r,c] · x[t,c]`; `bytes` is one block of the encoding that this stands for.
    fn block<const T: usize>(self, bytes: &[u8], x: [Operand<'_>; T]) -> [Rows; T];
}

/// See [`Kernels::mat_mul`](crate::Kernels::mat_mul). A block stays in the first-level cache while all tokens pass.
#[inline(always)]
pub fn mat_mul<E: Tiles>(tiles: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
    let (rows, tokens) = (w.rows(), x.tokens());
    x.assert_product(w, y);
    let most = if tokens < FEW_TOKENS { E::ALIKE } else { E::TOKENS };
    for block_index in 0..w.block_count() {
        let bytes = w.block(block_index);
        let first_row = block_index * TILE_ROWS;
        let mut token = 0;
        while token < tokens {
            let out = &mut y[token..];
            token += match (tokens - token).min(most) {
                4 => run::<E, 4>(tiles, bytes, x, token, rows, first_row, out),
                3 => run::<E, 3>(tiles, bytes, x, token, rows, first_row, out),
                2 => run::<E, 2>(tiles, bytes, x, token, rows, first_row, out),
                _ => run::<E, 1>(tiles, bytes, x, token, rows, first_row, out),
            };
        }
    }
}

/// One block for `T` tokens from `token` on, the first of `out`. Returns `T`.
#[inline(always)]
fn run<E: Tiles, const T: usize>(
    tiles: E,
    bytes: &[u8],
    x: Operand<'_>,
    token: usize,
    rows: usize,
    first_row: usize,
    out: &mut [&mut [f32]],
) -> usize {
    let sums = tiles.block::<T>(bytes, std::array::from_fn(|offset| x.token(token + offset)));
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

/// The rounded activations of a token, `G` groups of 32 columns to a tile.
#[derive(Clone, Copy)]
pub struct Rounded<'a, const G: usize> {
    codes: &'a [[[i8; ACTIVATION_GROUP]; G]],
    scales: &'a [[f32; G]],
    sums: &'a [[i32; G]],
}

impl<'a, const G: usize> Rounded<'a, G> {
    /// The first `tile_count` tiles; tokens are padded to whole tiles of every encoding.
    #[inline(always)]
    pub fn new(x: Operand<'a>, tile_count: usize) -> Self {
        Self {
            codes: &x.codes.as_chunks().0.as_chunks().0[..tile_count],
            scales: &x.scales.as_chunks().0[..tile_count],
            sums: &x.sums.as_chunks().0[..tile_count],
        }
    }

    /// The codes of one group.
    #[inline(always)]
    pub fn codes(&self, tile: usize, group: usize) -> Group {
        let (halves, _) = self.codes[tile][group].as_chunks::<16>();
        [load_i8(&halves[0]), load_i8(&halves[1])]
    }

    /// Their scale.
    #[inline(always)]
    pub fn scale(&self, tile: usize, group: usize) -> f32 {
        self.scales[tile][group]
    }

    /// Their sum.
    #[inline(always)]
    pub fn sum(&self, tile: usize, group: usize) -> i32 {
        self.sums[tile][group]
    }
}

/// `rows += products · (weight_scales · scale)`.
#[inline(always)]
pub fn add_scaled(rows: &mut Rows, products: [I32x4; 4], weight_scales: [F32x4; 4], scale: f32) {
    for (q, row) in rows.iter_mut().enumerate() {
        *row = mul_add(*row, to_f32(products[q]), mul_scalar(weight_scales[q], scale));
    }
}
