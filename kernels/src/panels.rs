//! Products of many tokens: a panel of weight rows becomes bytes once and is multiplied with all tokens while it is in
//! the nearest cache.
//!
//! A panel is a few blocks of 16 rows × up to [`COLS`] columns, every code an unsigned or signed byte and every 32
//! columns with a scale of their own, whatever the encoding: one inner loop serves them all.

use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::blocks::Groups;
use pith_format::encoding::{Q4G64Tile, Q4Tile, Q8Tile, Tile};
use pith_format::{Matrix, TILE_ROWS};
use std::array::from_fn;
use std::ops::Range;

/// Columns of a panel: 32 rows of them take two thirds of a first-level cache of 48 KB.
const COLS: usize = 1024;

/// Groups of 32 columns in a panel.
const GROUPS: usize = COLS / ACTIVATION_GROUP;

/// From this many tokens on a panel is worth its expansion.
pub const MIN_TOKENS: usize = 12;

/// Four columns of 16 rows.
pub type Line = [u8; 64];

/// The codes of a panel of `B` blocks: group, four columns of the group, block.
pub type Codes<const B: usize> = [[[Line; B]; 8]; GROUPS];

/// One scale a row: group, block.
pub type Scales<const B: usize> = [[[f32; TILE_ROWS]; B]; GROUPS];

/// `[token][block]`: results of a panel.
pub type Sums<const B: usize, const T: usize> = [[[f32; TILE_ROWS]; B]; T];

/// How a tile of an encoding becomes part of a panel.
pub trait Expand {
    /// The tile.
    type Tile: Tile;
    /// What codes are too large by: a power of two, or 0.
    const OFFSET: i32;

    /// Calls `put` with every line of `tile`: group of 32 columns, four columns of the group, codes.
    fn lines(tile: &[u8], put: impl FnMut(usize, usize, Line));

    /// The f16 scales of a group of 32 columns.
    fn scales(tile: &[u8], group: usize) -> &[u8; 32];
}

/// Q4 as 0..=15.
pub struct Q4;

/// Q4G64 as 0..=15.
pub struct Q4G64;

/// Q8 as 0..=255.
pub struct Q8;

/// Q8 as it is.
pub struct SignedQ8;

impl Expand for Q4 {
    type Tile = Q4Tile;
    const OFFSET: i32 = 8;

    #[inline(always)]
    fn lines(tile: &[u8], mut put: impl FnMut(usize, usize, Line)) {
        for (index, line) in tile.as_chunks().0[..8].iter().enumerate() {
            let (group, line_of_group) = (index / 4, index % 4);
            put(group, line_of_group, low_nibbles(line));
            put(group, line_of_group + 4, high_nibbles(line));
        }
    }

    #[inline(always)]
    fn scales(tile: &[u8], group: usize) -> &[u8; 32] {
        &tile[512..].as_chunks().0[group]
    }
}

impl Expand for Q4G64 {
    type Tile = Q4G64Tile;
    const OFFSET: i32 = 8;

    #[inline(always)]
    fn lines(tile: &[u8], mut put: impl FnMut(usize, usize, Line)) {
        for (index, line) in tile.as_chunks().0[..16].iter().enumerate() {
            let (wide_group, line_of_group) = (index / 8, index % 8);
            put(2 * wide_group, line_of_group, low_nibbles(line));
            put(2 * wide_group + 1, line_of_group, high_nibbles(line));
        }
    }

    #[inline(always)]
    fn scales(tile: &[u8], group: usize) -> &[u8; 32] {
        &tile[1024..].as_chunks().0[group / 2]
    }
}

impl Expand for Q8 {
    type Tile = Q8Tile;
    const OFFSET: i32 = 128;

    #[inline(always)]
    fn lines(tile: &[u8], mut put: impl FnMut(usize, usize, Line)) {
        SignedQ8::lines(tile, |group, line_of_group, line| {
            put(group, line_of_group, line.map(|code| code ^ 0x80))
        });
    }

    #[inline(always)]
    fn scales(tile: &[u8], group: usize) -> &[u8; 32] {
        SignedQ8::scales(tile, group)
    }
}

impl Expand for SignedQ8 {
    type Tile = Q8Tile;
    const OFFSET: i32 = 0;

    #[inline(always)]
    fn lines(tile: &[u8], mut put: impl FnMut(usize, usize, Line)) {
        for (index, line) in tile.as_chunks().0[..16].iter().enumerate() {
            put(index / 8, index % 8, *line);
        }
    }

    #[inline(always)]
    fn scales(tile: &[u8], group: usize) -> &[u8; 32] {
        &tile[1024..].as_chunks().0[group]
    }
}

#[inline(always)]
fn low_nibbles(line: &Line) -> Line {
    line.map(|byte| byte & 15)
}

#[inline(always)]
fn high_nibbles(line: &Line) -> Line {
    line.map(|byte| byte >> 4)
}

