//! GGUF versions 2 and 3, little-endian.

mod cursor;
mod metadata;
mod split;
mod value;

pub use metadata::{FromGguf, GgufMetadata};
pub use value::{GgufArray, GgufStrings, GgufValue};

pub(super) use split::open;

use super::file::SourceFile;
use super::{CheckpointError, SourceType, TensorInfo};
use cursor::Cursor;

/// The first bytes of every GGUF file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

const KEY_COUNT_LIMIT: u64 = 1 << 16;
const TENSOR_COUNT_LIMIT: u64 = 1 << 18;
const DIM_COUNT_LIMIT: u64 = 4;
const ALIGNMENT_LIMIT: u32 = 1 << 20;
/// Smallest entry of a key: length, one letter, type, one byte of value.
const KEY_BYTES_MIN: u64 = 8 + 1 + 4 + 1;
/// Smallest entry of a tensor: length of the name, count of dimensions, type, offset.
const TENSOR_BYTES_MIN: u64 = 8 + 4 + 4 + 8;

/// Reads the header of `file`, which is number `index` of the checkpoint's files.
fn read_header(file: &SourceFile, index: usize) -> Result<(GgufMetadata, Vec<TensorInfo>), CheckpointError> {
    let cursor = &mut Cursor::new(file);
    cursor.bytes::<4>("the magic number")?;
    check_version(file, cursor.u32("the version")?)?;
    let tensor_count = cursor.u64("the number of tensors")?;
    let key_count = cursor.u64("the number of keys")?;
    cursor.limit("number of keys", KEY_COUNT_LIMIT, key_count)?;
    cursor.limit("number of tensors", TENSOR_COUNT_LIMIT, tensor_count)?;
    cursor.check("the metadata", key_count, KEY_BYTES_MIN)?;
    let mut metadata = GgufMetadata::new(file.path());
    for _ in 0..key_count {
        let key = cursor.name("a metadata key")?;
        let value = value::read_value(cursor, &key)?;
        metadata.insert(key, value)?;
    }
    let alignment = alignment(file, &metadata)?;
    cursor.check("the tensor directory", tensor_count, TENSOR_BYTES_MIN)?;
    let mut tensors = Vec::with_capacity(tensor_count as usize);
    for _ in 0..tensor_count {
        tensors.push(read_tensor(cursor, index, alignment)?);
    }
    place(file, cursor.position().next_multiple_of(alignment), &mut tensors)?;
    Ok((metadata, tensors))
}

fn check_version(file: &SourceFile, version: u32) -> Result<(), CheckpointError> {
    let path = file.path().to_path_buf();
    match version {
        2 | 3 => Ok(()),
        // A version with only high bytes set is a small number in big-endian order.
        found if found & 0xffff == 0 && found != 0 => {
            Err(CheckpointError::BigEndian { path, version: found.swap_bytes() })
        }
        found => Err(CheckpointError::Version { path, found }),
    }
}

fn alignment(file: &SourceFile, metadata: &GgufMetadata) -> Result<u64, CheckpointError> {
    let found: u32 = metadata.get("general.alignment")?.unwrap_or(32);
    if !found.is_power_of_two() || found > ALIGNMENT_LIMIT {
        return Err(CheckpointError::Alignment { path: file.path().into(), found, limit: ALIGNMENT_LIMIT });
    }
    Ok(found.into())
}

/// One entry of the directory; its offset stays relative to the start of the data.
fn read_tensor(cursor: &mut Cursor<'_>, index: usize, alignment: u64) -> Result<TensorInfo, CheckpointError> {
    let name = cursor.name("a tensor's name")?;
    let dim_count = u64::from(cursor.u32("a tensor's number of dimensions")?);
    cursor.limit("a tensor's number of dimensions", DIM_COUNT_LIMIT, dim_count)?;
    let mut shape = Vec::with_capacity(dim_count as usize);
    for _ in 0..dim_count {
        shape.push(cursor.u64("a tensor's dimension")?);
    }
    shape.reverse();
    let id = cursor.u32("a tensor's type")?;
    let offset = cursor.u64("a tensor's offset")?;
    let path = || cursor.file().path().to_path_buf();
    let Some(dtype) = SourceType::from_ggml_id(id) else {
        return Err(CheckpointError::UnknownType { path: path(), tensor: name, found: id.to_string() });
    };
    let whole_rows = shape.last().unwrap_or(&1) % dtype.block_len() as u64 == 0;
    let Some((dims, bytes)) = TensorInfo::sized(dtype, &shape).filter(|_| whole_rows) else {
        return Err(CheckpointError::Shape { path: path(), tensor: name, dtype, shape });
    };
    if offset % alignment != 0 {
        return Err(CheckpointError::Misaligned { path: path(), tensor: name, offset, alignment });
    }
    Ok(TensorInfo { name, dtype, shape: dims, bytes, file: index, offset })
}

/// Makes offsets absolute, and checks that no tensor leaves the file or overlaps another.
///
/// Sorts the tensors by position. Writers choose the padding between them.
fn place(file: &SourceFile, data_start: u64, tensors: &mut [TensorInfo]) -> Result<(), CheckpointError> {
    let path = || file.path().to_path_buf();
    tensors.sort_by_key(|t| (t.offset, t.bytes));
    let mut free = data_start;
    for tensor in tensors {
        let name = || tensor.name.clone();
        let start = data_start.saturating_add(tensor.offset);
        let end = start.saturating_add(tensor.bytes);
        if end > file.bytes() {
            return Err(CheckpointError::OutOfFile {
                path: path(),
                tensor: name(),
                end,
                file_bytes: file.bytes(),
            });
        }
        if start < free {
            return Err(CheckpointError::Offset {
                path: path(),
                tensor: name(),
                expected: free,
                found: start,
            });
        }
        tensor.offset = start;
        free = end;
    }
    Ok(())
}
