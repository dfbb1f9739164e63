//! The quantizers as passes. Results computed from an input's statistics are kept for the next
//! matrix: matrices that read one input follow each other.

use std::sync::{Arc, Mutex};

use pith_format::{Role, TensorId};

use super::gptq::Feedback;
use super::group::Place;
use super::hqq::hqq;
use super::nearest::nearest;
use super::{Group, Member, Pass, PassError, PassReport};
use crate::recipe::Quantizer;
use crate::statistics::Statistics;

/// Added to the Hessian's diagonal, as a share of its mean: the published value.
const DAMPING: f64 = 0.01;

/// The same for a tied head. Its rows are also looked up, and that error does not depend on the
/// inputs. On a model of 5M parameters in q4-nl this share leaves 0.84 of the divergence that
/// [`DAMPING`] does.
const TIED_DAMPING: f64 = 1.0;

/// Cache of one value: that of the latest input.
struct Latest<T>(Mutex<Option<(Place, Arc<T>)>>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Latest<T> {
    /// The value of `place`. Drops the old value before it makes the new one: each may be as large
    /// as a matrix is wide, squared.
    fn get(&self, place: Place, make: impl FnOnce() -> Result<T, PassError>) -> Result<Arc<T>, PassError> {
        let mut latest = self.0.lock().expect("making a value does not panic");
        if let Some((_, value)) = latest.as_ref().filter(|(of, _)| *of == place) {
            return Ok(Arc::clone(value));
        }
        *latest = None;
        let value = Arc::new(make()?);
        *latest = Some((place, Arc::clone(&value)));
        Ok(value)
    }
}

/// The quantizers of a conversion; each handles the members that chose it.
pub(crate) fn quantizers() -> [Box<dyn Pass>; 3] {
    [Box::new(RoundNearest::default()), Box::new(RoundGptq::default()), Box::new(RoundHqq)]
}

/// Rounds the members whose quantizer is `quantizer`.
fn round_members(
    group: &mut Group,
    quantizer: Quantizer,
    mut round: impl FnMut(&mut Member) -> Result<(), PassError>,
) -> Result<PassReport, PassError> {
    let mut report = PassReport::default();
    for member in &mut group.members {
        let has_levels = member.encoding.is_some_and(|encoding| encoding.grouped().is_some());
        if has_levels && member.levels.is_none() && member.quantizer == Some(quantizer) {
            round(member)?;
            report.members += 1;
        }
    }
    Ok(report)
}

/// Rounds to the nearest level without statistics.
fn round_alone(member: &mut Member) {
    let encoding = member.encoding.expect("members of an encoding with levels are rounded");
    member.levels = Some(nearest(encoding, &member.to_store(), member.cols, None));
}

/// Fails where the widths of the statistics and of the matrix differ.
fn check_cols(statistics: &Statistics, place: Place, id: TensorId, cols: usize) -> Result<(), PassError> {
    let (layer, site) = place;
    match statistics.cols(layer, site)? {
        found if found == cols => Ok(()),
        found => Err(PassError::CalibrationCols { id, expected: cols, found }),
    }
}

/// Nearest level, with more weight for columns of large inputs. Does nothing without statistics:
/// the encoder rounds to the nearest level whatever no pass has rounded.
#[derive(Default)]
pub(crate) struct RoundNearest {
    importance: Latest<Vec<f32>>,
}

impl Pass for RoundNearest {
    fn name(&self) -> &'static str {
        "nearest"
    }

    fn apply(&self, group: &mut Group, statistics: Option<&Statistics>) -> Result<PassReport, PassError> {
        let Some(statistics) = statistics else { return Ok(PassReport::default()) };
        let (input, scales) = (group.input, group.input_scales.clone());
        round_members(group, Quantizer::Nearest, |member| {
            let Some(place) = input else {
                round_alone(member);
                return Ok(());
            };
            check_cols(statistics, place, member.id, member.cols)?;
            let importance = self.importance.get(place, || {
                let mut squares = statistics.stats(place.0, place.1)?.mean_square;
                // The columns were multiplied, so their inputs are divided.
                if let Some(scales) = &scales {
                    squares.iter_mut().zip(&scales[..]).for_each(|(square, scale)| *square /= scale * scale);
                }
                Ok(squares)
            })?;
            let encoding = member.encoding.expect("members of an encoding with levels are rounded");
            member.levels = Some(nearest(encoding, &member.to_store(), member.cols, Some(&importance)));
            Ok(())
        })
    }
}

/// GPTQ by the Hessian of the input; see [`gptq`](super::gptq).
#[derive(Default)]
pub(crate) struct RoundGptq {
    feedback: Latest<Feedback>,
}

impl Pass for RoundGptq {
    fn name(&self) -> &'static str {
        "gptq"
    }

    fn apply(&self, group: &mut Group, statistics: Option<&Statistics>) -> Result<PassReport, PassError> {
        let (input, scales) = (group.input, group.input_scales.clone());
        round_members(group, Quantizer::Gptq, |member| {
            let (id, cols) = (member.id, member.cols);
            let statistics = statistics.ok_or(PassError::NoHessians { id })?;
            let Some(place) = input else {
                round_alone(member);
                return Ok(());
            };
            check_cols(statistics, place, id, cols)?;
            let scales = scales.as_deref();
            let feedback = self.feedback.get(place, || feedback(statistics, place, id, cols, scales))?;
            let encoding = member.encoding.expect("members of an encoding with levels are rounded");
            member.levels = Some(feedback.round(encoding, &member.weights, member.mask.as_deref()));
            Ok(())
        })
    }
}

/// The factored Hessian of an input.
fn feedback(
    statistics: &Statistics,
    (layer, site): Place,
    id: TensorId,
    cols: usize,
    scales: Option<&[f32]>,
) -> Result<Feedback, PassError> {
    let mut gram = statistics.gram(layer, site)?.ok_or(PassError::NoHessians { id })?.to_full();
    if let Some(scales) = scales {
        for (line, row) in gram.chunks_exact_mut(cols).zip(scales) {
            line.iter_mut().zip(scales).for_each(|(value, col)| *value /= row * col);
        }
    }
    let damping = if id.role == Role::TokenEmbedding { TIED_DAMPING } else { DAMPING };
    let cross = statistics.cross(layer, site)?;
    Feedback::new(&gram, cols, damping, cross.as_deref()).map_err(|source| PassError::Hessian { id, source })
}

/// Half-quadratic rounding, by the weights alone; see [`hqq`](super::hqq).
pub(crate) struct RoundHqq;

impl Pass for RoundHqq {
    fn name(&self) -> &'static str {
        "hqq"
    }

    fn apply(&self, group: &mut Group, _: Option<&Statistics>) -> Result<PassReport, PassError> {
        round_members(group, Quantizer::Hqq, |member| {
            let encoding = member.encoding.expect("members of an encoding with levels are rounded");
            member.levels = Some(hqq(encoding, &member.to_store(), member.cols));
            Ok(())
        })
    }
}
