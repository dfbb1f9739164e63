//! The quantizers as passes. What is made of an input's statistics is kept for the next matrix: those that read the same come
//! one after the other.

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

/// For a tied head, whose rows are also looked up: what an error costs there depends on no column. On a model of 5M
/// parameters in q4-nl this share leaves 0.84 of the divergence that [`DAMPING`] does.
const TIED_DAMPING: f64 = 1.0;

/// One value, for the input that was asked for last.
struct Latest<T>(Mutex<Option<(Place, Arc<T>)>>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Latest<T> {
    /// The value of `place`. The one before is dropped before the next is made: each may be as large as a matrix is wide,
    /// squared.
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

/// The quantizers of a conversion, of which each member of a group meets its own.
pub(crate) fn quantizers() -> [Box<dyn Pass>; 3] {
    [Box::new(RoundNearest::default()), Box::new(RoundGptq::default()), Box::new(RoundHqq)]
}

/// Rounds the members that are to be rounded by `quantizer`.
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

/// Rounds to the nearest level with no input for guide.
fn round_alone(member: &mut Member) {
    let encoding = member.encoding.expect("members of an encoding with levels are rounded");
    member.levels = Some(nearest(encoding, &member.to_store(), member.cols, None));
}

/// Fails where statistics are of another width than the matrix.
fn check_cols(statistics: &Statistics, place: Place, id: TensorId, cols: usize) -> Result<(), PassError> {
    let (layer, site) = place;
    match statistics.cols(layer, site)? {
        found if found == cols => Ok(()),
        found => Err(PassError::CalibrationCols { id, expected: cols, found }),
    }
}

/// To the nearest level, columns of large inputs counting more. Without statistics there is nothing to do: what no pass
/// rounds is rounded so when it is encoded.
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
                // Columns that were multiplied read what was divided.
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

/// The Hessian of an input made ready to round with.
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

/// Half-quadratic, by the weights alone; see [`hqq`](super::hqq).
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
