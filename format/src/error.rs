//! Errors of the `.pith` format.

use crate::encoding::Encoding;
use crate::replace::ReplaceError;
use crate::role::TensorId;

/// An unreadable file, or a call that would write an unreadable one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The first eight bytes are not [`MAGIC`](crate::MAGIC).
    #[error(
        "not a .pith file: it begins with {found:02x?}, expected {:02x?}{}",
        crate::version::MAGIC,
        file_kind(found)
    )]
    Magic {
        /// The bytes found; fewer where the file is shorter.
        found: Vec<u8>,
    },
    /// The file predates the settled format; such files were never released.
    #[error("format version {found} is of before the first release: convert the model again")]
    OldVersion {
        /// The file's version.
        found: u32,
    },
    /// The file was written by a newer (or broken) converter.
    #[error(
        "format version {found} is not supported, this program reads version {}",
        crate::version::VERSION
    )]
    Version {
        /// The file's version.
        found: u32,
    },
    /// The file's length differs from its header's.
    #[error(
        "the header promises {expected_bytes} bytes, the file has {found_bytes}; it was truncated or altered"
    )]
    FileSize {
        /// Length by the header.
        expected_bytes: u64,
        /// Length found.
        found_bytes: u64,
    },
    /// A number in the header is out of range.
    #[error("header: {field} is {found}, expected {expected}")]
    Header {
        /// Field of the header.
        field: &'static str,
        /// Its value.
        found: u64,
        /// Allowed values.
        expected: String,
    },
    /// Header, metadata, block index and directory do not match their checksum.
    #[error(
        "checksum of header, metadata, block index and directory is {found:016x}, expected {expected:016x}; the file is damaged"
    )]
    Checksum {
        /// Checksum in the header.
        expected: u64,
        /// Checksum of the bytes.
        found: u64,
    },
    /// The metadata is not the JSON that this version expects.
    #[error("metadata: {0}")]
    Metadata(#[source] serde_json::Error),
    /// A value of the configuration is out of range.
    #[error("metadata: {field} is {found}, expected {expected}")]
    ConfigValue {
        /// Path of the value.
        field: String,
        /// Its value.
        found: String,
        /// Allowed values.
        expected: String,
    },
    /// A field of a directory entry is out of range.
    #[error("directory entry {index}: {field} is {found}, expected {expected}")]
    Entry {
        /// Position in the directory.
        index: usize,
        /// Field of the entry.
        field: &'static str,
        /// Its value.
        found: u64,
        /// Allowed values.
        expected: String,
    },
    /// The block index holds more or fewer blocks than the directory's matrices have.
    #[error("block index: {found_bytes} bytes, the directory's matrices need {expected_bytes}")]
    BlockIndex {
        /// Bytes required by the directory.
        expected_bytes: u64,
        /// Bytes by the header.
        found_bytes: u64,
    },
    /// Two entries have the same role, layer and expert.
    #[error("directory: {tensor} appears twice")]
    DuplicateTensor {
        /// The tensor.
        tensor: TensorId,
    },
    /// A tensor's shape differs from the configuration's.
    #[error("{tensor}: shape is {found:?}, the configuration asks for {expected:?}")]
    TensorShape {
        /// The tensor.
        tensor: TensorId,
        /// Rows and columns by the configuration.
        expected: (usize, usize),
        /// Rows and columns in the directory.
        found: (u64, u64),
    },
    /// The tensor belongs to another kind of layer.
    #[error("{tensor}: {layer} has no such tensor")]
    ForeignTensor {
        /// The tensor.
        tensor: TensorId,
        /// Kinds of the layer's halves by the configuration.
        layer: String,
    },
    /// The tensor's bytes do not match its shape.
    #[error("{tensor}: {found_bytes} bytes, its shape and encoding need {}", count(*expected_bytes))]
    TensorSize {
        /// The tensor.
        tensor: TensorId,
        /// Bytes required by shape and encoding; `None` on overflow.
        expected_bytes: Option<u64>,
        /// Bytes found.
        found_bytes: u64,
    },
    /// A matrix was made from the wrong number of bytes.
    #[error("a {rows} × {cols} matrix in {encoding} needs {} bytes, found {found_bytes}", count(*expected_bytes))]
    MatrixSize {
        /// Encoding.
        encoding: Encoding,
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Bytes required; `None` on overflow.
        expected_bytes: Option<u64>,
        /// Bytes found.
        found_bytes: usize,
    },
    /// The file lacks a tensor that the model needs.
    #[error("the file has no tensor {tensor}")]
    MissingTensor {
        /// The tensor.
        tensor: TensorId,
    },
    /// A tensor's bytes do not match its checksum.
    #[error(
        "{tensor}: checksum of its {bytes} bytes at offset {offset} is {found:016x}, expected {expected:016x}"
    )]
    TensorChecksum {
        /// The tensor.
        tensor: TensorId,
        /// Offset in the file.
        offset: u64,
        /// Length in bytes.
        bytes: u64,
        /// Checksum in the directory.
        expected: u64,
        /// Checksum of the bytes.
        found: u64,
    },
    /// A byte between two sections is not zero.
    #[error("padding byte at offset {offset} is {found:#04x}, expected 0x00")]
    Padding {
        /// Offset in the file.
        offset: u64,
        /// The byte.
        found: u8,
    },
    /// Tensors were written in another order than planned, or some are missing.
    #[error("the writer expected {expected}, was given {found}")]
    WriteOrder {
        /// The planned tensor.
        expected: String,
        /// The tensor given.
        found: String,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
}

/// A number of bytes in a message; `None` stands for one that overflowed.
fn count(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "more than 2^64".into(), |bytes| bytes.to_string())
}

/// What a file that is none of this format seems to be.
fn file_kind(begin: &[u8]) -> &'static str {
    match begin {
        b"version " => "; it is text, perhaps a pointer of Git LFS (git lfs pull fetches the file)",
        [b'G', b'G', b'U', b'F', ..] => "; it is a GGUF file, of which pith convert makes one",
        _ => "",
    }
}
