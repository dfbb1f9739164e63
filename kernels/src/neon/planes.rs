//! One row block of an integer encoding: sums of [codes](super::coded), [scales and
//! minima](super::multipliers).

use super::blocks::{Block, Rounded, Rows, add_scaled, map};
use super::coded::Lines;
use super::dot::{Codes, Dot, written_out};
use super::lanes::*;
use super::multipliers::{minima, scales, zeros};
use super::panel::{self, Micro, Strips};
use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::coded::Coded;
use crate::tiles::Tiles;
use std::marker::PhantomData;

/// Row blocks of an integer encoding.
pub struct Planes<E, D>(D, PhantomData<E>);

impl<E, D> Planes<E, D> {
    /// The kernel of an encoding.
    pub fn new(dot: D) -> Self {
        Self(dot, PhantomData)
    }
}

impl<E, D: Copy> Clone for Planes<E, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, D: Copy> Copy for Planes<E, D> {}

impl<E: Lines, D: Dot> Block for Planes<E, D> {
    type Bytes<'a> = E::Bytes<'a>;
    const SHARES: bool = D::SHARES;
    const WHOLE_TOKENS: usize = D::WHOLE_TOKENS;

    #[inline(always)]
    fn one(self, bytes: E::Bytes<'_>, x: Operand<'_>) -> Rows {
        self.0.one::<Self>(bytes, x)
    }

    #[inline(always)]
    fn quads<const N: usize, const T: usize>(
        self,
        bytes: E::Bytes<'_>,
        x: [Operand<'_>; T],
        quads: [usize; N],
    ) -> [[F32x4; N]; T] {
        let groups = E::COLS / ACTIVATION_GROUP;
        let tiles = bytes.each(E::TILE_BYTES);
        let x = map(x, |x| Rounded::new(x, groups * tiles.len()));
        let mut rows = [[splat(0.0); N]; T];
        for (index, tile) in tiles.enumerate() {
            let mut x = x;
            // A closure would stay a call.
            for x in &mut x {
                *x = x.part(groups * index, groups);
            }
            if !E::SHARES_LINES {
                for group in 0..groups {
                    add_group::<E, D, 0, N, T>(self.0, quads, &mut rows, tile, group, tile, &x);
                }
                continue;
            }
            // Places and shifts of multipliers repeat after two halves.
            for pair in 0..groups.div_ceil(4) {
                written_out!(HALF: 0, 1; if const { 2 * HALF < E::COLS / ACTIVATION_GROUP } {
                    let half = 2 * pair + HALF;
                    add_group::<E, D, 0, N, T>(self.0, quads, &mut rows, tile, half, tile, &x);
                    rows = map(rows, |rows| map(rows, settled));
                    // Read again: kept from above, the bytes would need more registers than there
                    // are.
                    add_group::<E, D, 1, N, T>(self.0, quads, &mut rows, tile, half, E::again(tile), &x);
                });
            }
        }
        rows
    }
}

impl<E: Lines, D: Dot> panel::Grouped for Planes<E, D> {
    type Encoding = E;
    const GROUPS: usize = E::COLS / ACTIVATION_GROUP;
    const IS_PLAIN: bool = E::IS_PLAIN || E::ZERO_SHIFT.is_some();

