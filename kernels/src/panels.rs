//! Products of many tokens: a panel of weight rows is expanded once to signed bytes and multiplied
//! with all tokens while it is in the L1 cache.
//!
//! A panel is a few blocks of 16 rows × up to [`MAX_COLS`] columns, in any encoding. Its content
//! depends on the instruction set:
//!
//! With `vpdpbusd` one inner loop serves all encodings ([`PanelGroup`]). Codes are rounded again,
//! to 8 bits with one scale per row. A sum over 32 columns then needs one factor, the scale of its
//! activations, instead of a product of two. For 4-bit weights this adds a third of a percent to
//! the error they already have.
//!
//! Without `vpdpbusd`, sums of 8-bit products overflow 16 bits at once; sums of smaller levels do
//! not. These levels and their scales stay as they are.
//!
//! The inner loop reads packed activations, whose bytes are 128 too large. Its sums therefore start
//! at `−128 · Σ codes` of the row.

use crate::activations::{ACTIVATION_GROUP, Operand, PACKED_TOKENS, PackedGroup};
use crate::coded::Coded;
use crate::tiles::Tiles;
use pith_format::{Matrix, TILE_ROWS};
use std::array::from_fn;

/// Most columns of a panel.
pub const MAX_COLS: usize = 1024;

/// Most groups of 32 columns in a panel.
const MAX_GROUPS: usize = MAX_COLS / ACTIVATION_GROUP;

/// Packs of tokens that pass over a panel. Their sums wait in the L2 cache for the rows' other
/// columns.
const PACKS: usize = 86;

/// Four columns of 16 rows.
pub type Line = [u8; 64];

/// 32 columns of a panel of `B` blocks for `vpdpbusd`.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct PanelGroup<const B: usize> {
    /// Signed codes, four columns per line, block by block.
    pub lines: [[Line; B]; 8],
    /// `−128 · Σ codes` of every row.
    pub starts: [[i32; TILE_ROWS]; B],
}

impl<const B: usize> PanelGroup<B> {
    /// Zeros.
    pub const ZEROS: Self = Self { lines: [[[0; 64]; B]; 8], starts: [[0; TILE_ROWS]; B] };
}

/// One scale per row.
pub type Scales<const B: usize> = [[f32; TILE_ROWS]; B];

/// Results of a panel: `[token][block]`.
pub type Sums<const B: usize> = [[[f32; TILE_ROWS]; B]; PACKED_TOKENS];

/// The part of one instruction set, with `B` blocks per panel.
pub trait Panel<const B: usize, E: Coded> {
    /// 32 columns of a panel.
    type Group: Copy;
    /// Zeros.
    const ZEROS: Self::Group;
    /// Columns that a panel should have at most, so that the L1 cache has room for the passing
    /// activations. Panels are whole tiles: those of wide ones may be a little wider.
    const COLS: usize = MAX_COLS;

    /// Expands the tiles of one block to its place in a panel and, where rows have a single scale,
    /// writes the scales of its rows. The last tile may have more groups than the panel.
    fn expand(
        &self,
        tiles: E::Bytes<'_>,
        block: usize,
        panel: &mut [Self::Group],
        scales: &mut [f32; TILE_ROWS],
    );

    /// Prefetches `bytes` during other computation.
    fn prefetch(&self, bytes: &[u8]);

    /// `sums[t][b][r] += Σ w · x[t]`, or `=` where `fresh`; `panel` and `x` have equal lengths.
    fn add(
        &self,
        panel: &[Self::Group],
        scales: &Scales<B>,
        x: &[PackedGroup],
        fresh: bool,
        sums: &mut Sums<B>,
    );
}

/// See [`Kernels::mat_mul`](crate::Kernels::mat_mul); `x` is packed.
pub fn mat_mul<const B: usize, E: Coded, P: Panel<B, E>>(
    kernel: &P,
    w: Matrix<'_>,
    x: Operand<'_>,
    y: &mut [&mut [f32]],
) {
    x.assert_product(w, y);
    let packs = x.packed.chunks(PACKS * (x.stride() / ACTIVATION_GROUP));
    for (packs, y) in packs.zip(y.chunks_mut(PACKS * PACKED_TOKENS)) {
        multiply::<B, E, P>(kernel, w, packs, y);
    }
}

