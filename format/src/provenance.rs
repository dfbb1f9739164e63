//! Provenance of a file: its source and the passes applied.

use serde::{Deserialize, Serialize};

/// Provenance of a file: its source and the passes applied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Program and version that wrote the file.
    pub converter: String,
    /// Source of the conversion.
    pub source: SourceRecord,
    /// Encoding or recipe requested.
    pub recipe: String,
    /// Text of the recipe's TOML file, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_file: Option<String>,
    /// Results of the passes, in order.
    #[serde(default)]
    pub passes: Vec<PassRecord>,
}

/// The checkpoint a file was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// "huggingface" or "gguf".
    pub kind: String,
    /// Name of the folder or file, without its path.
    pub name: String,
    /// Bytes of tensor data read.
    pub tensor_bytes: u64,
    /// XXH3-128 of the weight files one after the other, hexadecimal: `cat FILES | xxhsum -H2`.
    pub checksum: String,
}

/// Result of a pass over the weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassRecord {
    /// Name of the pass.
    pub name: String,
    /// Weights it set to zero.
    pub zeros: u64,
    /// Bytes saved by the pass, compared with the same file without it.
    pub bytes_saved: i64,
}
