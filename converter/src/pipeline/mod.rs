//! The pipeline: checkpoint → architecture → encoding, band by band → file.

pub(crate) mod encode;
pub(crate) mod prepare;
mod rounder;

pub use rounder::Rounder;

use std::path::{Path, PathBuf};
use std::time::Instant;

use pith_format::{
    Metadata, ModelConfig, PassRecord, Provenance, ReplaceOptions, Replacement, Role, SourceRecord,
    TILE_ROWS, TensorId, TensorPlan, Writer,
};

use crate::checkpoint::families::Architecture;
use crate::checkpoint::rows::band_rows;
use crate::checkpoint::{Checkpoint, SourceKind};
use crate::error::ConvertError;
use crate::identity::identity_of;
use crate::passes::PassError;
use crate::passes::awq::awq;
use crate::passes::calibrated::{self, Calibrated};
use crate::passes::change::{Changes, Source};
use crate::pipeline::encode::{Deviation, Encoder};
use crate::pipeline::prepare::{Prepared, name_of, path_name};
use crate::recipe::{Quantizer, Recipe, Transform};
use crate::report::{Progress, Report, TensorReport};
use crate::statistics::Statistics;

/// How to convert.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// Which encodings.
    pub recipe: Recipe,
    /// Name of the model; by default the checkpoint's.
    pub name: Option<String>,
    /// Overwrite the output.
    pub force: bool,
    /// Decode what was encoded and report its error; costs time.
    pub measure: bool,
    /// What the matrices' inputs look like: the file of a [calibration](crate::statistics) of this checkpoint.
    pub calibration: Option<PathBuf>,
    /// Memory that rounding may take, in bytes; no limit where it is not given.
    pub memory: Option<u64>,
}

