//! The loop over a matrix that all instruction sets share. Row blocks are the outer loop, so that a
//! block's weights stay in the L1 cache while all tokens pass over them.

use crate::FEW_TOKENS;
use crate::activations::{ACTIVATION_GROUP, Operand};
use crate::coded::Coded;
use pith_format::{Matrix, TILE_ROWS};

/// Results of one block: `[token][row]`.
pub type Sums<const N: usize> = [[f32; TILE_ROWS]; N];

/// The inner loop of one encoding on one instruction set.
pub trait Block {
    /// Most tokens worked on together: 1, 2, 4 or 8, as many as the registers hold.
    const TOKENS: usize;

    /// Most tokens worked on together whose sums have the same bits as each token alone. It is the
    /// limit in calls of fewer than [`FEW_TOKENS`] tokens.
    const ALIKE: usize = Self::TOKENS;

    /// `Σ_c w[r,c] · x[t,c]` for the 16 rows of a block and the `N` tokens of `x`, each padded to
    /// whole tiles.
    fn multiply<const N: usize>(&self, w: Matrix<'_>, block_index: usize, x: [Operand<'_>; N]) -> Sums<N>;
}

/// [`Kernels::mat_vec`](crate::Kernels::mat_vec) with `block` as inner loop.
pub fn mat_vec(block: impl Block, w: Matrix<'_>, x: Operand<'_>, y: &mut [f32]) {
    x.assert_product(w, &[&mut *y]);
    let x = x.token(0);
    for (block_index, y) in y.chunks_mut(TILE_ROWS).enumerate() {
        let [sums] = block.multiply::<1>(w, block_index, [x]);
        y.copy_from_slice(&sums[..y.len()]);
    }
}

/// [`Kernels::mat_mul`](crate::Kernels::mat_mul) with `block` as inner loop.
pub fn mat_mul<B: Block>(block: B, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
    let tokens = x.tokens();
    x.assert_product(w, y);
    let most = if tokens < FEW_TOKENS { B::ALIKE } else { B::TOKENS };
    for block_index in 0..w.block_count() {
        let mut first = 0;
        while first < tokens {
            let left = (tokens - first).min(most);
            first += match left {
                8.. => one::<B, 8>(&block, w, block_index, x, first, y),
                4.. => one::<B, 4>(&block, w, block_index, x, first, y),
                2.. => one::<B, 2>(&block, w, block_index, x, first, y),
                _ => one::<B, 1>(&block, w, block_index, x, first, y),
            };
        }
    }
}

/// Multiplies one block with tokens `first .. first + N`; returns `N`.
fn one<B: Block, const N: usize>(
    block: &B,
    w: Matrix<'_>,
    block_index: usize,
    x: Operand<'_>,
    first: usize,
    y: &mut [&mut [f32]],
) -> usize {
    let tokens = std::array::from_fn(|offset| x.token(first + offset));
    let sums = block.multiply::<N>(w, block_index, tokens);
    let row = block_index * TILE_ROWS;
    let count = TILE_ROWS.min(w.rows() - row);
    for (sums, y) in sums.iter().zip(&mut y[first..]) {
        y[row..][..count].copy_from_slice(&sums[..count]);
    }
    N
}

/// Rounded activations of one token, group by group.
#[derive(Clone, Copy)]
pub struct Groups<'a> {
    /// Codes of each group.
    pub codes: &'a [[i8; ACTIVATION_GROUP]],
    /// `x ≈ scale · code`.
    pub scales: &'a [f32],
    /// Sum of each group's codes.
    pub sums: &'a [i32],
    /// Sum of the first half of each group's codes; of groups of padding too.
    pub half_sums: &'a [i32],
}

impl<'a> Groups<'a> {
    /// The first `count` groups of one token.
    pub fn new(x: Operand<'a>, count: usize) -> Self {
        let codes = &x.codes.as_chunks().0[..count];
        Self { codes, scales: &x.scales[..count], sums: &x.sums[..count], half_sums: x.half_sums }
    }

    /// Sum of the codes of a group that meet the same scale: of a half where halves have their own,
    /// otherwise of all.
    #[inline(always)]
    pub fn part_sum<E: Coded>(&self, group: usize, half: usize) -> i32 {
        match E::IS_SPLIT {
            false => self.sums[group],
            true => part_sum::<E>(self.sums[group], self.half_sums[group], half),
        }
    }
}

/// [`Groups::part_sum`] of a group with these sums of all its codes and of the first half.
#[inline(always)]
pub fn part_sum<E: Coded>(sum: i32, half_sum: i32, half: usize) -> i32 {
    match (E::IS_SPLIT, half) {
        (false, _) => sum,
        (true, 0) => half_sum,
        (true, _) => sum - half_sum,
    }
}
