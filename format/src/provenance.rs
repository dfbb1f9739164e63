//! Where a file came from and what was done to it.

use serde::{Deserialize, Serialize};

/// Where a file came from and what was done to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Program and version that wrote the file.
    pub converter: String,
    /// What was converted.
    pub source: SourceRecord,
    /// How: the encoding or recipe asked for.
    pub recipe: String,
    /// The recipe's file, TOML, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_file: Option<String>,
    /// What each pass did, in order.
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

/// What a pass over the weights did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassRecord {
    /// Name of the pass.
    pub name: String,
    /// Weights it set to zero.
    pub zeros: u64,
    /// Bytes the file is smaller for it, against the same file without it.
    pub bytes_saved: i64,
}
