//! GPTQ (Frantar et al., arXiv 2210.17323): rounds one column at a time and adjusts the remaining
//! columns to cancel the error. `docs/quantizing.md` explains it with an example.
//!
//! With `H = U D Uᵀ`, `U` unit upper triangular, the cost of a row's errors `e` is a sum of
//! squares, `e H eᵀ = Σ_j D_j (e_j + Σ_{k<j} e_k U_kj)²`. Given the columns before it, the best
//! choice for column `j` is therefore to round the target `w_j + Σ_{k<j} e_k U_kj`. This is the
//! published update, written in the errors so far instead of the weights to come. It needs one
//! triangular factor of `H` and no inverse.
//!
//! A group's scale is chosen when its turn comes, for the weights as adjusted by then, with `D` as
//! importance.

use super::Rounded;
use faer::linalg::solvers::Solve;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use pith_format::Encoding;
use pith_format::encoding::Grouped;
use pith_format::encoding::rounding::{
    Affine, Nearest, Parameters, ROUNDED_COLS, Shared, Stored, choose, fit, share,
};
use rayon::prelude::*;
use std::ops::Range;

/// Rows that one thread rounds together.
const BAND_ROWS: usize = 64;

/// A factored Hessian, ready for rounding.
#[derive(Debug)]
pub struct Feedback {
    cols: usize,
    /// `U`, row-major: row `k` holds the share of column `k`'s error that each later column takes
    /// over.
    factor: Vec<f32>,
    /// `D`: the cost of a column's squared error.
    pivots: Vec<f32>,
    damping: f64,
    shift: Option<Shift>,
}

/// Adjustment of the weights to the inputs of a rounded model.
///
/// With rounded matrices before it, a matrix has the input `x̂` where the dense model has `x`. The
/// weights that come closest to the dense output are `W + W · E[(x − x̂) x̂ᵀ] · H⁻¹` with
/// `H = E[x̂ x̂ᵀ]`, and these are rounded. Rounding again changes `x̂` too, so only a share of the
/// adjustment is applied: on a model of 5M parameters in 2 bits that leaves 0.67 of the divergence,
/// the whole adjustment 1.15.
#[derive(Debug)]
pub struct Shift {
    /// `cols × cols`, row-major: the weights times this matrix are added to the weights.
    change: Vec<f32>,
}

/// Share of the adjustment that is applied.
const SHIFT: f64 = 0.3;

/// The Hessian could not be factored.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum FeedbackError {
    /// A diagonal entry is not a number or negative, or all are zero.
    #[error("entry {column} of the Hessian's diagonal is {value}")]
    Diagonal {
        /// Index of the entry.
        column: usize,
        /// Its value.
        value: f64,
    },
    /// Not positive definite, even when damped.
    #[error(
        "the Hessian is singular even with {damping} of its mean diagonal added: calibrate with more text"
    )]
    Singular {
        /// Largest damping tried, as a share of the mean diagonal.
        damping: f64,
    },
}

impl Feedback {
    /// Factors `H` (`cols × cols`, row-major) after adding `damping` times its mean diagonal to the
    /// diagonal. If that fails, the damping grows tenfold, up to 1. Inputs that were always 0 get
    /// the mean of the diagonal.
    ///
    /// `cross`: `E[(x − x̂) x̂ᵀ]`, where `gram` is of `x̂` and weights are to be [shifted](Shift).
    pub fn new(
        gram: &[f32],
        cols: usize,
        damping: f64,
        cross: Option<&[f32]>,
    ) -> Result<Self, FeedbackError> {
        assert_eq!(gram.len(), cols * cols);
        assert!(cross.is_none_or(|cross| cross.len() == cols * cols));
        let diagonal: Vec<f64> = (0..cols).map(|column| f64::from(gram[column * cols + column])).collect();
        if let Some(column) = diagonal.iter().position(|&value| !(value >= 0.0 && value.is_finite())) {
            return Err(FeedbackError::Diagonal { column, value: diagonal[column] });
        }
        let mean = diagonal.iter().sum::<f64>() / cols as f64;
        if mean == 0.0 {
            return Err(FeedbackError::Diagonal { column: 0, value: 0.0 });
        }
        let mut damping = damping;
        loop {
            // In reverse order, so that the lower factor of this matrix is the upper one of H.
            let at = |index: usize| cols - 1 - index;
            let damped = Mat::from_fn(cols, cols, |row, col| {
                let (row, col) = (at(row), at(col));
                let value = f64::from(gram[row * cols + col]);
                let extra = if diagonal[row] == 0.0 { mean } else { damping * mean };
                if row == col { value + extra } else { value }
            });
            match damped.llt(Side::Lower) {
                Ok(factored) => {
                    let lower = factored.L();
                    let mut factor = vec![0.0f32; cols * cols];
                    factor.par_chunks_exact_mut(cols).enumerate().for_each(|(k, row)| {
                        for (j, value) in row.iter_mut().enumerate().skip(k) {
                            let (i, column) = (cols - 1 - k, cols - 1 - j);
                            *value = (lower[(i, column)] / lower[(column, column)]) as f32;
                        }
                    });
                    let pivots = (0..cols).map(|j| lower[(cols - 1 - j, cols - 1 - j)].powi(2) as f32);
                    let shift = cross.map(|cross| {
                        let cross = MatRef::from_row_major_slice(cross, cols, cols);
                        // (C H⁻¹)ᵀ = H⁻¹ Cᵀ, with the rows of H in their order of factoring.
                        let transposed =
                            Mat::from_fn(cols, cols, |row, col| f64::from(cross[(col, at(row))]));
                        let solved = factored.solve(&transposed);
                        let mut change = vec![0.0f32; cols * cols];
                        for index in 0..cols {
                            for row in 0..cols {
                                change[row * cols + at(index)] = (SHIFT * solved[(index, row)]) as f32;
                            }
                        }
                        Shift { change }
                    });
                    let pivots = pivots.collect();
                    return Ok(Self { cols, factor, pivots, damping, shift });
                }
                Err(_) if damping >= 1.0 => return Err(FeedbackError::Singular { damping }),
                Err(_) => damping = (damping * 10.0).clamp(1e-6, 1.0),
            }
        }
    }

