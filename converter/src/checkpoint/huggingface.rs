//! A Hugging Face folder: `config.json` beside one safetensors file or an index of several.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::file::SourceFile;
use super::{CheckpointError, TensorInfo, safetensors};

const CONFIG: &str = "config.json";
const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Largest configuration. Usual ones have a few kilobytes; parsed JSON takes up to 16 times its
/// text.
const CONFIG_LIMIT: u64 = 4 << 20;
/// Largest index, which names every tensor; the largest known ones have 10 MB.
const INDEX_LIMIT: u64 = 64 << 20;

/// Files of a checkpoint that describe its tokenizer and how to generate.
pub(crate) const COMPANIONS: &[&str] = &[
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// Paths of all files that a folder may have besides those of its weights.
pub(crate) fn described(folder: &Path) -> impl Iterator<Item = PathBuf> {
    [CONFIG, INDEX].iter().chain(COMPANIONS).map(|name| folder.join(name))
}

/// An open folder.
pub(super) struct Folder {
    pub(super) files: Vec<SourceFile>,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) config: Value,
    pub(super) generation_config: Option<Value>,
}

pub(super) fn open(folder: &Path) -> Result<Folder, CheckpointError> {
    let config = read_json(&folder.join(CONFIG), CONFIG_LIMIT)?
        .ok_or_else(|| CheckpointError::MissingFile { folder: folder.into(), file: CONFIG })?;
    let generation_config = read_json(&folder.join("generation_config.json"), CONFIG_LIMIT)?;
    // As in `transformers`, the single file takes precedence over an index beside it.
    let (files, tensors) = if !exists(&folder.join(WHOLE))? && exists(&folder.join(INDEX))? {
        open_shards(folder)?
    } else {
        let file = SourceFile::open(&single(folder)?)?;
        let tensors = safetensors::read_header(&file, 0)?;
        (vec![file], tensors)
    };
    Ok(Folder { files, tensors, config, generation_config })
}

/// The only safetensors file of a folder without an index.
fn single(folder: &Path) -> Result<PathBuf, CheckpointError> {
    if exists(&folder.join(WHOLE))? {
        return Ok(folder.join(WHOLE));
    }
    let failed = |source| CheckpointError::Open { path: folder.into(), source };
    let mut files = Vec::new();
    let mut pickled = false;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        pickled |= name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth");
        if name.ends_with(".safetensors") {
            files.push(name);
        }
    }
    files.sort();
    match files.as_slice() {
        [] => Err(CheckpointError::NoWeights { folder: folder.into(), pickled }),
        [one] => Ok(folder.join(one)),
        _ => Err(CheckpointError::AmbiguousWeights { folder: folder.into(), files }),
    }
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn open_shards(folder: &Path) -> Result<(Vec<SourceFile>, Vec<TensorInfo>), CheckpointError> {
    let path = folder.join(INDEX);
    let bytes = SourceFile::open(&path)?.read_all(INDEX_LIMIT)?;
    let Index { weight_map } = serde_json::from_slice(&bytes)
        .map_err(|source| CheckpointError::Json { path: path.clone(), source })?;
    let shards: BTreeSet<&String> = weight_map.values().collect();
    if shards.is_empty() {
        return Err(CheckpointError::NoWeights { folder: folder.into(), pickled: false });
    }
    let mut files = Vec::new();
    let mut tensors: Vec<TensorInfo> = Vec::new();
    for shard in shards {
        if Path::new(shard).file_name() != Some(shard.as_ref()) || shard.contains(['/', '\\', ':', '\0']) {
            return Err(CheckpointError::ShardName { path, shard: shard.clone() });
        }
        let file = SourceFile::open(&folder.join(shard))?;
        tensors.extend(safetensors::read_header(&file, files.len())?);
        files.push(file);
    }
    let mut found = HashMap::with_capacity(tensors.len());
    for tensor in &tensors {
        if found.insert(tensor.name.as_str(), tensor.file).is_some() {
            let (path, tensor) = (files[tensor.file].path().into(), tensor.name.clone());
            return Err(CheckpointError::DuplicateTensor { path, tensor });
        }
    }
    for (tensor, shard) in &weight_map {
        let found = found.get(tensor.as_str()).map(|&file| files[file].name());
        if found.as_ref() != Some(shard) {
            let (tensor, shard) = (tensor.clone(), shard.clone());
            return Err(CheckpointError::ShardTensor { path, tensor, shard, found });
        }
    }
    drop(found);
    Ok((files, tensors))
}

/// Whether `path` exists; an error where that cannot be told.
pub(super) fn exists(path: &Path) -> Result<bool, CheckpointError> {
    path.try_exists().map_err(|source| CheckpointError::Open { path: path.into(), source })
}

/// The parsed file, `None` where there is none.
pub(super) fn read_json(path: &Path, limit: u64) -> Result<Option<Value>, CheckpointError> {
    if !exists(path)? {
        return Ok(None);
    }
    let text = SourceFile::open(path)?.read_text(limit)?;
    serde_json::from_str(&text).map(Some).map_err(|source| {
        let path = path.to_path_buf();
        match foreign_number(&text, source.line(), source.column()) {
            Some((found, column)) => CheckpointError::JsonNumber { path, line: source.line(), column, found },
            None => CheckpointError::Json { path, source },
        }
    })
}

/// The number at which reading stopped that Python writes and JSON does not have, and its column.
/// `column`: that of its first letter.
fn foreign_number(text: &str, line: usize, column: usize) -> Option<(&'static str, usize)> {
    let line = text.lines().nth(line.checked_sub(1)?)?;
    let (before, from) = line.split_at_checked(column.checked_sub(1)?)?;
    match from {
        _ if from.starts_with("NaN") => Some(("NaN", column)),
        _ if !from.starts_with("Infinity") => None,
        _ if before.ends_with('-') => Some(("-Infinity", column - 1)),
        _ => Some(("Infinity", column)),
    }
}
