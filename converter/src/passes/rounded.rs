//! Rows rounded to the levels of an encoding, and the cost of rounding.

use half::f16;
use pith_format::encoding::{Codes, Grouped};
use pith_format::{Encoding, TILE_ROWS};
use rayon::prelude::*;

/// Rows rounded to the levels of an encoding, padded to whole tiles.
#[derive(Clone, Debug)]
pub struct Rounded {
    encoding: Encoding,
    rows: usize,
    /// Columns with their padding.
    pub(super) stride: usize,
    /// `rows × stride`.
    pub levels: Vec<i8>,
    /// Row by row: one per group, or one per tile where there are factors.
    pub scales: Vec<f16>,
    /// Row by row, one per group, where there are factors.
    pub factors: Vec<i8>,
}

impl Rounded {
    /// Storage for rows that are still to be rounded.
    ///
    /// Panics for encodings without levels.
    pub(super) fn new(encoding: Encoding, rows: usize, cols: usize) -> Self {
        let tiles = cols.div_ceil(encoding.tile_cols());
        let stride = tiles * encoding.tile_cols();
        let grouped = encoding.grouped().expect("an encoding with levels");
        let groups = stride / grouped.group_cols;
        let (scales, factors) = if grouped.factors.is_empty() { (groups, 0) } else { (tiles, groups) };
        Self {
            encoding,
            rows,
            stride,
            levels: vec![middle(&grouped); rows * stride],
            scales: vec![f16::ZERO; rows * scales],
            factors: vec![grouped.factors.first().copied().unwrap_or(0); rows * factors],
        }
    }

    /// Bytes of the tiles of these rows.
    pub fn bytes(&self) -> usize {
        let tiles = self.rows.div_ceil(TILE_ROWS) * (self.stride / self.encoding.tile_cols());
        tiles * self.encoding.tile_bytes()
    }

    /// Sets the masked weights of `rows × cols` to zero. The encoding must have a level of zero.
    pub(super) fn clear(&mut self, mask: &[bool], cols: usize) {
        let rows = self.levels.chunks_exact_mut(self.stride).zip(mask.chunks_exact(cols));
        let masked =
            rows.flat_map(|(levels, mask)| levels.iter_mut().zip(mask).filter(|(_, masked)| **masked));
        masked.for_each(|(level, _)| *level = 0);
    }

    /// The values, `rows × cols`.
    pub fn values(&self, cols: usize) -> Vec<f32> {
        let grouped = self.grouped();
        let (groups, tiles) = (self.stride / grouped.group_cols, self.stride / self.encoding.tile_cols());
        let mut values = Vec::with_capacity(self.rows * cols);
        for (row, levels) in self.levels.chunks_exact(self.stride).enumerate() {
            for (col, &level) in levels[..cols].iter().enumerate() {
                let group = row * groups + col / grouped.group_cols;
                let scale = match self.factors.get(group) {
                    Some(&factor) => {
                        self.scales[row * tiles + col / self.encoding.tile_cols()].to_f32()
                            * f32::from(factor)
                    }
                    None => self.scales[group].to_f32(),
                };
                values.push(scale * f32::from(level));
            }
        }
        values
    }

    /// Writes the tiles; rows missing in the last block have scales of 0.
    ///
    /// Panics unless `out` has [`Rounded::bytes`].
    pub fn pack(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.bytes());
        let (grouped, cols) = (self.grouped(), self.encoding.tile_cols());
        let tiles = self.stride / cols;
        let per_tile = |all: usize| all / (self.rows * tiles).max(1);
        let (scale_count, factor_count) = (per_tile(self.scales.len()), per_tile(self.factors.len()));
        let mut levels = vec![0i8; TILE_ROWS * cols];
        let mut scales = vec![f16::ZERO; TILE_ROWS * scale_count];
        let mut factors = vec![0i8; TILE_ROWS * factor_count];
        for (index, out) in out.chunks_exact_mut(self.encoding.tile_bytes()).enumerate() {
            let (block, tile) = (index / tiles, index % tiles);
            levels.fill(middle(&grouped));
            scales.fill(f16::ZERO);
            factors.fill(grouped.factors.first().copied().unwrap_or(0));
            for row in 0..TILE_ROWS.min(self.rows - block * TILE_ROWS) {
                let at = (block * TILE_ROWS + row) * tiles + tile;
                copy(&self.levels, at, row, &mut levels, cols);
                copy(&self.scales, at, row, &mut scales, scale_count);
                copy(&self.factors, at, row, &mut factors, factor_count);
            }
            (grouped.pack)(&Codes { levels: &levels, scales: &scales, factors: &factors }, out);
        }
    }

    pub(super) fn grouped(&self) -> Grouped {
        self.encoding.grouped().expect("seen when this was made")
    }
}

/// The level of padding: 0, or the nearest level above it.
fn middle(grouped: &Grouped) -> i8 {
    grouped.levels[grouped.levels.len() / 2]
}

/// Copies the `from_index`-th run of `len` values to the `to_index`-th.
fn copy<T: Copy>(from: &[T], from_index: usize, to_index: usize, to: &mut [T], len: usize) {
    to[to_index * len..][..len].copy_from_slice(&from[from_index * len..][..len]);
}

/// `e H eᵀ` summed over rows: the cost of rounding at the matrix's output, per token.
pub fn output_error(weights: &[f32], rounded: &[f32], cols: usize, gram: &[f32]) -> f64 {
    assert_eq!((weights.len(), gram.len()), (rounded.len(), cols * cols));
    let rows = weights.par_chunks_exact(cols).zip(rounded.par_chunks_exact(cols));
    let of = |(weights, rounded): (&[f32], &[f32])| -> f64 {
        let error: Vec<f64> = weights.iter().zip(rounded).map(|(w, r)| f64::from(w - r)).collect();
        let line = |gram: &[f32]| gram.iter().zip(&error).map(|(&h, e)| f64::from(h) * e).sum::<f64>();
        gram.chunks_exact(cols).zip(&error).map(|(gram, &e)| e * line(gram)).sum()
    };
    rows.map(of).sum()
}
