//! F32 and F16: four lines per tile; line `k` holds column `k` of 16 rows.

use super::blocks::{Block, Rows, map};
use super::lanes::*;
use crate::activations::Operand;
use pith_format::encoding::{F16Tile, F32Tile, Tile};

/// Row blocks of F32.
#[derive(Clone, Copy)]
pub struct F32;

impl Block for F32 {
    type Bytes<'a> = &'a [u8];
    const SHARES: bool = true;
    const WHOLE_TOKENS: usize = 2;

    #[inline(always)]
    fn one(self, bytes: &[u8], x: Operand<'_>) -> Rows {
        one_f32(bytes, x)
    }

    #[inline(always)]
    fn quads<const N: usize, const T: usize>(
        self,
        bytes: &[u8],
        x: [Operand<'_>; T],
        quads: [usize; N],
    ) -> [[F32x4; N]; T] {
        let (tiles, _) = bytes.as_chunks::<{ F32Tile::BYTES }>();
        multiply(tiles, x, quads, |tile, column| {
            let (values, _) = tile.as_chunks::<16>();
            [0, 1, 2, 3].map(|q| float(load_u8(&values[4 * column + q])))
        })
    }
}

/// Row blocks of F16.
#[derive(Clone, Copy)]
pub struct F16;

impl Block for F16 {
    type Bytes<'a> = &'a [u8];
    const SHARES: bool = true;
    const WHOLE_TOKENS: usize = 2;

    #[inline(always)]
    fn one(self, bytes: &[u8], x: Operand<'_>) -> Rows {
        one_f16(bytes, x)
    }

    #[inline(always)]
    fn quads<const N: usize, const T: usize>(
        self,
        bytes: &[u8],
        x: [Operand<'_>; T],
        quads: [usize; N],
    ) -> [[F32x4; N]; T] {
        let (tiles, _) = bytes.as_chunks::<{ F16Tile::BYTES }>();
        multiply(tiles, x, quads, |tile, column| widen_sixteen(&tile.as_chunks::<32>().0[column]))
    }
}

/// One token, as a function that can be found in the assembly.
#[inline(never)]
fn one_f32(bytes: &[u8], x: Operand<'_>) -> Rows {
    let [rows] = F32.multiply(bytes, [x]);
    rows
}

/// One token, as a function that can be found in the assembly.
#[inline(never)]
fn one_f16(bytes: &[u8], x: Operand<'_>) -> Rows {
    let [rows] = F16.multiply(bytes, [x]);
    rows
}

/// `line(tile, k)` is column `k` of a tile. Odd and even columns have separate sums: for one token
/// a single chain of dependent additions would take longer than its loads. Several tokens add in
/// the same order.
#[inline(always)]
fn multiply<const BYTES: usize, const N: usize, const T: usize>(
    tiles: &[[u8; BYTES]],
    x: [Operand<'_>; T],
    quads: [usize; N],
    line: impl Fn(&[u8; BYTES], usize) -> Rows,
) -> [[F32x4; N]; T] {
    let line = |tile, column| {
        let rows = line(tile, column);
        quads.map(|q| rows[q])
    };
    let x = map(x, |x| &x.floats.as_chunks::<4>().0[..tiles.len()]);
    let mut even = [[splat(0.0); N]; T];
    let mut odd = even;
    for (index, tile) in tiles.iter().enumerate() {
        let x = map(x, |x| load_f32(&x[index]));
        add_column::<0, N, T>(&mut even, line(tile, 0), &x);
        add_column::<1, N, T>(&mut odd, line(tile, 1), &x);
        add_column::<2, N, T>(&mut even, line(tile, 2), &x);
        add_column::<3, N, T>(&mut odd, line(tile, 3), &x);
    }
    std::array::from_fn(|token| std::array::from_fn(|q| add(even[token][q], odd[token][q])))
}

#[inline(always)]
fn add_column<const COLUMN: i32, const N: usize, const T: usize>(
    sums: &mut [[F32x4; N]; T],
    weights: [F32x4; N],
    x: &[F32x4; T],
) {
    for (sums, x) in sums.iter_mut().zip(x) {
        for (sum, weights) in sums.iter_mut().zip(weights) {
            *sum = mul_add_lane::<COLUMN>(*sum, weights, *x);
        }
    }
}
