//! The report of a conversion.

use std::collections::BTreeMap;
use std::time::Duration;

use pith_format::{Encoding, TensorId};

/// Result of a conversion.
#[derive(Clone, Debug)]
pub struct Report {
    /// Family of the checkpoint.
    pub family: String,
    /// Name of the model.
    pub name: String,
    /// Bytes of the checkpoint's tensors that were converted.
    pub source_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// Time from opening the checkpoint to naming the file.
    pub elapsed: Duration,
    /// Every tensor of the file, in its order.
    pub tensors: Vec<TensorReport>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// One tensor of the file.
#[derive(Clone, Debug)]
pub struct TensorReport {
    /// Role and layer.
    pub id: TensorId,
    /// `None` for vectors and bytes.
    pub encoding: Option<Encoding>,
    /// Bytes in the file.
    pub bytes: u64,
    /// The source's codes were repacked without loss.
    pub repacked: bool,
    /// √(Σ(w − ŵ)² / Σw²) over the weights `w` of the source, if requested; `None` for tensors that
    /// are not matrices. For a head's residual matrix, the error of the sum of both.
    pub relative_error: Option<f64>,
}

/// The tensors of one encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodingTotal {
    /// Number of tensors.
    pub tensor_count: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Report {
    /// Counts and bytes by encoding; `None` stands for vectors and bytes.
    pub fn by_encoding(&self) -> BTreeMap<Option<Encoding>, EncodingTotal> {
        let mut totals = BTreeMap::<_, EncodingTotal>::new();
        for tensor in &self.tensors {
            let total = totals.entry(tensor.encoding).or_default();
            total.tensor_count += 1;
            total.bytes += tensor.bytes;
        }
        totals
    }
}
