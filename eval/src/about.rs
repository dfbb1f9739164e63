//! Identity and size of a model that was run.

use pith_format::{Kind, Role, TensorId};
use pith_runtime::{Model, Session};
use serde::{Deserialize, Serialize};

/// A model and the settings of its run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Name in the file.
    pub name: String,
    /// Recipe of the matrices' encodings.
    pub recipe: String,
    /// Checksum of the file, hexadecimal; it covers every tensor's checksum.
    pub checksum: String,
    /// Checksum of the file's tokenizer, hexadecimal.
    pub tokenizer: Option<String>,
    /// Name of the kernels.
    pub kernels: String,
    /// Storage type of cached keys and values.
    pub kv_type: String,
    /// Size in bytes and weights.
    #[serde(flatten)]
    pub size: Size,
}

impl About {
    /// Identity of a session's model.
    pub fn of(session: &Session) -> Self {
        let model = session.model();
        let tokenizer = model.index().entry(TensorId::model(Role::Tokenizer));
        Self {
            name: model.config().name.clone(),
            recipe: model.metadata().provenance.recipe.clone(),
            checksum: format!("{:016x}", model.index().checksum()),
            tokenizer: tokenizer.map(|entry| format!("{:016x}", entry.checksum)),
            kernels: session.kernels().into(),
            kv_type: session.kv_type().to_string(),
            size: Size::of(model),
        }
    }
}

/// Size of a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Bytes of all matrices, embeddings and head included, with scales and padding.
    pub matrix_bytes: u64,
    /// Number of weights in those matrices.
    pub weight_count: u64,
    /// `8 · matrix_bytes / weight_count`.
    pub bits_per_weight: f64,
}

impl Size {
    /// Sums a file's directory. A head with a residual matrix counts its weights once.
    pub fn of(model: &Model) -> Self {
        let matrices = model.index().entries().iter().filter(|entry| entry.kind() == Kind::Matrix);
        let (mut matrix_bytes, mut weight_count) = (0, 0);
        for entry in matrices {
            matrix_bytes += entry.bytes;
            if entry.id.role != Role::HeadResidual {
                weight_count += entry.rows * entry.cols;
            }
        }
        let bits_per_weight = 8.0 * matrix_bytes as f64 / weight_count as f64;
        Self { file_bytes: model.index().file_bytes(), matrix_bytes, weight_count, bits_per_weight }
    }
}
