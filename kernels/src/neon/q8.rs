//! Q8: 16 lines of signed bytes, then the f16 scales of columns 0..32 and 32..64. Line `c` holds
//! columns 4c..4c+4 of 16 rows.

use super::blocks::{Block, Rounded, Rows, add_scaled, map};
use super::dot::{Codes, Dot};
use super::lanes::*;
use super::panel::{Grouped, Micro, Strips};
use crate::activations::Operand;
use pith_format::encoding::{Q8Tile, Tile};

/// Groups of 32 columns in a tile, each with its own scales.
const GROUPS: usize = 2;
const GROUP_BYTES: usize = 512;

/// Row blocks of Q8.
#[derive(Clone, Copy)]
pub struct Q8<D>(pub D);

impl<D: Dot> Block for Q8<D> {
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
        let (tiles, _) = bytes.as_chunks::<{ Q8Tile::BYTES }>();
        let x = map(x, |x| Rounded::<GROUPS>::new(x, tiles.len()));
        let mut rows = [[splat(0.0); N]; T];
        for (index, tile) in tiles.iter().enumerate() {
            let (codes, rest) = tile.as_chunks::<GROUP_BYTES>();
            let (scales, _) = rest.as_chunks::<32>();
            for group in 0..GROUPS {
                let weight_scales = widen_sixteen(&scales[group]);
                let add = |token: usize, n: usize, products| {
                    let scale = x[token].scale(index, group);
                    add_scaled(&mut rows[token][n], products, weight_scales[quads[n]], scale);
                };
                self.0.bytes(quads, Bytes(&codes[group]), map(x, |x| x.codes(index, group)), add);
            }
        }
        rows
    }
}

impl<D: Dot> Grouped for Q8<D> {
    const BYTES: usize = Q8Tile::BYTES;
    const GROUPS: usize = GROUPS;

    #[inline(always)]
    fn expand<M: Micro>(tile: &[u8], group: usize, out: Strips<'_, M>) {
        let (codes, rest) = tile.as_chunks::<GROUP_BYTES>();
        M::weights(Bytes(&codes[group]), widen_sixteen(&rest.as_chunks().0[group]), out);
    }
}

/// Eight lines.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8; GROUP_BYTES]);

impl Codes for Bytes<'_> {
    const OFFSET: i8 = 0;

    #[inline(always)]
    fn pair(self, index: usize, q: usize) -> [I8x16; 2] {
        let (registers, _) = self.0.as_chunks::<16>();
        [index, index + 4].map(|line| signed(load_u8(&registers[4 * line + q])))
    }
}