/// Multiplies up to [`PACKS`] packs of tokens.
fn multiply<const B: usize, E: Coded, P: Panel<B, E>>(
    kernel: &P,
    w: Matrix<'_>,
    x: &[PackedGroup],
    y: &mut [&mut [f32]],
) {
    let tile_count = w.cols().div_ceil(E::COLS);
    let (mut panel, mut scales) = ([P::ZEROS; MAX_GROUPS], [[0.0; TILE_ROWS]; B]);
    // All panels of a row have about the same width.
    let tiles_a_panel = tile_count.div_ceil(w.cols().div_ceil(P::COLS));
    let groups_a_tile = E::COLS / ACTIVATION_GROUP;
    let used_groups = w.cols().div_ceil(ACTIVATION_GROUP);
    let pack_count = y.len().div_ceil(PACKED_TOKENS);
    let group_count = x.len() / pack_count;
    let tiles_of = |first_block: usize, first_tile: usize| -> [E::Bytes<'_>; B] {
        from_fn(|block| match first_block + block < w.block_count() {
            true => {
                let tiles = first_tile..first_tile + tiles_a_panel;
                E::Bytes::of_block(w, first_block + block).part(E::TILE_BYTES, tiles)
            }
            false => E::Bytes::NONE,
        })
    };
    for bytes in tiles_of(0, 0).map(Tiles::streams).as_flattened() {
        kernel.prefetch(bytes);
    }
    let mut sums = [[[[0.0; TILE_ROWS]; B]; PACKED_TOKENS]; PACKS];
    for first_block in (0..w.block_count()).step_by(B) {
        for first_tile in (0..tile_count).step_by(tiles_a_panel) {
            let tiles = first_tile..tile_count.min(first_tile + tiles_a_panel);
            // Excludes the padding of the last tile.
            let groups = tiles.start * groups_a_tile..used_groups.min(tiles.end * groups_a_tile);
            let panel = &mut panel[..groups.len()];
            for (block, bytes) in tiles_of(first_block, first_tile).into_iter().enumerate() {
                if !bytes.is_empty() {
                    kernel.expand(bytes, block, panel, &mut scales[block]);
                }
            }
            // While the tokens pass over this panel, they prefetch the next one; each pack fetches
            // a share of its lines.
            let ahead = match tiles.end < tile_count {
                true => tiles_of(first_block, tiles.end),
                false => tiles_of(first_block + B, 0),
            };
            let lines =
                E::TILE_BYTES.map(|bytes| (tiles_a_panel * bytes).div_ceil(64 * pack_count).max(1) * 64);
            for (pack, sums) in sums[..pack_count].iter_mut().enumerate() {
                for (bytes, lines) in ahead.iter().flat_map(|tiles| tiles.streams().into_iter().zip(lines)) {
                    kernel.prefetch(bytes.chunks(lines).nth(pack).unwrap_or_default());
                }
                let x = &x[pack * group_count..][groups.clone()];
                kernel.add(panel, &scales, x, groups.start == 0, sums);
            }
        }
        let first_row = first_block * TILE_ROWS;
        let rows = first_row..w.rows().min(first_row + B * TILE_ROWS);
        for (sums, y) in sums.as_flattened().iter().zip(y.iter_mut()) {
            copy::<B>(sums.as_flattened(), &mut y[rows.clone()]);
        }
    }
}

/// Copies the common length. Mostly that is all rows of a panel, a length known to the compiler.
#[inline(always)]
fn copy<const B: usize>(from: &[f32], to: &mut [f32]) {
    let count = from.len().min(to.len());
    if count == B * TILE_ROWS {
        to[..B * TILE_ROWS].copy_from_slice(&from[..B * TILE_ROWS]);
    } else {
        to[..count].copy_from_slice(&from[..count]);
    }
}
