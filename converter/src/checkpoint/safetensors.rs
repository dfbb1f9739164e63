//! The safetensors header: 8 bytes of length, that many bytes of JSON, then the tensors without
//! gaps.
//!
//! Parsed here, not by the `safetensors` crate: that crate needs the whole file in one slice, keeps
//! the last of two tensors with one name, and its errors name neither of two values that disagree.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::file::SourceFile;
use super::{CheckpointError, SourceType, TensorInfo};

/// The limit of the format.
const HEADER_LIMIT: u64 = 100_000_000;
const LENGTH_BYTES: u64 = 8;

/// Lists the tensors of `file`, number `index` of the checkpoint's files, in the order of their
/// data.
pub(crate) fn read_header(file: &SourceFile, index: usize) -> Result<Vec<TensorInfo>, CheckpointError> {
    let json = read_json(file)?;
    let path = || file.path().to_path_buf();
    let header: Header =
        serde_json::from_slice(&json).map_err(|source| CheckpointError::Json { path: path(), source })?;
    let data_start = LENGTH_BYTES + json.len() as u64;
    drop(json);
    place(file, index, data_start, header.0)
}

/// The file's metadata; empty where it has none.
pub(crate) fn read_metadata(file: &SourceFile) -> Result<BTreeMap<String, String>, CheckpointError> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        #[serde(default, rename = "__metadata__")]
        metadata: BTreeMap<String, String>,
    }
    let header: Metadata = serde_json::from_slice(&read_json(file)?)
        .map_err(|source| CheckpointError::Json { path: file.path().into(), source })?;
    Ok(header.metadata)
}

/// The header's text.
fn read_json(file: &SourceFile) -> Result<Vec<u8>, CheckpointError> {
    let path = || file.path().to_path_buf();
    let truncated = |what, offset, needed| CheckpointError::Truncated {
        path: path(),
        what,
        offset,
        needed,
        remaining: file.bytes() - offset,
    };
    if file.bytes() < LENGTH_BYTES {
        return Err(truncated("the header's length", 0, LENGTH_BYTES));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_at(0, &mut length)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > HEADER_LIMIT {
        let what = "header length";
        return Err(CheckpointError::Limit { path: path(), what, limit: HEADER_LIMIT, found: header_bytes });
    }
    if header_bytes > file.bytes() - LENGTH_BYTES {
        return Err(truncated("the header", LENGTH_BYTES, header_bytes));
    }
    let mut json = vec![0; header_bytes as usize];
    file.read_at(LENGTH_BYTES, &mut json)?;
    Ok(json)
}

/// Checks that the tensors fill the file from `data_start` to its end, each with its proper size.
fn place(
    file: &SourceFile,
    index: usize,
    data_start: u64,
    mut entries: Vec<(String, Entry)>,
) -> Result<Vec<TensorInfo>, CheckpointError> {
    let path = || file.path().to_path_buf();
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut names = HashSet::with_capacity(entries.len());
    if let Some((tensor, _)) = entries.iter().find(|(name, _)| !names.insert(name.as_str())) {
        return Err(CheckpointError::DuplicateTensor { path: path(), tensor: tensor.clone() });
    }
    drop(names);
    let data_bytes = file.bytes() - data_start;
    let mut end = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, Entry { dtype, shape, data_offsets: [from, to] }) in entries {
        let Some(dtype) = SourceType::from_safetensors_name(&dtype) else {
            return Err(CheckpointError::UnknownType {
                path: path(),
                tensor: name,
                found: format!("{dtype:?}"),
            });
        };
        let Some((shape, bytes)) = TensorInfo::sized(dtype, &shape) else {
            return Err(CheckpointError::Shape { path: path(), tensor: name, dtype, shape });
        };
        if from != end {
            return Err(CheckpointError::Offset { path: path(), tensor: name, expected: end, found: from });
        }
        if to.checked_sub(from) != Some(bytes) {
            let found_bytes = to.saturating_sub(from);
            return Err(CheckpointError::TensorSize {
                path: path(),
                tensor: name,
                expected_bytes: bytes,
                found_bytes,
            });
        }
        if to > data_bytes {
            let end = data_start.saturating_add(to);
            return Err(CheckpointError::OutOfFile {
                path: path(),
                tensor: name,
                end,
                file_bytes: file.bytes(),
            });
        }
        end = to;
        tensors.push(TensorInfo { name, dtype, shape, bytes, file: index, offset: data_start + from });
    }
    if end != data_bytes {
        return Err(CheckpointError::DataSize {
            path: path(),
            expected: file.bytes(),
            found: data_start + end,
        });
    }
    Ok(tensors)
}

#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// All entries in the order of the text, so that duplicates remain visible; `__metadata__` is
/// skipped.
struct Header(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
