//! Rows rounded to the levels of an encoding, and the cost of rounding.

use pith_format::encoding::rounding::{Affine, Parameters, Shared, Stored};
use pith_format::encoding::{Codes, Grouped, Multiplier};
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
    /// Scales and minima: row by row, tile by tile.
    pub parameters: Parameters,
}

/// Numbers of parameters in a row of a tile: scales, factors, minima, factors of minima.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts([usize; 4]);

impl Counts {
    pub(super) fn of(encoding: Encoding, grouped: &Grouped) -> Self {
        let groups = encoding.tile_cols() / grouped.group_cols;
        let of = |multiplier: &Multiplier| (multiplier.values(groups), multiplier.integers(groups));
        let (scales, factors) = of(&grouped.scale);
        let (minima, min_factors) = grouped.minimum.as_ref().map_or((0, 0), of);
        Self([scales, factors, minima, min_factors])
    }
}

impl Rounded {
    /// Storage for rows that are still to be rounded: levels, no parameters.
    ///
    /// Panics for encodings without levels.
    pub(super) fn new(encoding: Encoding, rows: usize, cols: usize) -> Self {
        let stride = cols.next_multiple_of(encoding.tile_cols());
        let grouped = encoding.grouped().expect("an encoding with levels");
        let levels = vec![middle(&grouped); rows * stride];
        Self { encoding, rows, stride, levels, parameters: Parameters::default() }
    }

    /// Sets the parameters of all rows, in order.
    pub(super) fn set_parameters(&mut self, rows: impl IntoIterator<Item = Parameters>) {
        rows.into_iter().for_each(|row| self.parameters.append(row));
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
        let group_cols = self.grouped().group_cols;
        let mut values = Vec::with_capacity(self.rows * cols);
        for (row, levels) in self.levels.chunks_exact(self.stride).enumerate() {
            for (group, levels) in levels[..cols].chunks(group_cols).enumerate() {
                let Affine { scale, minimum } = self.affine(row, group);
                values.extend(levels.iter().map(|&level| scale * f32::from(level) + minimum));
            }
        }
        values
    }

    /// Scale and minimum of a group of a row.
    fn affine(&self, row: usize, group: usize) -> Affine {
        let grouped = self.grouped();
        let groups = self.encoding.tile_cols() / grouped.group_cols;
        let (tile, within) = (group / groups, group % groups);
        let tile = row * (self.stride / self.encoding.tile_cols()) + tile;
        let at = tile * groups + within;
        let Parameters { scales, factors, minima, min_factors } = &self.parameters;
        let of = |values: &[f32], index: usize| values.get(index).copied().unwrap_or(0.0);
        let shared = Shared { scale: of(scales, tile), minimum: of(minima, tile) };
        let stored = Stored {
            scale: of(scales, at),
            factor: factors.get(at).copied().unwrap_or(0),
            minimum: of(minima, at),
            min_factor: min_factors.get(at).copied().unwrap_or(0),
        };
        stored.affine(&grouped, shared)
    }

    /// Writes the tiles; rows missing in the last block have scales of 0.
    ///
    /// Panics unless `out` has [`Rounded::bytes`].
    pub fn pack(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.bytes());
        let (grouped, cols) = (self.grouped(), self.encoding.tile_cols());
        let tiles = self.stride / cols;
        let Counts([scales, factors, minima, min_factors]) = Counts::of(self.encoding, &grouped);
        let padding = Stored::padding(&grouped);
        let all = &self.parameters;
        for (index, out) in out.chunks_exact_mut(self.encoding.tile_bytes()).enumerate() {
            let (block, tile) = (index / tiles, index % tiles);
            let rows = TILE_ROWS.min(self.rows - block * TILE_ROWS);
            let at = |row: usize| (block * TILE_ROWS + row) * tiles + tile;
            let codes = Codes {
                levels: &gather(&self.levels, cols, rows, at, middle(&grouped)),
                scales: &gather(&all.scales, scales, rows, at, 0.0),
                factors: &gather(&all.factors, factors, rows, at, padding.factor),
                minima: &gather(&all.minima, minima, rows, at, 0.0),
                min_factors: &gather(&all.min_factors, min_factors, rows, at, padding.min_factor),
            };
            (grouped.pack)(&codes, out);
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

/// Runs of `len` values of 16 rows: `at` gives the run of each of the first `rows`, the others are
/// filled.
fn gather<T: Copy>(from: &[T], len: usize, rows: usize, at: impl Fn(usize) -> usize, fill: T) -> Vec<T> {
    let mut out = vec![fill; TILE_ROWS * len];
    for (row, out) in out.chunks_exact_mut(len.max(1)).take(rows).enumerate() {
        out.copy_from_slice(&from[at(row) * len..][..len]);
    }
    out
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
