//! Everything that can stop a pass.

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
    /// A calibration of other widths than the checkpoint's.
    #[error("{id} has {expected} columns, the calibration's {found}")]
    CalibrationCols { id: TensorId, expected: usize, found: usize },
    /// GPTQ, or AWQ's scales, without what they rest on.
    #[error(
        "{id} cannot be rounded so: gptq and awq need a calibration with Hessians: make one with `pith calibrate --hessians`"
    )]
    NoHessians { id: TensorId },
    /// A Hessian that rounding cannot rest on.
    #[error("{id}: {source}")]
    Hessian { id: TensorId, source: FeedbackError },
    /// A model whose basis cannot be changed so.
    #[error("transform {name}: {reason}")]
    Transform { name: &'static str, reason: String },
    /// A mask on a matrix whose encoding cannot hold it.
    #[error(
        "{id}: some of its weights are to become zero, and {encoding} has no zero; give it another encoding"
    )]
    NoZero { id: TensorId, encoding: Encoding },
    /// Someone asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
}
