//! The interface of passes.

use pith_format::{Progress, TensorId};

use super::{Group, Outline, PassError};
use crate::checkpoint::Checkpoint;
use crate::statistics::Statistics;

/// The part of a group that a pass needs in memory at once. Memory is that of the widest matrix
/// only where a pass asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// Any run of rows.
    Rows,
    /// All rows of the matrix.
    Matrix,
    /// All matrices that read the same input.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "no recipe prunes hidden units yet; the tests of the pipeline do")
    )]
    Group,
}

/// Effect of a pass on a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PassReport {
    /// Members that it changed or rounded.
    pub(crate) members: usize,
    /// Codes of −128 that became −127, because no encoding has them.
    pub(crate) clipped: u64,
    /// Weights that it set to zero.
    pub(crate) zeros: u64,
    /// Bytes saved in the file; negative where it grows.
    pub(crate) bytes_saved: i64,
}

/// One step between the checkpoint and the file; every group goes through all of them in order.
pub(crate) trait Pass: Sync {
    /// Name in the file's provenance.
    fn name(&self) -> &'static str;

    /// Declares changed dimensions, added tensors and removed tensors: the file is laid out before
    /// weights are read.
    fn reshape(&mut self, _checkpoint: &Checkpoint, _outline: &mut Outline) -> Result<(), PassError> {
        Ok(())
    }

    /// Computes results that several groups share, after encodings are chosen and before anything
    /// is written.
    fn prepare(
        &mut self,
        _checkpoint: &Checkpoint,
        _outline: &Outline,
        _statistics: Option<&Statistics>,
        _progress: &dyn Progress,
    ) -> Result<(), PassError> {
        Ok(())
    }

    /// The part of this tensor that must be in memory at once.
    fn extent(&self, _id: TensorId) -> Extent {
        Extent::Rows
    }

    /// Changes the group. Runs of rows of one matrix follow each other, as do matrices that read
    /// one input.
    fn apply(&self, group: &mut Group, statistics: Option<&Statistics>) -> Result<PassReport, PassError>;
}
