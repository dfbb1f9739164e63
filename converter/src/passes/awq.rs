//! Activation-aware scales (AWQ: Lin et al., arXiv 2306.00978). Column `j` of the matrices after a
//! norm, or after another matrix, is multiplied by `s_j`, and the tensor that produces their inputs
//! is divided by it. A larger `s_j` makes the error of column `j` smaller relative to the largest
//! weight of its group.
//!
//! `s_j = E[|x_j|]^α`, divided by the geometric mean of the smallest and the largest. Of 20 values
//! of `α` between 0 and 1, the one is chosen with which rounding to the nearest level changes the
//! outputs least; `α = 0` is no change. The change of the outputs is `Σ e H eᵀ` over rows `e` of
//! `(round(W·s)/s − W)` with `H = E[x xᵀ]`, here over at most [`SAMPLE_ROWS`] rows of each matrix.

use std::ops::Range;
use std::sync::Arc;

use faer::{Accum, MatMut, MatRef, Par};
use pith_format::{Encoding, ModelConfig, Progress, Role, TensorId};

use super::change::Changes;
use super::nearest::nearest;
use super::{Group, Outline, Pass, PassError, PassReport, Planned};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::families::Binding;
use crate::checkpoint::rows::load_rows;
use crate::recipe::Transform;
use crate::statistics::{Site, Statistics};

/// Number of values of `α` to try.
const STEPS: usize = 20;

/// Rows of a matrix that the comparison uses.
const SAMPLE_ROWS: usize = 256;

/// Smallest scale before the division by the geometric mean, for columns that no input uses.
const LEAST: f32 = 1e-4;

/// The matrices that read one input, and the tensors that produce it.
struct Place {
    layer: usize,
    site: Site,
    /// Vectors and matrices whose rows are divided.
    before: &'static [Role],
    /// Matrices whose columns are multiplied.
    behind: &'static [Role],
}

/// Pass that scales the columns of matrices and divides the tensors that produce their inputs.
#[derive(Default)]
pub(crate) struct Awq {
    changes: Changes,
}

impl Pass for Awq {
    fn name(&self) -> &'static str {
        Transform::Awq.name()
    }

    fn prepare(
        &mut self,
        checkpoint: &Checkpoint,
        outline: &Outline,
        statistics: Option<&Statistics>,
        progress: &dyn Progress,
    ) -> Result<(), PassError> {
        let statistics = statistics.expect("checked with the recipe");
        if statistics.info().is_pair() {
            let reason = "the calibration is of a pair of models; give that of one".into();
            return Err(PassError::Transform { name: self.name(), reason });
        }
        self.changes = all_scales(checkpoint, outline, statistics, progress)?;
        Ok(())
    }

    fn apply(&self, group: &mut Group, _: Option<&Statistics>) -> Result<PassReport, PassError> {
        // Members read one input, so the scales of their columns are the same.
        let origin = group.members.first().map(|member| member.origin);
        group.input_scales = origin.and_then(|id| self.changes.col_scales(id)).cloned();
        Ok(self.changes.apply(group))
    }
}

/// Searches the scales of a model for the encodings of the outline.
fn all_scales(
    checkpoint: &Checkpoint,
    outline: &Outline,
    statistics: &Statistics,
    progress: &dyn Progress,
) -> Result<Changes, PassError> {
    let model = &outline.model;
    let find = |layer: usize, role: Role| outline.find(TensorId::layer(role, layer));
    let mut changes = Changes::default();
    for place in places(model, &|layer, role| find(layer, role).is_some()) {
        if progress.is_interrupted() {
            return Err(PassError::Interrupted);
        }
        progress.item(&format!("scales of layer {}", place.layer));
        let behind: Vec<&Planned> = place.behind.iter().filter_map(|&role| find(place.layer, role)).collect();
        // Unrounded matrices lose nothing. Where this file rounds none of a place's matrices, the
        // scales assume a later rounding to 4 bits, the usual choice.
        let rounded = behind.iter().filter_map(|tensor| {
            let encoding = tensor.encoding.filter(|encoding| encoding.grouped().is_some())?;
            Some((&tensor.source, encoding))
        });
        let mut rounded: Vec<_> = rounded.collect();
        if rounded.is_empty() {
            rounded.extend(behind.iter().map(|tensor| (&tensor.source, Encoding::Q4)));
        }
        // Query heads of one key/value head share the values whose rows are divided.
        let attention = model.layers[place.layer].attention().filter(|_| place.site == Site::Output);
        let heads = attention.map(|attention| (attention.head_dim, attention.query_heads.as_slice()));
        let Some(scales) = Search::new(checkpoint, statistics, &place, &rounded, heads)?.best() else {
            continue;
        };
        let narrow = match heads {
            Some((head_dim, query_heads)) => once(&scales, head_dim, query_heads),
            None => scales.clone(),
        };
        let inverse: Arc<[f32]> = narrow.iter().map(|scale| 1.0 / scale).collect();
        for &role in place.before {
            changes.entry(TensorId::layer(role, place.layer)).row_scales = Some(Arc::clone(&inverse));
        }
        let scales: Arc<[f32]> = scales.into();
        for tensor in behind {
            changes.entry(tensor.id).col_scales = Some(Arc::clone(&scales));
        }
    }
    Ok(changes)
}

