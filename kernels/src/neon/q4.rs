//! Q4 and Q4G64. The low nibbles of a group's lines are its first half of columns, the high nibbles
//! its second half; the f16 scales of a tile's two groups follow its lines.
//! `weight = scale · (code − 8)`, so products start from −8 · Σ activations.
//!
//! ```text
//! Q4     4 lines a group; activations 0..32 meet low and high nibbles of the same lines
//! Q4G64  8 lines a group; activations 0..32 meet the low nibbles, 32..64 the high ones
//! ```

use super::blocks::{Block, Rounded, Rows, add_scaled, map};
use super::dot::{Codes, Dot};
use super::lanes::*;
use super::panel::{Grouped, Micro, Strips};
use crate::activations::Operand;
use pith_format::encoding::{Q4G64Tile, Q4Tile, Tile};

const OFFSET: i8 = 8;

/// Row blocks of Q4.
#[derive(Clone, Copy)]
pub struct Q4<D>(pub D);

impl<D: Dot> Block for Q4<D> {
    const TOKENS: usize = D::TOKENS;
    const WHOLE_TOKENS: usize = D::WHOLE_TOKENS;

    #[inline(always)]
    fn one(self, bytes: &[u8], x: Operand<'_>) -> Rows {
        self.0.one::<Self>(bytes, x)
    }

    #[inline(always)]
    fn quads<const N: usize, const T: usize>(
        self,
        bytes: &[u8],
        x: [Operand<'_>; T],
        quads: [usize; N],
    ) -> [[F32x4; N]; T] {
        let (tiles, _) = bytes.as_chunks::<{ Q4Tile::BYTES }>();
        let x = map(x, |x| Rounded::<2>::new(x, tiles.len()));
        let mut rows = [[splat(0.0); N]; T];
        for (index, tile) in tiles.iter().enumerate() {
            let (codes, rest) = tile.as_chunks::<256>();
            let (scales, _) = rest.as_chunks::<32>();
            for group in 0..2 {
                let weight_scales = widen_sixteen(&scales[group]);
                add_group(self.0, quads, &mut rows, Both(&codes[group]), weight_scales, &x, index, group);
            }
        }
        rows
    }
}

impl<D: Dot> Grouped for Q4<D> {
    const BYTES: usize = Q4Tile::BYTES;
    const GROUPS: usize = 2;

    #[inline(always)]
    fn expand<M: Micro>(tile: &[u8], group: usize, out: Strips<'_, M>) {
        let (codes, scales) = tile.split_at(512);
        let codes = &codes.as_chunks().0[group];
        M::weights(Both(codes), widen_sixteen(&scales.as_chunks().0[group]), out);
    }
}

/// Row blocks of Q4G64.
#[derive(Clone, Copy)]
pub struct Q4G64<D>(pub D);

impl<D: Dot> Block for Q4G64<D> {
    const TOKENS: usize = D::TOKENS;
    const WHOLE_TOKENS: usize = D::WHOLE_TOKENS;

    #[inline(always)]
    fn one(self, bytes: &[u8], x: Operand<'_>) -> Rows {
        self.0.one::<Self>(bytes, x)
    }

    #[inline(always)]
    fn quads<const N: usize, const T: usize>(
        self,
        bytes: &[u8],
        x: [Operand<'_>; T],
        quads: [usize; N],
    ) -> [[F32x4; N]; T] {
        let (tiles, _) = bytes.as_chunks::<{ Q4G64Tile::BYTES }>();
        let x = map(x, |x| Rounded::<4>::new(x, tiles.len()));
        let mut rows = [[splat(0.0); N]; T];
        for (index, tile) in tiles.iter().enumerate() {
            let (codes, rest) = tile.as_chunks::<512>();
            let (scales, _) = rest.as_chunks::<32>();
            for group in 0..2 {
                let weight_scales = widen_sixteen(&scales[group]);
                let low = Low(&codes[group]);
                add_group(self.0, quads, &mut rows, low, weight_scales, &x, index, 2 * group);
                rows = map(rows, |rows| map(rows, settled));
                // Read again: kept from above, the bytes would need more registers than there are.
                let high = High(again(&codes[group]));
                add_group(self.0, quads, &mut rows, high, weight_scales, &x, index, 2 * group + 1);
            }
        }
        rows
    }
}

impl<D: Dot> Grouped for Q4G64<D> {
    const BYTES: usize = Q4G64Tile::BYTES;
    const GROUPS: usize = 4;

    #[inline(always)]
    fn expand<M: Micro>(tile: &[u8], group: usize, out: Strips<'_, M>) {
        let (codes, scales) = tile.split_at(1024);
        let codes = &codes.as_chunks().0[group / 2];
        let scales = widen_sixteen(&scales.as_chunks().0[group / 2]);
        if group.is_multiple_of(2) {
            M::weights(Low(codes), scales, out)
        } else {
            M::weights(High(codes), scales, out)
        }
    }
}

/// Adds the products of 32 columns, the `group`-th of tile `index`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the group, and what it is added to")]
fn add_group<D: Dot, const G: usize, const N: usize, const T: usize>(
    dot: D,
    quads: [usize; N],
    rows: &mut [[F32x4; N]; T],
    codes: impl Codes,
    weight_scales: [F32x4; 4],
    x: &[Rounded<'_, G>; T],
    index: usize,
    group: usize,
) {
    let (mut columns, mut start) = ([x[0].codes(index, group); T], [0; T]);
    for token in 0..T {
        columns[token] = x[token].codes(index, group);
        start[token] = -i32::from(OFFSET) * x[token].sum(index, group);
    }
    dot.nibbles(quads, codes, columns, start, |token, n, products| {
        let scale = x[token].scale(index, group);
        add_scaled(&mut rows[token][n], products, weight_scales[quads[n]], scale);
    });
}

/// Four rows of a line.
#[inline(always)]
fn load<const BYTES: usize>(codes: &[u8; BYTES], line: usize, q: usize) -> U8x16 {
    load_u8(&codes.as_chunks::<16>().0[4 * line + q])
}

/// Four lines, low and high nibbles.
#[derive(Clone, Copy)]
struct Both<'a>(&'a [u8; 256]);

impl Codes for Both<'_> {
    const OFFSET: i8 = OFFSET;

    #[inline(always)]
    fn pair(self, index: usize, q: usize) -> [I8x16; 2] {
        let bytes = load(self.0, index, q);
        [low_nibbles(bytes), high_nibbles(bytes)]
    }
}

/// The low nibbles of eight lines.
#[derive(Clone, Copy)]
struct Low<'a>(&'a [u8; 512]);

impl Codes for Low<'_> {
    const OFFSET: i8 = OFFSET;

    #[inline(always)]
    fn pair(self, index: usize, q: usize) -> [I8x16; 2] {
        [low_nibbles(load(self.0, index, q)), low_nibbles(load(self.0, index + 4, q))]
    }
}

/// The high nibbles of eight lines.
#[derive(Clone, Copy)]
struct High<'a>(&'a [u8; 512]);

impl Codes for High<'_> {
    const OFFSET: i8 = OFFSET;

    #[inline(always)]
    fn pair(self, index: usize, q: usize) -> [I8x16; 2] {
        [high_nibbles(load(self.0, index, q)), high_nibbles(load(self.0, index + 4, q))]
    }
}
