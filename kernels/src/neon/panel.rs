//! Products with many tokens. The weights of a few row blocks × some hundred columns are expanded
//! once to int8, in the instruction's operand order, and stay in the L1 cache while all tokens
//! pass.
//!
//! ```text
//! panel        2 row blocks × 512 columns, 4 strips of 8 rows
//! micro-kernel 1 strip × 4 tokens: 8 registers of products, 8 of sums
//! ```
//! The products of a group are integers, and groups are added in column order as for a single
//! token: the results are the same to the last bit. Partial sums stay in `y` from one panel to the
//! next.

use super::blocks::Block;
use super::dot::Codes;
use super::lanes::F32x4;
use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::coded::Coded;
use crate::tiles::Tiles;
use pith_format::{Matrix, TILE_ROWS};

/// Rows of a micro-kernel.
pub const STRIP_ROWS: usize = 8;
/// Tokens of a micro-kernel.
pub const MICRO_TOKENS: usize = 4;
/// Groups of 32 columns in a panel.
const GROUPS: usize = 16;
/// Row blocks in a panel: int8 codes and f32 scales of both take about 20 KB.
const BLOCKS: usize = 2;
const STRIPS: usize = BLOCKS * STRIPS_IN_BLOCK;
const STRIPS_IN_BLOCK: usize = TILE_ROWS / STRIP_ROWS;

/// Sums of a micro-kernel: `[token][row]`.
pub type Sums = [[f32; STRIP_ROWS]; MICRO_TOKENS];

/// Destination of 16 rows × 32 columns: the first 8 rows, then the other 8.
pub type Strips<'a, M> = [&'a mut <M as Micro>::Weights; STRIPS_IN_BLOCK];

/// An encoding whose codes fit int8.
pub trait Grouped: Block {
    /// The encoding.
    type Encoding: for<'a> Coded<Bytes<'a> = Self::Bytes<'a>>;
    /// Groups of 32 columns in a tile; divides the group count of a panel.
    const GROUPS: usize;
    /// Whether a group has one scale and no minimum but that of a zero point. Others have no panels.
    const IS_PLAIN: bool;

    /// Expands the `group`-th 32 columns of a tile to `M`'s order.
    fn expand<M: Micro>(tile: Self::Bytes<'_>, group: usize, out: Strips<'_, M>);
}

/// Consecutive groups of one token.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    /// Codes of each group.
    pub codes: &'a [[i8; ACTIVATION_GROUP]],
    /// Their scales.
    pub scales: &'a [f32],
}

/// A micro-kernel; a value of it proves that the CPU has the instructions.
pub trait Micro: Copy {
    /// 8 rows × 32 columns.
    type Weights: Copy + Default;
    /// Buffer for reordering tokens, per group.
    type Scratch: Copy + Default;
    /// Four tokens in its order.
    type Tokens<'a>: Copy;

    /// Writes the weights of 16 rows.
    fn weights<C: Codes>(codes: C, scales: [F32x4; 4], out: Strips<'_, Self>);

    /// Reorders four tokens; `scratch` has room for as many groups.
    fn tokens<'a>(x: [Columns<'a>; MICRO_TOKENS], scratch: &'a mut [Self::Scratch]) -> Self::Tokens<'a>;

    /// `sums[t][r] += Σ_c weights[r,c] · tokens[t,c]`, group by group.
    fn multiply(self, weights: &[Self::Weights], tokens: Self::Tokens<'_>, sums: &mut Sums);
}

/// See [`Kernels::mat_mul`](crate::Kernels::mat_mul).
pub fn mat_mul<E: Grouped, M: Micro>(micro: M, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
    x.assert_product(w, y);
    let group_count = w.cols().next_multiple_of(E::GROUPS * ACTIVATION_GROUP) / ACTIVATION_GROUP;
    let mut weights = [[M::Weights::default(); GROUPS]; STRIPS];
    let mut scratch = [M::Scratch::default(); GROUPS];
    for first_block in (0..w.block_count()).step_by(BLOCKS) {
        let block_count = BLOCKS.min(w.block_count() - first_block);
        for first_group in (0..group_count).step_by(GROUPS) {
            let count = GROUPS.min(group_count - first_group);
            for index in 0..block_count {
                let tiles = first_group / E::GROUPS..(first_group + count) / E::GROUPS;
                let tiles = E::Bytes::of_block(w, first_block + index).part(E::Encoding::TILE_BYTES, tiles);
                expand::<E, M>(tiles, &mut weights[index * STRIPS_IN_BLOCK..]);
            }
            for token in (0..x.tokens()).step_by(MICRO_TOKENS) {
                let columns = std::array::from_fn(|offset| columns(x, token + offset, first_group, count));
                let tokens = M::tokens(columns, &mut scratch[..count]);
                for (index, weights) in weights[..block_count * STRIPS_IN_BLOCK].iter().enumerate() {
                    let row = first_block * TILE_ROWS + index * STRIP_ROWS;
                    if row < w.rows() {
                        let y = &mut y[token..];
                        let mut sums = if first_group == 0 { Sums::default() } else { read(y, row) };
                        micro.multiply(&weights[..count], tokens, &mut sums);
                        write(y, row, &sums);
                    }
                }
            }
        }
    }
}

/// Expands whole tiles to the two strips of their block.
#[inline(always)]
fn expand<E: Grouped, M: Micro>(tiles: E::Bytes<'_>, strips: &mut [[M::Weights; GROUPS]]) {
    let [first, second] = strips.first_chunk_mut().expect("the strips of a block");
    let groups = first.chunks_exact_mut(E::GROUPS).zip(second.chunks_exact_mut(E::GROUPS));
    for (tile, (first, second)) in tiles.each(E::Encoding::TILE_BYTES).zip(groups) {
        for (group, out) in first.iter_mut().zip(second).enumerate() {
            E::expand::<M>(tile, group, out.into());
        }
    }
}

/// Groups of a token; behind the last token, that token again, with results that are discarded.
#[inline(always)]
fn columns(x: Operand<'_>, token: usize, first_group: usize, count: usize) -> Columns<'_> {
    let token = x.token(token.min(x.tokens() - 1));
    let (codes, _) = token.codes.as_chunks();
    Columns { codes: &codes[first_group..][..count], scales: &token.scales[first_group..][..count] }
}

/// Sums in `y` for the first tokens and the strip at `row`; zeros behind the last row and token.
#[inline(always)]
fn read(y: &[&mut [f32]], row: usize) -> Sums {
    let mut sums = Sums::default();
    for (sums, y) in sums.iter_mut().zip(y) {
        match y[row..].first_chunk() {
            Some(whole) => *sums = *whole,
            None => sums[..y.len() - row].copy_from_slice(&y[row..]),
        }
    }
    sums
}

/// Writes sums back to `y`.
#[inline(always)]
fn write(y: &mut [&mut [f32]], row: usize, sums: &Sums) {
    for (sums, y) in sums.iter().zip(y) {
        match y[row..].first_chunk_mut() {
            Some(whole) => *whole = *sums,
            None => {
                let count = y.len() - row;
                y[row..].copy_from_slice(&sums[..count]);
            }
        }
    }
}
