//! What a conversion says when it is done.

use std::collections::BTreeMap;
use std::time::Duration;

use pith_format::{Encoding, TensorId};

/// What was done.
#[derive(Clone, Debug)]
pub struct Report {
    /// Family that the checkpoint was read as.
    pub family: String,
    /// Name of the model.
    pub name: String,
    /// Bytes of the checkpoint's tensors that went in.
    pub source_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// From opening the checkpoint to the file having its name.
    pub elapsed: Duration,
    /// Every tensor of the file, in its order.
    pub tensors: Vec<TensorReport>,
    /// What a person should know.
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
    /// The source's codes became the file's.
    pub carried: bool,
    /// √(Σ(w − ŵ)² / Σw²) over the weights `w` of the source, where it was asked for; `None` for what is no matrix. Of
    /// a head's second part it is the error of both parts together.
    pub relative_error: Option<f64>,
}

/// The tensors of one encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodingTotal {
    /// How many.
    pub tensor_count: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Report {
    /// Counts and bytes by encoding, `None` being vectors and bytes.
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
