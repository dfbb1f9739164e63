//! Export: a `.pith` file as a Hugging Face folder, with decoded weights, for other tools to read
//! and check.
//!
//! Names, configuration and tokenizer files come from the original checkpoint where it is given.
//! Without it, names come from the family's table, and the configuration is reconstructed for the
//! families that allow it. The tokenizer in the file cannot be converted back.

mod folder;
mod safetensors;
mod tensor;

use std::path::{Path, PathBuf};

use pith_format::{Index, Kind, Metadata, ModelConfig, Progress, Role, Unit};
use serde_json::{Value, json};

use crate::checkpoint::families::{Architecture, Binding, original_bindings, original_config};
use crate::checkpoint::huggingface::COMPANIONS;
use crate::checkpoint::{Checkpoint, SourceKind};
use crate::error::ConvertError;
use crate::identity::recorded;
use crate::passes::PassError;
use folder::Staging;
use safetensors::Shards;
use tensor::Target;

/// Shards end before this size, as `transformers` writes them.
const SHARD_BYTES: u64 = 5_000_000_000;
/// How exported weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportType {
    /// 16 bits, 11 of them significant: rounds the products of scale and code.
    #[default]
    F16,
    /// 16 bits, 8 of them significant.
    Bf16,
    /// Every value as it is.
    F32,
}

impl ExportType {
    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            ExportType::F16 => "float16",
            ExportType::Bf16 => "bfloat16",
            ExportType::F32 => "float32",
        }
    }
}

/// Options of an export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The folder of the checkpoint that the file was made from.
    pub like: Option<PathBuf>,
    /// How weights are stored.
    pub dtype: ExportType,
    /// Size in bytes at which weights are split into several files.
    pub shard_bytes: u64,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { like: None, dtype: ExportType::default(), shard_bytes: SHARD_BYTES }
    }
}

/// Result of an export.
#[derive(Clone, Debug)]
pub struct ExportReport {
    /// Number of tensors in the checkpoint.
    pub tensor_count: usize,
    /// Their bytes.
    pub tensor_bytes: u64,
    /// Names of the files, in the folder.
    pub files: Vec<String>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Writes the model whose file is `bytes`, parsed as `index`, into the new folder `output`.
///
/// Until all files are written they lie in a temporary folder beside `output`; an error removes it.
pub fn export(
    index: &Index,
    bytes: &[u8],
    output: &Path,
    options: &ExportOptions,
    progress: &dyn Progress,
) -> Result<ExportReport, ConvertError> {
    let model = &index.metadata().model;
    let mut warnings = Vec::new();
    let (config, bindings) = match &options.like {
        Some(like) => original(like, index.metadata())?,
        None => {
            warnings.push("no tokenizer files: --like with the original folder copies them".into());
            let has = |id| index.entry(id).is_some();
            (original_config(model, has)?, original_bindings(model, has)?)
        }
    };
    check_bindings(index, &bindings)?;
    let targets = Target::all(&bindings);
    let mut staging = Staging::create(output)?;
    let total = targets.iter().map(|target| target.bytes(options.dtype)).sum();
    progress.begin("exporting", total, Unit::Bytes);
    let shards = Shards::plan(&targets, options.dtype, options.shard_bytes);
    shards.write(&mut staging, |target, put| {
        progress.item(target.name());
        target.write(index, bytes, options.dtype, &mut |band: &[u8]| {
            put(band)?;
            progress.advance(band.len() as u64);
            Ok(())
        })
    })?;
    if let Some(like) = &options.like {
        COMPANIONS.iter().try_for_each(|name| staging.copy(like, name))?;
    }
    staging.put("config.json", format!("{:#}\n", adjusted(config, model, options.dtype)).as_bytes())?;
    let files = staging.finish()?;
    let tensor_bytes = targets.iter().map(|target| target.bytes(options.dtype)).sum();
    Ok(ExportReport { tensor_count: targets.len(), tensor_bytes, files, warnings })
}

/// Configuration and tensors of the checkpoint that the file was made from.
fn original(like: &Path, metadata: &Metadata) -> Result<(Value, Vec<Binding>), ConvertError> {
    let model = &metadata.model;
    let checkpoint = Checkpoint::open(like)?;
    if checkpoint.kind() != SourceKind::HuggingFace {
        return Err(ConvertError::NotAFolder { path: like.into() });
    }
    let config = checkpoint.config().expect("a folder has a configuration").clone();
    let Architecture { model: original, bindings, .. } = Architecture::resolve(&checkpoint)?;
    if let Some(transform) = recorded(&metadata.provenance).filter(|_| original.tied_head && !model.tied_head)
    {
        let reason = format!(
            "the file's head is a matrix of its own, for which {} has no place; export without --like",
            like.display()
        );
        return Err(PassError::Transform { name: transform.name(), reason }.into());
    }
    compare(like, &original, model)?;
    Ok((config, bindings))
}

/// Checks that both are the same model, names aside.
fn compare(like: &Path, original: &ModelConfig, model: &ModelConfig) -> Result<(), ConvertError> {
    let values = |model: &ModelConfig| {
        let mut value = serde_json::to_value(model).expect("a configuration becomes JSON");
        value["name"] = Value::Null;
        value
    };
    let (Value::Object(expected), Value::Object(found)) = (values(model), values(original)) else {
        unreachable!("a configuration is an object")
    };
    let shown = |value: Option<&Value>| {
        let text = value.unwrap_or(&Value::Null).to_string();
        if text.chars().count() <= 80 { text } else { text.chars().take(80).chain("…".chars()).collect() }
    };
    for key in expected.keys().chain(found.keys()) {
        if expected.get(key) != found.get(key) {
            return Err(ConvertError::LikeDiffers {
                path: like.into(),
                key: key.clone(),
                expected: shown(expected.get(key)),
                found: shown(found.get(key)),
            });
        }
    }
    Ok(())
}

/// Checks that every tensor of the file has a place, and every place a tensor.
fn check_bindings(index: &Index, bindings: &[Binding]) -> Result<(), ConvertError> {
    for binding in bindings {
        let found = index.entry(binding.id).map(|entry| (entry.rows as usize, entry.cols as usize));
        if found != Some((binding.rows, binding.cols)) {
            return Err(ConvertError::ExportTensor { id: binding.id, tensor: Some(binding.tensor.clone()) });
        }
    }
    let known = |id| bindings.iter().any(|binding| binding.id == id);
    let extra = index.entries().iter().find(|entry| {
        entry.id.role.kind() != Kind::Bytes && entry.id.role != Role::HeadResidual && !known(entry.id)
    });
    match extra {
        None => Ok(()),
        Some(entry) => Err(ConvertError::ExportTensor { id: entry.id, tensor: None }),
    }
}

/// The configuration for plain weights of `dtype`.
fn adjusted(mut config: Value, model: &ModelConfig, dtype: ExportType) -> Value {
    if let Some(map) = config.as_object_mut() {
        map.remove("quantization_config");
        map.remove("compression_config");
        let key = if map.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        map.insert(key.into(), json!(dtype.name()));
        map.insert("tie_word_embeddings".into(), json!(model.tied_head));
    }
    config
}
