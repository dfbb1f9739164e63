//! Encodings in bit planes. A tile has 128 columns in two halves of 64, each with its own lines. A
//! half's two groups of 32 columns are the low and the high nibbles of the same lines.
//!
//! ```text
//! plane   lines of a half   bits of four f = 0..8 of a group, in nibble `PART`
//! 4       8                 line f, all
//! 2       4                 line f mod 4, from 2 · ⌊f / 4⌋
//! 1       2                 line f mod 2, from ⌊f / 2⌋
//! ```
//! [`coded`](super::coded) turns them into codes.

use super::blocks::{Block, Rounded, Rows, add_scaled, map};
use super::dot::{Codes, Dot, One};
use super::lanes::*;
use super::panel::{self, Micro, Strips};
use crate::activations::Operand;
use pith_format::encoding::{Grouped, Tile};
use std::marker::PhantomData;

/// An encoding in planes.
pub trait Coded: Copy + Send + Sync + 'static {
    /// Its tile.
    type Tile: Tile;
    /// Bits of all planes.
    const BITS: usize;
    /// Code minus the number it stands for.
    const OFFSET: i8;
    /// Largest absolute value that [`Coded::pair`] returns.
    const LARGEST: i32;
    /// The format's description of groups.
    const GROUPED: Grouped = <Self::Tile as Tile>::GROUPED.expect("codes have groups");

    /// [`Codes::pair`] of the group of a half in nibble `PART`.
    fn pair<const PART: usize>(tile: &[u8], half: usize, index: usize, q: usize) -> [I8x16; 2];
}

/// 16 rows × 32 columns of a tile.
#[derive(Clone, Copy)]
struct Group<'a, E, const PART: usize>(&'a [u8], usize, PhantomData<E>);

impl<E: Coded, const PART: usize> Codes for Group<'_, E, PART> {
    const OFFSET: i8 = E::OFFSET;

    #[inline(always)]
    fn pair(self, index: usize, q: usize) -> [I8x16; 2] {
        E::pair::<PART>(self.0, self.1, index, q)
    }
}

/// Row blocks of an encoding in planes.
#[derive(Clone, Copy)]
pub struct Planes<E, D>(pub E, pub D);

impl<E: Coded, D: Dot> Block for Planes<E, D>
where
    Self: One,
{
    const TOKENS: usize = D::TOKENS;
    const WHOLE_TOKENS: usize = D::WHOLE_TOKENS;

    #[inline(always)]
    fn one(self, bytes: &[u8], x: Operand<'_>) -> Rows {
        self.1.one::<Self>(bytes, x)
    }

    #[inline(always)]
    fn quads<const N: usize, const T: usize>(
        self,
        bytes: &[u8],
        x: [Operand<'_>; T],
        quads: [usize; N],
    ) -> [[F32x4; N]; T] {
        let tiles = bytes.chunks_exact(E::Tile::BYTES);
        let x = map(x, |x| Rounded::<4>::new(x, tiles.len()));
        let mut rows = [[splat(0.0); N]; T];
        for (index, tile) in tiles.enumerate() {
            for half in 0..2 {
                add_group::<E, D, 0, N, T>(self.1, quads, &mut rows, tile, &x, index, half);
                rows = map(rows, |rows| map(rows, settled));
                // Read again: kept from above, the bytes would need more registers than there are.
                add_group::<E, D, 1, N, T>(self.1, quads, &mut rows, again_bytes(tile), &x, index, half);
            }
        }
        rows
    }
}

impl<E: Coded, D: Dot> panel::Grouped for Planes<E, D>
where
    Self: One,
{
    const BYTES: usize = E::Tile::BYTES;
    const GROUPS: usize = 4;

    #[inline(always)]
    fn expand<M: Micro>(tile: &[u8], group: usize, out: Strips<'_, M>) {
        let half = group / 2;
        if group.is_multiple_of(2) {
            M::weights(Group::<E, 0>(tile, half, PhantomData), scales::<E, 0>(tile, half), out)
        } else {
            M::weights(Group::<E, 1>(tile, half, PhantomData), scales::<E, 1>(tile, half), out)
        }
    }
}

/// Adds the products of the `PART`-th 32 columns of a half of tile `index`.
#[inline(always)]
fn add_group<E: Coded, D: Dot, const PART: usize, const N: usize, const T: usize>(
    dot: D,
    quads: [usize; N],
    rows: &mut [[F32x4; N]; T],
    tile: &[u8],
    x: &[Rounded<'_, 4>; T],
    index: usize,
    half: usize,
) {
    let group = 2 * half + PART;
    let (mut columns, mut start) = ([x[0].codes(index, group); T], [0; T]);
    for token in 0..T {
        columns[token] = x[token].codes(index, group);
        start[token] = -i32::from(E::OFFSET) * x[token].sum(index, group);
    }
    let weight_scales = scales::<E, PART>(tile, half);
    let add = |token: usize, n: usize, products| {
        let scale = x[token].scale(index, group);
        add_scaled(&mut rows[token][n], products, weight_scales[quads[n]], scale);
    };
    let codes = Group::<E, PART>(tile, half, PhantomData);
    match E::LARGEST {
        ..=15 => dot.nibbles(quads, codes, columns, start, add),
        _ => dot.levels(quads, codes, columns, start, add),
    }
}

/// Scales of the levels of a group. The product of a factor and a scale is exact.
#[inline(always)]
fn scales<E: Coded, const PART: usize>(tile: &[u8], half: usize) -> [F32x4; 4] {
    let (_, rest) = tile.split_at(256 * E::BITS);
    let index = if E::GROUPED.group_cols == 64 { half } else { 0 };
    let scales = widen_sixteen(&rest.as_chunks().0[index]);
    if E::GROUPED.scale.factors().is_empty() {
        return scales;
    }
    let codes = nibbles::<PART>(load_u8(&rest.as_chunks().0[2 + half]));
    let table = E::GROUPED.scale.factors().first_chunk().expect("a factor for each nibble");
    let factors = widen_bytes(lookup(load_i8(table), codes));
    std::array::from_fn(|q| mul(scales[q], factors[q]))
}

/// Four rows of a line of the plane of `BITS` bits that begins at `plane`.
#[inline(always)]
pub fn load<const BITS: usize>(plane: &[u8], half: usize, line: usize, q: usize) -> U8x16 {
    let (_, lines) = plane.split_at(128 * BITS * half);
    load_u8(&lines.as_chunks::<16>().0[4 * line + q])
}

/// Nibbles of a part.
#[inline(always)]
pub fn nibbles<const PART: usize>(bytes: U8x16) -> U8x16 {
    if PART == 0 { and(bytes, splat_u8(15)) } else { shift_right(bytes, 4) }
}
