//! Errors of passes.

use pith_format::{Encoding, TensorId};

use super::gptq::FeedbackError;
use crate::checkpoint::CheckpointError;
use crate::statistics::StatisticsError;

/// Why a pass could not be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum PassError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The statistics cannot be read.
    #[error(transparent)]
    Statistics(#[from] StatisticsError),
    /// Statistics whose width differs from the checkpoint's.
    #[error("{id} has {expected} columns, the calibration's {found}")]
    CalibrationCols { id: TensorId, expected: usize, found: usize },
    /// GPTQ or AWQ without the statistics they need.
    #[error(
        "{id} cannot be rounded so: gptq and awq need a calibration with Hessians: make one with `pith calibrate --hessians`"
    )]
    NoHessians { id: TensorId },
    /// A Hessian that cannot be factored.
    #[error("{id}: {source}")]
    Hessian { id: TensorId, source: FeedbackError },
    /// A model that does not allow this change of basis.
    #[error("transform {name}: {reason}")]
    Transform { name: &'static str, reason: String },
    /// A mask on a matrix whose encoding has no zero.
    #[error(
        "{id}: some of its weights are to become zero, and {encoding} has no zero; give it another encoding"
    )]
    NoZero { id: TensorId, encoding: Encoding },
    /// A weight that a pass has made infinite or no number.
    #[error(
        "{id}, from the tensor {tensor:?}: row {row}, column {column} became {value}, expected a finite number"
    )]
    NotFinite { tensor: String, id: TensorId, row: usize, column: usize, value: f32 },
    /// The user asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
}
