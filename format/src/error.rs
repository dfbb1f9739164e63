//! Everything that can be wrong with a `.pith` file.

use crate::encoding::Encoding;
use crate::replace::ReplaceError;
use crate::role::TensorId;

/// A file that cannot be read, or a call that would write one that could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The first eight bytes are not [`MAGIC`](crate::MAGIC).
    #[error("not a .pith file: it begins with {found:02x?}, expected {:02x?}", crate::MAGIC)]
    Magic {
        /// The bytes found, fewer where the file is shorter.
        found: Vec<u8>,
    },
    /// Written before the format was settled: such files were never released.
    #[error("format version {found} is of before the first release: convert the model again")]
    OldVersion {
        /// The file's version.
        found: u32,
    },
    /// Written by a newer (or broken) converter.
    #[error("format version {found} is not supported, this program reads version {}", crate::VERSION)]
    Version {
        /// The file's version.
        found: u32,
    },
    /// The file is shorter or longer than its header says.
    #[error(
        "the header promises {expected_bytes} bytes, the file has {found_bytes}; it was truncated or altered"
    )]
    FileSize {
        /// What the header says.
        expected_bytes: u64,
        /// What there is.
        found_bytes: u64,
    },
    /// A number in the header cannot be.
    #[error("header: {field} is {found}, expected {expected}")]
    Header {
        /// Field of the header.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What it must be.
        expected: String,
    },
    /// Header, metadata, block index and directory do not match their checksum.
    #[error(
        "checksum of header, metadata, block index and directory is {found:016x}, expected {expected:016x}; the file is damaged"
    )]
    Checksum {
        /// What the header says.
        expected: u64,
        /// What the bytes give.
        found: u64,
    },
    /// The metadata is not the JSON that this version expects.
    #[error("metadata: {0}")]
    Metadata(#[source] serde_json::Error),
    /// A value of the configuration cannot be.
    #[error("metadata: {field} is {found}, expected {expected}")]
    ConfigValue {
        /// Path of the value.
        field: String,
        /// Its value.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// A directory entry cannot be.
    #[error("directory entry {index}: {field} is {found}, expected {expected}")]
    Entry {
        /// Position in the directory.
        index: usize,
        /// Field of the entry.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What it must be.
        expected: String,
    },
    /// The block index holds more or fewer blocks than the directory's matrices have.
    #[error("block index: {found_bytes} bytes, the directory's matrices need {expected_bytes}")]
    BlockIndex {
        /// What the directory needs.
        expected_bytes: u64,
        /// What the header says.
        found_bytes: u64,
    },
    /// Two entries have the same role, layer and expert.
    #[error("directory: {tensor} appears twice")]
    DuplicateTensor {
        /// The tensor.
        tensor: TensorId,
    },
    /// A tensor's shape is not what the configuration asks for.
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
        /// What the configuration says of its layer.
        layer: String,
    },
    /// The tensor's bytes do not match its shape.
    #[error("{tensor}: {found_bytes} bytes, its shape and encoding need {expected_bytes:?}")]
    TensorSize {
        /// The tensor.
        tensor: TensorId,
        /// What shape and encoding need; `None` where that overflows.
        expected_bytes: Option<u64>,
        /// What was found.
        found_bytes: u64,
    },
    /// A matrix was made from the wrong number of bytes.
    #[error("a {rows} × {cols} matrix in {encoding} needs {expected_bytes:?} bytes, found {found_bytes}")]
    MatrixSize {
        /// Encoding.
        encoding: Encoding,
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// What they need; `None` where that overflows.
        expected_bytes: Option<u64>,
        /// What was found.
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
        /// Where it begins.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// What the directory says.
        expected: u64,
        /// What the bytes give.
        found: u64,
    },
    /// A byte between two sections is not zero.
    #[error("padding byte at offset {offset} is {found:#04x}, expected 0x00")]
    Padding {
        /// Where.
        offset: u64,
        /// The byte.
        found: u8,
    },
    /// Tensors were written in another order than planned, or not all of them.
    #[error("the writer expected {expected}, was given {found}")]
    WriteOrder {
        /// The planned tensor.
        expected: String,
        /// The tensor given.
        found: String,
    },
    /// The file cannot be written, or must not be.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
}