    /// The damping that was added, as a share of the mean diagonal.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    /// Peak memory of a factorization in bytes, its inputs included, for matrices of `cols`
    /// columns.
    pub fn peak_bytes(cols: usize, shifted: bool) -> usize {
        let entry = 2 * size_of::<f64>() + 2 * size_of::<f32>();
        let shift = if shifted { 2 * size_of::<f64>() + 2 * size_of::<f32>() } else { 0 };
        cols * cols * (entry + shift)
    }

    /// Rounds `rows × cols` weights. Those under the mask become zero, and the columns after them
    /// cancel that error like any other (SparseGPT: Frantar and Alistarh, arXiv 2301.00774).
    ///
    /// Panics if the mask's length differs from that of the weights, or if a mask is given for an
    /// encoding without a zero.
    pub fn round(&self, encoding: Encoding, weights: &[f32], mask: Option<&[bool]>) -> Rounded {
        let cols = self.cols;
        assert!(weights.len().is_multiple_of(cols) && mask.is_none_or(|mask| mask.len() == weights.len()));
        let has_zero = encoding.grouped().is_some_and(|grouped| grouped.has_zero());
        assert!(mask.is_none() || has_zero, "{encoding} has no zero");
        let rows = weights.len() / cols;
        let mut out = Rounded::new(encoding, rows, cols);
        if rows == 0 {
            return out;
        }
        let no_mask = vec![None; rows.div_ceil(BAND_ROWS)];
        let masks = mask.map_or(no_mask, |mask| mask.chunks(BAND_ROWS * cols).map(Some).collect());
        let bands: Vec<Parameters> = weights
            .par_chunks(BAND_ROWS * cols)
            .zip(masks)
            .zip(out.levels.par_chunks_mut(BAND_ROWS * out.stride))
            .map(|((weights, mask), levels)| {
                let shifted = self.shift.as_ref().map(|shift| shift.of(weights, cols));
                let weights = shifted.as_deref().unwrap_or(weights);
                Band { feedback: self, encoding, weights, mask, levels }.round()
            })
            .collect();
        out.set_parameters(bands);
        out
    }
}

impl Shift {
    fn of(&self, weights: &[f32], cols: usize) -> Vec<f32> {
        let mut shifted = weights.to_vec();
        let rows = weights.len() / cols;
        let change = MatRef::from_row_major_slice(&self.change, cols, cols);
        let out = MatMut::from_row_major_slice_mut(&mut shifted, rows, cols);
        let weights = MatRef::from_row_major_slice(weights, rows, cols);
        faer::linalg::matmul::matmul(out, Accum::Add, weights, change, 1.0, Par::Seq);
        shifted
    }
}

/// Rows that one thread rounds together.
struct Band<'a> {
    feedback: &'a Feedback,
    encoding: Encoding,
    weights: &'a [f32],
    mask: Option<&'a [bool]>,
    levels: &'a mut [i8],
}