    #[inline(always)]
    fn expand<M: Micro>(tile: E::Bytes<'_>, group: usize, out: Strips<'_, M>) {
        let scales = tile.first();
        if !E::SHARES_LINES {
            weights::<E, M, _>(E::group::<0>(tile, group), scales, group, out)
        } else if group.is_multiple_of(2) {
            weights::<E, M, _>(E::group::<0>(tile, group / 2), scales, group, out)
        } else {
            weights::<E, M, _>(E::group::<1>(tile, group / 2), scales, group, out)
        }
    }
}

/// Writes the weights of a group for a micro-kernel.
#[inline(always)]
fn weights<E: Coded, M: Micro, C: Codes>(codes: C, tile: &[u8], group: usize, out: Strips<'_, M>) {
    let scales = scales::<E>(tile, group, 0);
    let Some(shift) = E::ZERO_SHIFT else { return M::weights(codes, scales, out) };
    let unit = splat(1.0 / (1 << shift) as f32);
    // Each row's zero point in its four bytes.
    let zeros = map(zeros::<E>(tile, group), |zeros| bytes_of(mul_i32(zeros, splat_i32(0x0101_0101))));
    M::weights(FromZero { codes, zeros, shift: shift as i8 }, map(scales, |scales| mul(scales, unit)), out)
}

/// Levels less their zero points, in the unit of these.
#[derive(Clone, Copy)]
struct FromZero<C> {
    codes: C,
    zeros: [I8x16; 4],
    shift: i8,
}

impl<C: Codes> Codes for FromZero<C> {
    const OFFSET: i8 = 0;
    const LARGEST: i32 = 127;

    #[inline(always)]
    fn pair(self, index: usize, q: usize) -> [I8x16; 2] {
        let shift = splat_i8(self.shift);
        self.codes.signed_pair(index, q).map(|codes| sub_i8(left(codes, shift), self.zeros[q]))
    }
}

/// Adds the products of a group of a tile, `E::group(_, index)`, whose codes are in `codes`:
/// `tile` again.
#[inline(always)]
fn add_group<E: Lines, D: Dot, const PART: usize, const N: usize, const T: usize>(
    dot: D,
    quads: [usize; N],
    rows: &mut [[F32x4; N]; T],
    tile: E::Bytes<'_>,
    index: usize,
    codes: E::Bytes<'_>,
    x: &[Rounded<'_>; T],
) {
    let group = if E::SHARES_LINES { 2 * index + PART } else { index };
    let codes = E::group::<PART>(codes, index);
    let (tile, columns) = (tile.first(), map(*x, |x| x.codes(group)));
    let offset = i32::from(<E::Group<'_, PART> as Codes>::OFFSET);
    if E::IS_SPLIT {
        let start = map(*x, |x| map(x.half_sums(group), |sum| -offset * sum));
        let weight_scales = [scales::<E>(tile, group, 0), scales::<E>(tile, group, 1)];
        dot.split_sums(quads, codes, columns, start, |token, n, products| {
            for (products, weight_scales) in products.into_iter().zip(weight_scales) {
                add_scaled(&mut rows[token][n], products, weight_scales[quads[n]], x[token].scale(group));
            }
        });
    } else if let Some(shift) = E::ZERO_SHIFT {
        // Sums of levels less their zero points: multiples of 2^−shift below 2¹⁹, so exact. A panel
        // has the same sums.
        let unit = splat(-1.0 / (1 << shift) as f32);
        let zeros = map(zeros::<E>(tile, group), |zeros| mul(to_f32(zeros), unit));
        let weight_scales = scales::<E>(tile, group, 0);
        dot.sums(quads, codes, columns, [0; T], |token, n, products| {
            let products = mul_add_scalar(products, zeros[quads[n]], x[token].sum(group) as f32);
            add_scaled(&mut rows[token][n], products, weight_scales[quads[n]], x[token].scale(group));
        });
        return;
    } else {
        let start = map(*x, |x| -offset * x.sum(group));
        let weight_scales = scales::<E>(tile, group, 0);
        dot.sums(quads, codes, columns, start, |token, n, products| {
            add_scaled(&mut rows[token][n], products, weight_scales[quads[n]], x[token].scale(group));
        });
    }
    for side in 0..1 + usize::from(E::IS_SPLIT) {
        if let Some(minima) = minima::<E>(tile, group, side) {
            for (rows, x) in rows.iter_mut().zip(x) {
                let sum = if E::IS_SPLIT { x.half_sums(group)[side] } else { x.sum(group) };
                let sum = x.scale(group) * sum as f32;
                for (rows, q) in rows.iter_mut().zip(quads) {
                    *rows = mul_add_scalar(*rows, minima[q], sum);
                }
            }
        }
    }
}
