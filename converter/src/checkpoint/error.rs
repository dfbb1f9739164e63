//! Errors of checkpoints.

use std::io;
use std::path::{Path, PathBuf};

use pith_format::{FormatError, TensorId};
use pith_tokenizer::TokenizerError;

use super::types::SourceType;

/// Why a checkpoint cannot be opened, read or understood: the file, the place in it, the expected
/// and the found value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum CheckpointError {
    /// The file or folder is missing or may not be read.
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// Reading failed, or the file became shorter since it was opened.
    #[error("cannot read {bytes} bytes at {offset} of {}: {source}", path.display())]
    Read { path: PathBuf, offset: u64, bytes: u64, source: io::Error },
    /// Neither a folder nor a GGUF file.
    #[error("{} is no checkpoint: give a folder with config.json and *.safetensors, or a file that begins with \
        \"GGUF\" (this one begins with {found:?})", path.display())]
    NotACheckpoint { path: PathBuf, found: String },
    /// The text that Git LFS puts in the place of a large file.
    #[error("{} is a pointer of Git LFS, not the file itself; fetch the file with git lfs pull", path.display())]
    LfsPointer { path: PathBuf },
    /// A pipe, a device or a folder where a file was expected.
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    /// A Hugging Face folder without a required file.
    #[error("{} holds no {file}", folder.display())]
    MissingFile { folder: PathBuf, file: &'static str },
    /// A folder without safetensors.
    #[error("{} holds no *.safetensors{}", folder.display(), if *pickled { "; convert its pickled weights (*.bin, *.pt) \
        with save_pretrained(safe_serialization=True) first" } else { "" })]
    NoWeights { folder: PathBuf, pickled: bool },
    /// Several safetensors files without an index.
    #[error("{} holds {} but neither model.safetensors nor model.safetensors.index.json", folder.display(), files.join(", "))]
    AmbiguousWeights { folder: PathBuf, files: Vec<String> },
    /// A count or length above this reader's limit.
    #[error("{}: {what} is {found}, the limit is {limit}", path.display())]
    Limit { path: PathBuf, what: &'static str, limit: u64, found: u64 },
    /// Invalid JSON, or JSON of another structure.
    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    /// A number that JSON cannot express.
    #[error("{}: line {line}, column {column} is {found}, which JSON does not have; write a number or null", path.display())]
    JsonNumber { path: PathBuf, line: usize, column: usize, found: &'static str },
    /// Text that is not UTF-8.
    #[error("{}: {place} is not UTF-8 from its byte {valid_bytes} on", path.display())]
    NotUtf8 { path: PathBuf, place: String, valid_bytes: usize },
    /// A shard name that leads out of the folder.
    #[error("{}: shard {shard:?} is not a plain file name", path.display())]
    ShardName { path: PathBuf, shard: String },
    /// A tensor that the index places in a shard which lacks it.
    #[error("{}: tensor {tensor:?} should be in {shard}, found {}", path.display(), found.as_deref().unwrap_or("nowhere"))]
    ShardTensor { path: PathBuf, tensor: String, shard: String, found: Option<String> },
    /// A file that does not belong to the split file beside it.
    #[error("{}: {what} should be {expected}, found {found}", path.display())]
    Split { path: PathBuf, what: &'static str, expected: String, found: String },
    /// The file ends too early.
    #[error("{}: {what} at {offset} needs {needed} bytes, {remaining} are left", path.display())]
    Truncated { path: PathBuf, what: &'static str, offset: u64, needed: u64, remaining: u64 },
    /// Bytes after the last tensor.
    #[error("{}: tensors should end with the file at {expected}, they end at {found}", path.display())]
    DataSize { path: PathBuf, expected: u64, found: u64 },
    /// Two tensors with the same name.
    #[error("{}: tensor {tensor:?} occurs twice", path.display())]
    DuplicateTensor { path: PathBuf, tensor: String },
    /// Two metadata entries with the same key.
    #[error("{}: key {key:?} occurs twice", path.display())]
    DuplicateKey { path: PathBuf, key: String },
    /// An unknown data type; the tensor's size is then unknown too.
    #[error("{}: tensor {tensor:?} has unknown type {found}", path.display())]
    UnknownType { path: PathBuf, tensor: String, found: String },
    /// A known type without a decoder.
    #[error("{}: tensor {tensor:?} is {found}, which cannot be decoded (supported: {})", path.display(), SourceType::loadable_names())]
    UnsupportedType { path: PathBuf, tensor: String, found: SourceType },
    /// Dimensions whose product overflows, or that are not whole blocks.
    #[error("{}: tensor {tensor:?} has shape {shape:?}, impossible for {dtype} (blocks of {})", path.display(), dtype.block_len())]
    Shape { path: PathBuf, tensor: String, dtype: SourceType, shape: Vec<u64> },
    /// Offsets that do not match dtype and shape.
    #[error("{}: tensor {tensor:?} needs {expected_bytes} bytes, its offsets give {found_bytes}", path.display())]
    TensorSize { path: PathBuf, tensor: String, expected_bytes: u64, found_bytes: u64 },
    /// A tensor that overlaps the one before it, or leaves a gap after it.
    #[error("{}: tensor {tensor:?} should begin at {expected}, it begins at {found}", path.display())]
    Offset { path: PathBuf, tensor: String, expected: u64, found: u64 },
    /// A tensor whose offset is not a multiple of the alignment.
    #[error("{}: tensor {tensor:?} begins at {offset}, no multiple of {alignment}", path.display())]
    Misaligned { path: PathBuf, tensor: String, offset: u64, alignment: u64 },
    /// A tensor that reaches beyond the end of the file.
    #[error("{}: tensor {tensor:?} ends at {end}, the file at {file_bytes}", path.display())]
    OutOfFile { path: PathBuf, tensor: String, end: u64, file_bytes: u64 },
    /// An unsupported GGUF version.
    #[error("{}: GGUF version {found}, expected 2 or 3", path.display())]
    Version { path: PathBuf, found: u32 },
    /// A GGUF file written on a big-endian machine.
    #[error("{}: big-endian GGUF (version {version}); convert it with gguf_convert_endian.py first", path.display())]
    BigEndian { path: PathBuf, version: u32 },
    /// An alignment that is not a power of two.
    #[error("{}: alignment {found}, expected a power of two up to {limit}", path.display())]
    Alignment { path: PathBuf, found: u32, limit: u32 },
    /// A metadata value of a type that GGUF does not define.
    #[error("{}: key {key:?} has value type {found}, expected 0 to 12", path.display())]
    ValueType { path: PathBuf, key: String, found: u32 },
    /// A required metadata key that is missing.
    #[error("{}: key {key:?} is missing ({expected} expected)", path.display())]
    MissingKey { path: PathBuf, key: String, expected: &'static str },
    /// A metadata value of another type, or out of range.
    #[error("{}: key {key:?} should be {expected}, found {found}", path.display())]
    KeyType { path: PathBuf, key: String, expected: &'static str, found: String },
    /// An unsupported quantization of the checkpoint.
    #[error("{}: {key} is {found}, expected {expected}", path.display())]
    Quantization { path: PathBuf, key: String, found: String, expected: String },
    /// Tensors of a quantized matrix, and no configuration of the quantization.
    #[error(
        "{}: tensor {tensor:?} is a part of a quantized matrix, but config.json has no quantization_config: put \
        the object there (GPTQ and AWQ may have it in quantize_config.json)", path.display()
    )]
    NoQuantization { path: PathBuf, tensor: String },
    /// A quantized matrix without one of its tensors.
    #[error("{}: the quantized matrix {matrix:?} has no tensor {part:?}", path.display())]
    MissingPart { path: PathBuf, matrix: String, part: String },
    /// A tensor of a quantized matrix whose type or shape does not match the others.
    #[error("{}: tensor {tensor:?} is {dtype} of shape {shape:?}, expected {expected}", path.display())]
    PartShape { path: PathBuf, tensor: String, dtype: SourceType, shape: Vec<usize>, expected: String },
    /// An invalid value in such a tensor.
    #[error("{}: tensor {tensor:?}: {found}, expected {expected}", path.display())]
    PartValue { path: PathBuf, tensor: String, found: String, expected: String },
    /// No tensor of that name.
    #[error("{} has no tensor {tensor:?}", path.display())]
    NoSuchTensor { path: PathBuf, tensor: String },
    /// Rows outside the tensor.
    #[error("tensor {tensor:?} has {rows} rows, rows {start}..{end} were asked for")]
    Rows { tensor: String, rows: usize, start: usize, end: usize },
    /// An output buffer of the wrong length.
    #[error("tensor {tensor:?}: these rows hold {expected} values, the output has room for {found}")]
    OutputLen { tensor: String, expected: usize, found: usize },
    /// The checkpoint's tokenizer cannot be read.
    #[error("tokenizer of {}: {source}", path.display())]
    Tokenizer { path: PathBuf, source: TokenizerError },
    /// A checkpoint without any tokenizer file.
    #[error("{} has no tokenizer: give a folder with tokenizer.json, tokenizer.model or vocab.json and merges.txt, one \
        of the first two, or a GGUF file", path.display())]
    NoTokenizer { path: PathBuf },
    /// An unknown family.
    #[error("{}: the type of model is {found}; known are {known}", path.display())]
    UnknownFamily { path: PathBuf, found: String, known: String },
    /// A configuration value that no model of the family has, or that the runtime does not support.
    #[error("{place}: {key} is {found}, expected {expected}")]
    Config { place: String, key: String, found: String, expected: String },
    /// A tensor that the configuration requires and the checkpoint lacks.
    #[error("{} has no tensor {tensor:?}, which would be {id}", path.display())]
    MissingTensor { path: PathBuf, tensor: String, id: TensorId },
    /// A tensor whose shape differs from the configuration's; `shapes` are the found one and the
    /// expected one.
    #[error(
        "{}: tensor {tensor:?} has shape {:?}, the configuration asks for {:?} to make {id}",
        path.display(), shapes[0], shapes[1]
    )]
    SourceShape { path: PathBuf, tensor: String, id: TensorId, shapes: Box<[Vec<usize>; 2]> },
    /// A tensor without a place in the family's table: without it the model would be another.
    #[error("{}: tensor {tensor:?} has no part in a model of the family {family}", path.display())]
    UnknownTensor { path: PathBuf, tensor: String, family: &'static str },
    /// A weight that no file may hold: not finite. `found` tells its place and what it is.
    #[error("{}: tensor {tensor:?}, to make {id}: {found}, expected a finite number", path.display())]
    NotFinite { path: Box<Path>, tensor: String, id: TensorId, found: Box<str> },
    /// A model whose configuration cannot be assembled.
    #[error(
        "the original of this model of the family {family:?} cannot be told from the file: {reason}; give its \
        folder with --like"
    )]
    NoOriginal { family: String, reason: String },
    /// A configuration that no file may hold.
    #[error(transparent)]
    Model(#[from] FormatError),
}