impl Band<'_> {
    /// Rounds all tiles; tiles of a row follow each other in the parameters.
    fn round(mut self) -> Parameters {
        let cols = self.feedback.cols;
        let grouped = self.encoding.grouped().expect("seen when the rows were made");
        let rows = self.weights.len() / cols;
        let tile_cols = self.encoding.tile_cols();
        let mut errors = vec![0.0f32; rows * cols];
        let mut target = vec![0.0f32; rows * tile_cols];
        let mut parameters = vec![Parameters::default(); rows];
        for first in (0..cols).step_by(tile_cols) {
            let columns = first..cols.min(first + tile_cols);
            self.targets(&errors, columns.clone(), &mut target);
            let width = columns.len();
            for (row, parameters) in parameters.iter_mut().enumerate() {
                let target = &mut target[row * width..][..width];
                let errors = &mut errors[row * cols..][columns.clone()];
                let (shared, stored) = self.round_tile_row(&grouped, row, columns.clone(), target, errors);
                parameters.push(&grouped, shared, &stored);
            }
        }
        let mut all = Parameters::default();
        parameters.into_iter().for_each(|row| all.append(row));
        all
    }

    /// `w_j + Σ_{k < first} e_k U_kj` for the columns, `rows × columns`.
    fn targets(&self, errors: &[f32], columns: Range<usize>, target: &mut [f32]) {
        let cols = self.feedback.cols;
        let (rows, width) = (self.weights.len() / cols, columns.len());
        let target = &mut target[..rows * width];
        for (target, weights) in target.chunks_exact_mut(width).zip(self.weights.chunks_exact(cols)) {
            target.copy_from_slice(&weights[columns.clone()]);
        }
        if columns.start == 0 {
            return;
        }
        let errors = MatRef::from_row_major_slice(errors, rows, cols).subcols(0, columns.start);
        let factor = MatRef::from_row_major_slice(&self.feedback.factor, cols, cols);
        let factor = factor.submatrix(0, columns.start, columns.start, width);
        let target = MatMut::from_row_major_slice_mut(target, rows, width);
        faer::linalg::matmul::matmul(target, Accum::Add, errors, factor, 1.0, Par::Seq);
    }

    /// The weights from column `first` on if none of them were rounded: together they cancel the
    /// error of the columns before as well as possible. `target` holds the target of each by
    /// itself; those under the mask are zero.
    fn free(&self, first: usize, weights: &[f32], target: &[f32], mask: Option<&[bool]>) -> Vec<f32> {
        let mut free = target.to_vec();
        for at in 0..free.len() {
            if mask.is_some_and(|mask| mask[at]) {
                free[at] = 0.0;
            }
            let error = weights[at] - free[at];
            let factor = &self.feedback.factor[(first + at) * self.feedback.cols + first..][..free.len()];
            for (free, factor) in free[at + 1..].iter_mut().zip(&factor[at + 1..]) {
                *free += error * factor;
            }
        }
        free
    }

    /// Rounds one row of a tile. `target`: its weights, adjusted for the errors of the tiles
    /// before. Padding of the row's last groups keeps its level: no input ever meets it.
    fn round_tile_row(
        &mut self,
        grouped: &Grouped,
        row: usize,
        columns: Range<usize>,
        target: &mut [f32],
        errors: &mut [f32],
    ) -> (Shared, Vec<Stored>) {
        let (cols, group) = (self.feedback.cols, grouped.group_cols);
        let tile_cols = self.encoding.tile_cols();
        let stride = cols.next_multiple_of(tile_cols);
        let pivots = &self.feedback.pivots[columns.clone()];
        let nearest = Nearest::new(grouped);
        let weights = &self.weights[row * cols + columns.start..][..target.len()];
        let mask = self.mask.map(|mask| &mask[row * cols + columns.start..][..target.len()]);
        let free = self.free(columns.start, weights, target, mask);
        let fitted = free.chunks(group).zip(pivots.chunks(group));
        let shared = match grouped.has_factors() {
            true => share(grouped, fitted.map(|(free, pivots)| fit_padded(grouped, free, pivots))),
            false => Shared::default(),
        };
        let mut groups = vec![Stored::padding(grouped); tile_cols / group];
        for (start, stored) in (0..target.len()).step_by(group).zip(&mut groups) {
            let end = target.len().min(start + group);
            let part = mask.map(|mask| &mask[start..end]);
            let free = self.free(columns.start + start, &weights[start..end], &target[start..end], part);
            let (free, importance) = padded(&free, &pivots[start..end]);
            let fitted = fit(grouped, &free, Some(&importance));
            *stored = choose(grouped, &free, Some(&importance), fitted, shared);
            let affine = stored.affine(grouped, shared);
            let inverse = affine.inverse();
            for at in start..end {
                let is_masked = mask.is_some_and(|mask| mask[at]);
                let level =
                    if is_masked { 0.0 } else { nearest.level((target[at] - affine.minimum) * inverse) };
                self.levels[row * stride + columns.start + at] = level as i8;
                // The error of the weight itself, not of the target: the rows of the factor apply
                // to it.
                let error = weights[at] - (affine.scale * level + affine.minimum);
                errors[at] = error;
                let factor =
                    &self.feedback.factor[(columns.start + at) * cols + columns.start..][..target.len()];
                for (target, factor) in target[at + 1..].iter_mut().zip(&factor[at + 1..]) {
                    *target += error * factor;
                }
            }
        }
        (shared, groups)
    }
}

/// [`fit`] of a group whose last columns may be missing.
fn fit_padded(grouped: &Grouped, weights: &[f32], importance: &[f32]) -> Affine {
    let (weights, importance) = padded(weights, importance);
    fit(grouped, &weights, Some(&importance))
}

/// Pads to a multiple of [`ROUNDED_COLS`] with weights of no importance.
fn padded(weights: &[f32], importance: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let len = weights.len().next_multiple_of(ROUNDED_COLS);
    let extend = |values: &[f32], value: f32| {
        let mut values = values.to_vec();
        values.resize(len, value);
        values
    };
    // Equal to a weight of the group, so that they do not widen its range.
    (extend(weights, weights.last().copied().unwrap_or(0.0)), extend(importance, 0.0))
}
