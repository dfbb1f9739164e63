//! Encodes weights or levels as tiles, 16 rows at a time on all cores.

use pith_format::{Encoding, TILE_ROWS, encode_block};
use rayon::prelude::*;

use crate::error::ConvertError;
use crate::passes::Member;
use crate::scan::first_index;

/// Largest value of f16, and so of its scales.
const F16_MAX: f32 = 65504.0;

/// Above this the scale of no encoding is zero in f16.
const NO_UNDERFLOW: f32 = 1e-3;

/// Part of a row's squared weights that a coarse rounding may lose, and that f16 may.
const LOST: (f64, f64) = (0.9, 1e-4);

/// Rows whose weights are lost, because the f16 numbers of their encoding are too coarse for them.
#[derive(Clone, Debug)]
pub(crate) struct LostRows {
    /// Number of rows.
    pub(crate) rows: usize,
    /// Row, column and value of the largest weight in them.
    pub(crate) largest: (usize, usize, f32),
}

impl LostRows {
    /// Those of both.
    pub(crate) fn with(self, other: Self) -> Self {
        let is_larger = other.largest.2.abs() > self.largest.2.abs();
        Self { rows: self.rows + other.rows, largest: if is_larger { other.largest } else { self.largest } }
    }
}

/// Sums over weights that give the relative error of an encoding.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deviation {
    squared_error: f64,
    squared_weight: f64,
}

impl Deviation {
    pub(crate) fn add(self, other: Self) -> Self {
        Self {
            squared_error: self.squared_error + other.squared_error,
            squared_weight: self.squared_weight + other.squared_weight,
        }
    }

    /// √(Σ(w − ŵ)² / Σw²); 0 for a matrix of zeros.
    pub(crate) fn relative(self) -> f64 {
        if self.squared_weight == 0.0 { 0.0 } else { (self.squared_error / self.squared_weight).sqrt() }
    }
}

/// A matrix or a run of its rows as the file stores it.
pub(crate) enum Encoded {
    /// Blocks of 16 rows, `block_bytes` each.
    Tiles { bytes: Vec<u8>, block_bytes: usize },
    /// Blocks of 16 rows that differ in size.
    Blocks(Vec<Vec<u8>>),
}

impl Encoded {
    /// Every block of 16 rows.
    pub(crate) fn blocks(&self) -> Vec<&[u8]> {
        match self {
            Encoded::Tiles { bytes, block_bytes } => bytes.chunks_exact(*block_bytes).collect(),
            Encoded::Blocks(blocks) => blocks.iter().map(Vec::as_slice).collect(),
        }
    }

    /// All bytes, one block after the other.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Encoded::Tiles { bytes, .. } => bytes,
            Encoded::Blocks(blocks) => blocks.concat(),
        }
    }
}

/// Encodes a matrix or a run of its rows: its levels where it is rounded, otherwise the nearest
/// ones. Fails where most of the first rows are [lost](LostRows); later ones may be padding of a
/// vocabulary.
pub(crate) fn encode(
    member: &Member,
    encoding: Encoding,
) -> Result<(Encoded, Option<LostRows>), ConvertError> {
    check_range(member, encoding)?;
    let encoded = blocks_of(member, encoding);
    let is_changed = member.repacked || member.base.is_some() || member.mask.is_some();
    if encoding == Encoding::F32 || is_changed {
        return Ok((encoded, None));
    }
    let lost = lost_rows(member, encoding, &encoded);
    if let Some(LostRows { rows, largest: (row, column, value) }) = lost {
        let used = member.weights.chunks_exact(member.cols).filter(|row| row.iter().any(|&w| w != 0.0));
        if member.first_row == 0 && 2 * rows >= used.count() {
            let (tensor, id) = (member.tensor.clone(), member.id);
            return Err(ConvertError::Underflow { tensor, id, row, column, value, encoding });
        }
    }
    Ok((encoded, lost))
}

fn blocks_of(member: &Member, encoding: Encoding) -> Encoded {
    let cols = member.cols;
    if encoding.is_indexed() {
        let weights = member.to_store();
        let blocks = weights.par_chunks(TILE_ROWS * cols).map(|weights| encoding.encode_block(weights, cols));
        return Encoded::Blocks(blocks.collect());
    }
    let block_bytes = cols.div_ceil(encoding.tile_cols()) * encoding.tile_bytes();
    let mut bytes = vec![0; member.rows().div_ceil(TILE_ROWS) * block_bytes];
    match &member.levels {
        Some(levels) => levels.pack(&mut bytes),
        None => {
            let weights = member.to_store();
            let blocks = weights.par_chunks(TILE_ROWS * cols).zip(bytes.par_chunks_mut(block_bytes));
            blocks.for_each(|(weights, tiles)| encode_block(encoding, weights, cols, tiles));
        }
    }
    Encoded::Tiles { bytes, block_bytes }
}