/// A checkpoint in the terms of a `.pith` file, before any weight is read.
#[derive(Clone, Debug)]
pub struct SourceSummary {
    /// Kind of the checkpoint.
    pub kind: SourceKind,
    /// What the file's configuration would be.
    pub model: ModelConfig,
    /// Tensors in the checkpoint.
    pub tensor_count: usize,
    /// Their bytes.
    pub tensor_bytes: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Reads a checkpoint's configuration and checks its tensors' names and shapes against it.
pub fn inspect_source(source: &Path) -> Result<SourceSummary, ConvertError> {
    let checkpoint = Checkpoint::open(source)?;
    let mut architecture = Architecture::resolve(&checkpoint)?;
    architecture.model.name = name_of(&checkpoint)?;
    Ok(SourceSummary {
        kind: checkpoint.kind(),
        model: architecture.model,
        tensor_count: checkpoint.tensors().len(),
        tensor_bytes: checkpoint.tensors().map(|tensor| tensor.bytes).sum(),
        warnings: architecture.warnings,
    })
}

/// Writes the checkpoint at `source` to the file `output`.
///
/// The file appears when all is done; an error leaves nothing.
pub fn convert(
    source: &Path,
    output: &Path,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<Report, ConvertError> {
    let started = Instant::now();
    let mut inputs = input_files(source)?;
    inputs.extend(options.calibration.clone());
    let replacing = ReplaceOptions { force: options.force, inputs: &inputs };
    replacing.check(output)?;
    let mut prepared = Prepared::new(source, options)?;
    let checksum = format!("{:032x}", prepared.checkpoint.checksum()?);
    let transform = prepared.recipe.transform;
    let read_as = identity_of(&checksum, transform.filter(|transform| transform.is_calibrated_after()));
    let calibration =
        options.calibration.as_ref().map(|path| calibrated::open(path, &read_as)).transpose()?;
    let mut writer = Writer::new(Replacement::create(output, replacing)?, &prepared.plan)?;
    progress.begin(prepared.read_bytes());
    if transform == Some(Transform::Awq) {
        prepared.changes = Some(scales(&prepared, calibration.as_ref(), progress)?);
    }
    let tensors = write_tensors(&prepared, calibration.as_ref(), options.measure, &mut writer, progress)?;
    let provenance = provenance(&prepared, checksum);
    let Prepared { model, vocabulary, warnings, source_bytes, .. } = prepared;
    let (family, name) = (model.family.clone(), model.name.clone());
    let metadata = Metadata { model, chat_template: vocabulary.chat_template, provenance };
    let file_bytes = writer.finish(&metadata)?;
    Ok(Report { family, name, source_bytes, file_bytes, elapsed: started.elapsed(), tensors, warnings })
}

/// The files that a conversion of `source` reads weights from: none of them may be its output.
pub fn input_files(source: &Path) -> Result<Vec<PathBuf>, ConvertError> {
    let checkpoint = Checkpoint::open(source)?;
    Ok(checkpoint.files().chain([checkpoint.path()]).map(Path::to_path_buf).collect())
}

/// AWQ's scales for what the recipe asks of each matrix.
fn scales(
    prepared: &Prepared,
    calibration: Option<&Statistics>,
    progress: &dyn Progress,
) -> Result<Changes, ConvertError> {
    let calibration = calibration.expect("checked with the recipe");
    if calibration.info().is_pair() {
        let reason = "the calibration is of a pair of models; give that of one".into();
        return Err(PassError::Transform { name: Transform::Awq.name(), reason }.into());
    }
    let Prepared { checkpoint, model, bindings, plan, .. } = prepared;
    let encoding_of = |id| plan.iter().find(|plan| plan.id == id).and_then(|plan| plan.encoding);
    Ok(awq(checkpoint, model, bindings, calibration, &encoding_of, progress)?)
}

/// Writes everything that the plan has, in its order.
fn write_tensors(
    prepared: &Prepared,
    calibration: Option<&Statistics>,
    measure: bool,
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<Vec<TensorReport>, ConvertError> {
    let Prepared { checkpoint, model, bindings, vocabulary, recipe, plan, changes, .. } = prepared;
    let (head, rest) = (prepared.head(), prepared.rest());
    let scaled = changes.as_ref().filter(|_| recipe.transform == Some(Transform::Awq));
    let mut calibrated = Calibrated::new(calibration, scaled, model.tied_head);
    let mut tensors = Vec::with_capacity(plan.len());
    if let Some(blob) = &vocabulary.tokenizer {
        let (id, bytes) = (TensorId::model(Role::Tokenizer), blob.len() as u64);
        writer.write(id, blob)?;
        tensors.push(TensorReport { id, encoding: None, bytes, carried: false, relative_error: None });
    }
    for (binding, plan) in bindings.iter().zip(&plan[tensors.len()..]) {
        progress.tensor(&binding.tensor);
        let mut source = Source::new(checkpoint, binding, changes.as_ref());
        let read = source.binding.clone();
        let encoder = plan.encoding.map(|encoding| Encoder::new(&read, encoding, measure));
        let rounded = encoder.as_ref().is_some_and(|encoder| encoder.is_rounded());
        // What the head's second part adds to is the first as it is rounded without looking at inputs.
        let in_parts = rest.is_some() && binding.id == head.id;
        let quantizer = (rounded && !in_parts).then(|| recipe.quantizer(binding.id));
        let calibrated = match quantizer.filter(|&quantizer| calibrated.decides(quantizer)) {
            Some(quantizer) => {
                calibrated.enter(binding.id, binding.cols, quantizer)?;
                Some((&calibrated, quantizer))
            }
            None => None,
        };
        tensors.push(write_tensor(&mut source, plan.id, encoder, calibrated, writer, progress)?);
    }
    if let Some(rest) = rest {
        progress.tensor(&head.tensor);
        let mut source = Source::new(checkpoint, head, changes.as_ref());
        let read = source.binding.clone();
        let encodings = recipe.head.map(|head| head.first).zip(rest.encoding);
        let encoder = encodings.map(|(first, rest)| Encoder::rest(&read, first, rest, measure));
        tensors.push(write_tensor(&mut source, rest.id, encoder, None, writer, progress)?);
    }
    Ok(tensors)
}

/// `encoder`: `None` for a vector. `calibrated`: where what is known of the inputs decides the rounding, and how.
fn write_tensor(
    source: &mut Source<'_>,
    id: TensorId,
    encoder: Option<Encoder<'_>>,
    calibrated: Option<(&Calibrated<'_>, Quantizer)>,
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<TensorReport, ConvertError> {
    let Some(encoder) = encoder else {
        let values = source.vector()?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.write(id, &bytes)?;
        progress.advance(source.binding.source_bytes());
        let bytes = bytes.len() as u64;
        return Ok(TensorReport { id, encoding: None, bytes, carried: false, relative_error: None });
    };
    let binding = source.binding.clone();
    let band_rows = band_rows(&binding);
    let (mut encoded, mut deviation, mut bytes) = (Vec::new(), Deviation::default(), 0);
    for first in (0..binding.rows).step_by(band_rows) {
        if progress.is_interrupted() {
            return Err(ConvertError::Interrupted);
        }
        let rows = first..binding.rows.min(first + band_rows);
        let stored = source.rows(rows.clone())?;
        encoded.resize(rows.len().div_ceil(TILE_ROWS) * encoder.block_bytes(), 0);
        deviation = deviation.add(match calibrated {
            Some((calibrated, quantizer)) => {
                encoder.encode_calibrated(calibrated, quantizer, first, &stored, &mut encoded)?
            }
            None => encoder.encode(first, &stored, &mut encoded)?,
        });
        writer.write(id, &encoded)?;
        bytes += encoded.len() as u64;
        progress.advance(binding.source_bytes_to(rows.end) - binding.source_bytes_to(first));
    }
    Ok(TensorReport {
        id,
        encoding: Some(encoder.encoding()),
        bytes,
        carried: encoder.is_carried(),
        relative_error: encoder.is_measured().then(|| deviation.relative()),
    })
}

fn provenance(prepared: &Prepared, checksum: String) -> Provenance {
    let Prepared { checkpoint, recipe, source_bytes, .. } = prepared;
    let kind = match checkpoint.kind() {
        SourceKind::HuggingFace => "huggingface",
        SourceKind::Gguf => "gguf",
    };
    Provenance {
        converter: format!("pith {}", env!("CARGO_PKG_VERSION")),
        source: SourceRecord {
            kind: kind.into(),
            name: path_name(checkpoint),
            tensor_bytes: *source_bytes,
            checksum,
        },
        recipe: recipe.to_string(),
        recipe_file: recipe.is_of_file().then(|| recipe.to_toml()),
        passes: recipe.transform.iter().map(|&transform| pass(transform, prepared)).collect(),
    }
}

/// What a change of basis did. A head that was the embedding's before is bytes more.
fn pass(transform: Transform, prepared: &Prepared) -> PassRecord {
    let is_new = |plan: &&TensorPlan| prepared.untied && plan.id.role == Role::Head;
    let plan = prepared.plan.iter().find(is_new);
    let bytes = plan.and_then(|plan| plan.encoding?.matrix_bytes(plan.rows as u64, plan.cols as u64));
    PassRecord { name: transform.name().into(), zeros: 0, bytes_saved: -(bytes.unwrap_or(0) as i64) }
}
