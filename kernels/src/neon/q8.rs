//! Q8: 16 lines of signed bytes, line `c` holding columns 4c..4c+4 of 16 rows, then the f16 scales of columns
//! 0..32 and 32..64.

use super::dot::{Codes, Dot};
use super::lanes::*;
use super::tiles::{Rounded, Rows, Tiles, add_scaled};
use crate::activations::Operand;
use pith_format::encoding::{Q8Tile, Tile};

/// Groups of 32 columns in a tile, each with its own scales.
const GROUPS: usize = 2;
const GROUP_BYTES: usize = 512;

/// Row blocks of Q8.
#[derive(Clone, Copy)]
pub struct Q8<D>(pub D);

impl<D: Dot> Tiles for Q8<D> {
    const TOKENS: usize = D::TOKENS;

    #[inline(always)]
    fn block<const T: usize>(self, bytes: &[u8], x: [Operand<'_>; T]) -> [Rows; T] {
        let (tiles, _) = bytes.as_chunks::<{ Q8Tile::BYTES }>();
        let x = x.map(|x| Rounded::<GROUPS>::new(x, tiles.len()));
        let mut rows = [[splat(0.0); 4]; T];
        for (index, tile) in tiles.iter().enumerate() {
            let (codes, rest) = tile.as_chunks::<GROUP_BYTES>();
            let (scales, _) = rest.as_chunks::<32>();
            for group in 0..GROUPS {
                let products = self.0.bytes(Bytes(&codes[group]), x.map(|x| x.codes(index, group)));
                let weight_scales = widen_sixteen(&scales[group]);
                for (token, rows) in rows.iter_mut().enumerate() {
                    add_scaled(rows, products[token], weight_scales, x[token].scale(index, group));
                }
            }
        }
        rows
    }
}

/// Eight lines.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8; GROUP_BYTES]);

impl Codes for Bytes<'_> {
    #[inline(always)]
    fn pair(self, index: usize, q: usize) -> [I8x16; 2] {
        let (registers, _) = self.0.as_chunks::<16>();
        [index, index + 4].map(|line| signed(load_u8(&registers[4 * line + q])))
    }
}