/// The error of encoded blocks against their weights.
pub(crate) fn deviation(member: &Member, encoding: Encoding, encoded: &Encoded) -> Deviation {
    let cols = member.cols;
    let of_block = |(block, bytes): (usize, &[u8])| {
        let at = block * TILE_ROWS * cols;
        let weights = &member.weights[at..member.weights.len().min(at + TILE_ROWS * cols)];
        let mut errors = weights.to_vec();
        if let Some(base) = &member.base {
            errors.iter_mut().zip(&base[at..]).for_each(|(error, base)| *error -= base);
        }
        subtract(encoding, cols, bytes, &mut errors);
        let sum = |values: &[f32]| values.iter().map(|&value| f64::from(value).powi(2)).sum();
        Deviation { squared_error: sum(&errors), squared_weight: sum(weights) }
    };
    let blocks = encoded.blocks().into_par_iter().enumerate();
    blocks.map(of_block).reduce(Deviation::default, Deviation::add)
}

/// Checks that every value is within the range of its encoding.
fn check_range(member: &Member, encoding: Encoding) -> Result<(), ConvertError> {
    if encoding == Encoding::F32 || member.repacked {
        return Ok(());
    }
    let limit = encoding.grouped().map_or(F16_MAX, |grouped| grouped.largest_weight());
    let Some(at) = first_index(&member.weights, |weight| weight.abs() > limit) else {
        return Ok(());
    };
    let (tensor, id, value) = (member.tensor.clone(), member.id, member.weights[at]);
    let (row, column) = (member.first_row + at / member.cols, at % member.cols);
    Err(ConvertError::Overflow { tensor, id, row, column, value, limit, encoding })
}

fn lost_rows(member: &Member, encoding: Encoding, encoded: &Encoded) -> Option<LostRows> {
    let cols = member.cols;
    let limit = if encoding.grouped().is_some() { LOST.0 } else { LOST.1 };
    let largest_of = |row: &[f32]| row.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
    let of_block = |(weights, (block, bytes)): (&[f32], (usize, &[u8]))| {
        let rows = || weights.chunks_exact(cols);
        let is_small = |row: &[f32]| {
            let largest = largest_of(row);
            largest > 0.0 && largest < NO_UNDERFLOW
        };
        if !rows().any(is_small) {
            return None;
        }
        let mut errors = weights.to_vec();
        subtract(encoding, cols, bytes, &mut errors);
        let sum = |values: &[f32]| values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
        let is_lost = |(row, errors): (&[f32], &[f32])| is_small(row) && sum(errors) > limit * sum(row);
        let lost = rows().zip(errors.chunks_exact(cols)).enumerate().filter(|&(_, both)| is_lost(both));
        let lost = lost.map(|(index, (row, _))| {
            let largest = row.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
            let (column, &value) = largest.expect("a row has columns");
            let row = member.first_row + block * TILE_ROWS + index;
            LostRows { rows: 1, largest: (row, column, value) }
        });
        lost.reduce(LostRows::with)
    };
    let blocks = encoded.blocks().into_par_iter().enumerate();
    let lost = member.weights.par_chunks(TILE_ROWS * cols).zip(blocks).filter_map(of_block);
    lost.reduce_with(LostRows::with)
}

/// Subtracts the values of a block from its weights, `rows × cols`.
fn subtract(encoding: Encoding, cols: usize, block: &[u8], weights: &mut [f32]) {
    let tile_cols = encoding.tile_cols();
    let mut tile = vec![0.0f32; TILE_ROWS * tile_cols];
    for index in 0..cols.div_ceil(tile_cols) {
        encoding.decode(block, cols, index, &mut tile);
        let start = index * tile_cols;
        let width = tile_cols.min(cols - start);
        for (row, decoded) in weights.chunks_exact_mut(cols).zip(tile.chunks_exact(tile_cols)) {
            row[start..start + width].iter_mut().zip(decoded).for_each(|(weight, value)| *weight -= value);
        }
    }
}
