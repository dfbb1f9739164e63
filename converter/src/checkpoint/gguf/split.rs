//! One GGUF file, or several parts written by llama.cpp: `NAME-00001-of-00003.gguf` and so on.

use std::path::{Path, PathBuf};

use crate::checkpoint::file::SourceFile;
use crate::checkpoint::huggingface::exists;
use crate::checkpoint::{CheckpointError, TensorInfo, check_magic};

use super::{GgufMetadata, read_header};

/// Limit on open files; the largest known models have some hundred parts.
const FILE_COUNT_LIMIT: u16 = 4096;

/// Opens `path` and the other parts of its split file; `path` must be the first part.
pub(in crate::checkpoint) fn open(
    file: SourceFile,
) -> Result<(Vec<SourceFile>, Vec<TensorInfo>, GgufMetadata), CheckpointError> {
    let (metadata, mut tensors) = read_header(&file, 0)?;
    let count: u16 = metadata.get("split.count")?.unwrap_or(1);
    let path = file.path().to_path_buf();
    let mut files = vec![file];
    if count <= 1 {
        return Ok((files, tensors, metadata));
    }
    let split = |path: &Path, what, expected: String, found: String| CheckpointError::Split {
        path: path.into(),
        what,
        expected,
        found,
    };
    let limit = u64::from(FILE_COUNT_LIMIT);
    if count > FILE_COUNT_LIMIT {
        return Err(CheckpointError::Limit { path, what: "number of files", limit, found: count.into() });
    }
    let number: u16 = metadata.require("split.no")?;
    if number != 0 {
        let first = sister(&path, number, count, 0).unwrap_or_default();
        let expected = format!("the first file {}", first.display());
        return Err(split(&path, "the file to open", expected, format!("number {}", u32::from(number) + 1)));
    }
    for number in 1..count {
        let Some(next) = sister(&path, 0, count, number) else {
            let expected = format!("NAME-00001-of-{count:05}.gguf");
            return Err(split(&path, "the name of the first file", expected, files[0].name()));
        };
        if !exists(&next)? {
            let expected = format!("{count} parts, {} among them", next.display());
            return Err(split(&path, "the split file", expected, "no file of that name".into()));
        }
        let file = SourceFile::open(&next)?;
        check_magic(&file)?;
        let (metadata, more) = read_header(&file, files.len())?;
        let found: (u16, u16) = (metadata.require("split.no")?, metadata.require("split.count")?);
        if found != (number, count) {
            let say = |(number, count): (u16, u16)| format!("{} of {count}", u32::from(number) + 1);
            return Err(split(&next, "the file's number", say((number, count)), say(found)));
        }
        tensors.extend(more);
        files.push(file);
    }
    let found = tensors.len() as u64;
    let expected = metadata.get("split.tensors.count")?.unwrap_or(found);
    if found != expected {
        return Err(split(&path, "the number of tensors", expected.to_string(), found.to_string()));
    }
    Ok((files, tensors, metadata))
}

/// The path of part `number` (from 0) of a split file, whose part `own` is `path`; `None` if `path`
/// is not named so.
fn sister(path: &Path, own: u16, count: u16, number: u16) -> Option<PathBuf> {
    let suffix = |number: u16| format!("-{:05}-of-{count:05}.gguf", u32::from(number) + 1);
    let base = path.file_name()?.to_str()?.strip_suffix(&suffix(own))?;
    Some(path.with_file_name(format!("{base}{}", suffix(number))))
}