/// Places where scales can be inserted.
fn places(model: &ModelConfig, has: &dyn Fn(usize, Role) -> bool) -> Vec<Place> {
    let mut places = Vec::new();
    for (layer, config) in model.layers.iter().enumerate() {
        let mut add = |site, before, behind| places.push(Place { layer, site, before, behind });
        let attention = [Role::MixerNorm, Role::MixerNormBias].as_slice();
        let shared = config.parallel && !has(layer, Role::FfnNorm);
        if has(layer, Role::MixerNorm) {
            let behind: &[Role] = match shared {
                true => &[Role::Query, Role::Key, Role::Value, Role::Gate, Role::Up],
                false => &[Role::Query, Role::Key, Role::Value],
            };
            add(Site::Attention, attention, behind);
        }
        add(Site::Output, &[Role::Value, Role::ValueBias], &[Role::AttentionOutput]);
        if has(layer, Role::FfnNorm) {
            add(Site::Ffn, &[Role::FfnNorm, Role::FfnNormBias], &[Role::Gate, Role::Up]);
        }
        // Without a gate the non-linearity lies between up and down.
        if has(layer, Role::Gate) {
            add(Site::Down, &[Role::Up, Role::UpBias], &[Role::Down]);
        }
    }
    places
}

/// The columns of the first query head of each key/value head.
fn once(scales: &[f32], head_dim: usize, query_heads: &[usize]) -> Vec<f32> {
    groups(head_dim, query_heads).flat_map(|group| &scales[group][..head_dim]).copied().collect()
}

/// The mean over the query heads of each key/value head, repeated for every one of them.
fn shared(values: &[f32], head_dim: usize, query_heads: &[usize]) -> Vec<f32> {
    let mut means = values.to_vec();
    for group in groups(head_dim, query_heads) {
        let (heads, count) = (&mut means[group.clone()], group.len() / head_dim);
        for col in 0..head_dim {
            let mean = (0..count).map(|head| heads[head * head_dim + col]).sum::<f32>() / count as f32;
            (0..count).for_each(|head| heads[head * head_dim + col] = mean);
        }
    }
    means
}

/// The columns of the query heads that share each key/value head.
fn groups(head_dim: usize, query_heads: &[usize]) -> impl Iterator<Item = Range<usize>> {
    query_heads.iter().scan(0, move |end, heads| {
        let start = *end;
        *end += heads * head_dim;
        Some(start..*end)
    })
}

/// Inputs of the search for `α`.
struct Search {
    cols: usize,
    /// `E[|x|]`.
    magnitude: Vec<f32>,
    mean_square: Vec<f32>,
    gram: Vec<f32>,
    /// Sample rows of each matrix, and the encoding it is rounded to.
    samples: Vec<(Vec<f32>, Encoding)>,
}

impl Search {
    fn new(
        checkpoint: &Checkpoint,
        statistics: &Statistics,
        place: &Place,
        rounded: &[(&Binding, Encoding)],
        heads: Option<(usize, &[usize])>,
    ) -> Result<Self, PassError> {
        let (layer, site, id) = (Some(place.layer), place.site, rounded[0].0.id);
        let (cols, found) = (rounded[0].0.cols, statistics.cols(layer, site)?);
        if cols != found {
            return Err(PassError::CalibrationCols { id, expected: cols, found });
        }
        let stats = statistics.stats(layer, site)?;
        let gram = statistics.gram(layer, site)?.ok_or(PassError::NoHessians { id })?.to_full();
        let magnitude = match heads {
            Some((head_dim, query_heads)) => shared(&stats.mean_abs, head_dim, query_heads),
            None => stats.mean_abs,
        };
        let samples = rounded.iter().map(|&(binding, encoding)| {
            let count = binding.rows.min(SAMPLE_ROWS);
            let chosen = (0..count).map(|sample| sample * binding.rows / count);
            let mut rows = Vec::with_capacity(count * cols);
            if binding.transposed || binding.survey.is_some() {
                // One row of such a tensor cannot be read without the others.
                let all = load_rows(checkpoint, binding, 0..binding.rows)?;
                chosen.for_each(|row| rows.extend_from_slice(&all[row * cols..][..cols]));
            } else {
                for row in chosen {
                    rows.extend(load_rows(checkpoint, binding, row..row + 1)?);
                }
            }
            Ok((rows, encoding))
        });
        let samples = samples.collect::<Result<_, PassError>>()?;
        Ok(Self { cols, magnitude, mean_square: stats.mean_square, gram, samples })
    }

