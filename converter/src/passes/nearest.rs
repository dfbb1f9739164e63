//! Rounding to the nearest level, with the scale of the smallest squared error. Each column's error
//! is weighted by the mean square of its input (llama.cpp's importance matrix).

use super::Rounded;
use pith_format::Encoding;
use pith_format::encoding::rounding::{Parameters, round_row};
use rayon::prelude::*;

/// Rounds `rows × cols` weights. `importance`: `E[x²]` of each column; without it all columns count
/// equally.
pub fn nearest(encoding: Encoding, weights: &[f32], cols: usize, importance: Option<&[f32]>) -> Rounded {
    let rows = weights.len() / cols;
    let mut out = Rounded::new(encoding, rows, cols);
    let (grouped, stride, tile_cols) = (out.grouped(), out.stride, encoding.tile_cols());
    let importance = importance.map(|importance| padded_importance(importance, stride));
    let rows: Vec<Parameters> = weights
        .par_chunks_exact(cols)
        .zip(out.levels.par_chunks_exact_mut(stride))
        .map(|(weights, levels)| {
            let mut padded = weights.to_vec();
            padded.resize(stride, 0.0);
            let mut parameters = Parameters::default();
            for (tile, levels) in levels.chunks_exact_mut(tile_cols).enumerate() {
                let at = tile * tile_cols..(tile + 1) * tile_cols;
                let importance = importance.as_ref().map(|importance| &importance[at.clone()]);
                round_row(&grouped, &padded[at], importance, levels, &mut parameters);
            }
            parameters
        })
        .collect();
    out.set_parameters(rows);
    out
}

/// Columns that no input uses get a small importance, so that their stored values still resemble
/// the weights. Padding gets none.
fn padded_importance(importance: &[f32], stride: usize) -> Vec<f32> {
    let mean = importance.iter().sum::<f32>() / importance.len().max(1) as f32;
    let floor = (mean * 1e-4).max(f32::MIN_POSITIVE);
    let mut padded: Vec<f32> = importance.iter().map(|&value| value.max(floor)).collect();
    padded.resize(stride, floor);
    padded
}
