//! Which model was run, and how large it is.

use pith_format::{Kind, Role, TensorId};
use pith_runtime::{Model, Session};
use serde::{Deserialize, Serialize};

/// A model and how it was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Name in the file.
    pub name: String,
    /// What its matrices were encoded by.
    pub recipe: String,
    /// The file's checksum, hexadecimal; it covers every tensor's.
    pub checksum: String,
    /// Checksum of the file's tokenizer, hexadecimal.
    pub tokenizer: Option<String>,
    /// The kernels it ran on.
    pub kernels: String,
    /// How keys and values were cached.
    pub kv_type: String,
    /// Bytes and weights.
    #[serde(flatten)]
    pub size: Size,
}

impl About {
    /// The model of a session.
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

/// How large a model is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// The whole file.
    pub file_bytes: u64,
    /// All matrices, embeddings and head too, with their scales and their padding.
    pub matrix_bytes: u64,
    /// Weights in those matrices.
    pub weight_count: u64,
    /// `8 · matrix_bytes / weight_count`.
    pub bits_per_weight: f64,
}

impl Size {
    /// Adds up a file's directory. A head in two parts has the weights of one.
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