    /// The scales of the smallest cost; `None` where no scales reduce it.
    fn best(&self) -> Option<Vec<f32>> {
        let mut best = (self.cost(None), None);
        for step in 1..STEPS {
            let scales = scales(&self.magnitude, step as f32 / STEPS as f32);
            let cost = self.cost(Some(&scales));
            if cost < best.0 {
                best = (cost, Some(scales));
            }
        }
        best.1
    }

    /// `Σ e H eᵀ` over all samples.
    fn cost(&self, scales: Option<&[f32]>) -> f64 {
        let scale = |col: usize| scales.map_or(1.0, |scales| scales[col]);
        let importance: Vec<f32> =
            self.mean_square.iter().enumerate().map(|(col, square)| square / scale(col).powi(2)).collect();
        let of = |(weights, encoding): &(Vec<f32>, Encoding)| {
            let cols = self.cols;
            let scaled = weights.iter().enumerate().map(|(at, weight)| weight * scale(at % cols));
            let rounded =
                nearest(*encoding, &scaled.collect::<Vec<_>>(), cols, Some(&importance)).values(cols);
            let errors = rounded.iter().zip(weights).enumerate();
            let errors: Vec<f32> =
                errors.map(|(at, (rounded, weight))| rounded / scale(at % cols) - weight).collect();
            quadratic(&errors, &self.gram, cols)
        };
        self.samples.iter().map(of).sum()
    }
}

/// `Σ e H eᵀ` over the rows `e`.
fn quadratic(errors: &[f32], gram: &[f32], cols: usize) -> f64 {
    let rows = errors.len() / cols;
    let mut product = vec![0.0f32; errors.len()];
    let out = MatMut::from_row_major_slice_mut(&mut product, rows, cols);
    let (left, right) =
        (MatRef::from_row_major_slice(errors, rows, cols), MatRef::from_row_major_slice(gram, cols, cols));
    faer::linalg::matmul::matmul(out, Accum::Replace, left, right, 1.0, Par::rayon(0));
    errors.iter().zip(&product).map(|(&error, &product)| f64::from(error) * f64::from(product)).sum()
}

/// `magnitude^α` over the geometric mean of the smallest and the largest.
fn scales(magnitude: &[f32], alpha: f32) -> Vec<f32> {
    let mut scales: Vec<f32> = magnitude.iter().map(|value| value.powf(alpha).max(LEAST)).collect();
    let (low, high) =
        scales.iter().fold((f32::MAX, 0.0f32), |(low, high), &scale| (low.min(scale), high.max(scale)));
    let middle = (low * high).sqrt();
    scales.iter_mut().for_each(|scale| *scale /= middle);
    scales
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs with a few large columns, and matching weights.
    fn search() -> Search {
        let cols = 128;
        let value = |at: usize| ((at * 2654435761) % 1009) as f32 / 504.5 - 1.0;
        let mean_square: Vec<f32> = (0..cols).map(|col| if col % 16 == 3 { 400.0 } else { 1.0 }).collect();
        let mut gram = vec![0.0; cols * cols];
        (0..cols).for_each(|col| gram[col * cols + col] = mean_square[col]);
        let magnitude = mean_square.iter().map(|square| 0.8 * square.sqrt()).collect();
        let weights = (0..32 * cols).map(value).collect();
        Search { cols, magnitude, mean_square, gram, samples: vec![(weights, Encoding::Q3)] }
    }

    #[test]
    fn columns_of_large_inputs_are_spared() {
        let search = search();
        let scales = search.best().expect("a scale that helps");
        assert!(scales[3] > 1.5 * scales[0], "{scales:?}");
        let (with, without) = (search.cost(Some(&scales)), search.cost(None));
        assert!(with < 0.9 * without, "{with} of {without}");
    }

    #[test]
    fn extremes_lie_around_one() {
        let scales = scales(&[0.0, 1.0, 16.0], 0.5);
        assert!((scales[2] * scales[0] - 1.0).abs() < 1e-5 && scales[0] > 0.0, "{scales:?}");
    }

    #[test]
    fn heads_that_share_values_share_scales() {
        let values = [1.0, 2.0, 3.0, 6.0, 10.0, 20.0, 30.0, 40.0];
        let means = shared(&values, 2, &[2, 2]);
        assert_eq!(means, [2.0, 4.0, 2.0, 4.0, 20.0, 30.0, 20.0, 30.0]);
        assert_eq!(once(&means, 2, &[2, 2]), [2.0, 4.0, 20.0, 30.0]);
        let uneven = shared(&values, 2, &[3, 1]);
        assert_eq!(uneven[..6], [14.0 / 3.0, 28.0 / 3.0].repeat(3));
        assert_eq!(once(&uneven, 2, &[3, 1]), [14.0 / 3.0, 28.0 / 3.0, 30.0, 40.0]);
    }
}