/// An instruction set's part: `B` blocks to a panel.
pub trait Panel<const B: usize> {
    /// Most tokens of a call of [`Panel::add`], at most 6.
    const TOKENS: usize;

    /// [`expand`], with the instructions at hand.
    fn expand<E: Expand>(&self, tiles: &[u8], block: usize, codes: &mut Codes<B>, scales: &mut Scales<B>);

    /// `sums[t][b][r] += Σ (codes − offset) · x[t]` over all groups of `x`.
    fn add<const T: usize>(
        &self,
        codes: &Codes<B>,
        scales: &Scales<B>,
        offset: i32,
        x: [Groups<'_>; T],
        sums: &mut Sums<B, T>,
    );
}

/// Writes the tiles of one block into its place in a panel; `widen` converts 16 f16.
#[inline(always)]
pub fn expand<const B: usize, E: Expand>(
    tiles: &[u8],
    block: usize,
    codes: &mut Codes<B>,
    scales: &mut Scales<B>,
    widen: impl Fn(&[u8; 32]) -> [f32; TILE_ROWS],
) {
    let groups = E::Tile::COLS / ACTIVATION_GROUP;
    let panel = codes.chunks_exact_mut(groups).zip(scales.chunks_exact_mut(groups));
    for (tile, (codes, scales)) in tiles.chunks_exact(E::Tile::BYTES).zip(panel) {
        E::lines(tile, |group, four, line| codes[group][four][block] = line);
        for (group, scales) in scales.iter_mut().enumerate() {
            scales[block] = widen(E::scales(tile, group));
        }
    }
}

/// See [`Kernels::mat_mul`](crate::Kernels::mat_mul).
pub fn mat_mul<const B: usize, E: Expand, P: Panel<B>>(
    panel: &P,
    w: Matrix<'_>,
    x: Operand<'_>,
    y: &mut [&mut [f32]],
) {
    x.assert_product(w, y);
    let tile_count = w.cols().div_ceil(E::Tile::COLS);
    let (mut codes, mut scales) = ([[[[0; 64]; B]; 8]; GROUPS], [[[0.0; TILE_ROWS]; B]; GROUPS]);
    for first_block in (0..w.block_count()).step_by(B) {
        for first_tile in (0..tile_count).step_by(COLS / E::Tile::COLS) {
            let tiles = first_tile..tile_count.min(first_tile + COLS / E::Tile::COLS);
            for block in 0..B.min(w.block_count() - first_block) {
                let bytes = tiles.start * E::Tile::BYTES..tiles.end * E::Tile::BYTES;
                panel.expand::<E>(&w.block(first_block + block)[bytes], block, &mut codes, &mut scales);
            }
            let groups_a_tile = E::Tile::COLS / ACTIVATION_GROUP;
            let part = Part {
                first_row: first_block * TILE_ROWS,
                groups: tiles.start * groups_a_tile..tiles.end * groups_a_tile,
                codes: &codes,
                scales: &scales,
                offset: E::OFFSET,
            };
            let mut token = 0;
            while token < x.tokens() {
                token += match (x.tokens() - token).min(P::TOKENS) {
                    6.. => part.multiply::<6>(panel, x, token, y),
                    5 => part.multiply::<5>(panel, x, token, y),
                    4 => part.multiply::<4>(panel, x, token, y),
                    3 => part.multiply::<3>(panel, x, token, y),
                    2 => part.multiply::<2>(panel, x, token, y),
                    _ => part.multiply::<1>(panel, x, token, y),
                };
            }
        }
    }
}

/// A panel and where it comes from.
struct Part<'a, const B: usize> {
    first_row: usize,
    /// Groups of the operand that it meets.
    groups: Range<usize>,
    codes: &'a Codes<B>,
    scales: &'a Scales<B>,
    offset: i32,
}

impl<const B: usize> Part<'_, B> {
    /// Adds the products with `T` tokens from `first` on, or sets them where this is the first part of the rows.
    /// Returns `T`.
    fn multiply<const T: usize>(
        &self,
        panel: &impl Panel<B>,
        x: Operand<'_>,
        first: usize,
        y: &mut [&mut [f32]],
    ) -> usize {
        let x = from_fn(|token| Groups::new(x.token(first + token), self.groups.end).skip(self.groups.start));
        let y = &mut y[first..first + T];
        let rows = self.first_row..y[0].len().min(self.first_row + B * TILE_ROWS);
        let mut sums = [[[0.0; TILE_ROWS]; B]; T];
        if self.groups.start > 0 {
            for (sums, y) in sums.iter_mut().zip(y.iter()) {
                sums.as_flattened_mut()[..rows.len()].copy_from_slice(&y[rows.clone()]);
            }
        }
        panel.add::<T>(self.codes, self.scales, self.offset, x, &mut sums);
        for (sums, y) in sums.iter().zip(y) {
            y[rows.clone()].copy_from_slice(&sums.as_flattened()[..rows.len()]);
        }
        T
    }
}
