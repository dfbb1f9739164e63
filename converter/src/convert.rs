//! The pipeline: checkpoint → architecture → encoding, band by band → file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use pith_format::{
    Kind, Metadata, ModelConfig, PassRecord, Provenance, Role, SourceRecord, TILE_ROWS, TensorId, TensorPlan,
    Writer,
};

use crate::arch::{Architecture, Binding};
use crate::carry::{self, Survey};
use crate::encode::{Deviation, Encoder};
use crate::error::ConvertError;
use crate::quantize::gptq::Feedback;
use crate::quantized::{self, Calibrated};
use crate::recipe::{Quantizer, Recipe};
use crate::report::{Progress, Report, TensorReport};
use crate::source::{Checkpoint, SourceKind, SourceType};
use crate::transform::awq::awq;
use crate::transform::{Changes, Source, Transform, hadamard, identity_of};
use crate::vocabulary::Vocabulary;
use crate::weights::band_rows;

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
    /// What the matrices' inputs look like: the file of a [calibration](crate::calibration) of this checkpoint.
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

/// Everything about a conversion that is known before a weight is changed.
struct Prepared {
    checkpoint: Checkpoint,
    model: ModelConfig,
    bindings: Vec<Binding>,
    vocabulary: Vocabulary,
    warnings: Vec<String>,
    recipe: Recipe,
    plan: Vec<TensorPlan>,
    /// What becomes of tensors, as far as no calibration is needed to tell.
    changes: Option<Changes>,
    /// Whether the head was the embedding before.
    untied: bool,
    /// Bytes of the tensors in the checkpoint.
    source_bytes: u64,
}

impl Prepared {
    fn new(source: &Path, options: &ConvertOptions) -> Result<Self, ConvertError> {
        let checkpoint = Checkpoint::open(source)?;
        let Architecture { mut model, mut bindings, mut warnings } = Architecture::resolve(&checkpoint)?;
        for binding in bindings.iter_mut().filter(|binding| binding.dtype == SourceType::Packed) {
            binding.survey = Some(Survey::of(&checkpoint, binding)?);
        }
        model.name = match &options.name {
            Some(name) => name.clone(),
            None => name_of(&checkpoint)?,
        };
        let vocabulary = Vocabulary::of(&checkpoint, model.vocab_len, &mut warnings)?;
        let source_bytes = bindings.iter().map(Binding::source_bytes).sum();
        check_recipe(&options.recipe, &bindings, options)?;
        let was_tied = model.tied_head;
        let changes = match options.recipe.transform {
            Some(Transform::Hadamard) => Some(hadamard(&checkpoint, &mut model, &mut bindings)?),
            Some(Transform::Awq) | None => None,
        };
        let head = find(&bindings, head_id(&model));
        // What is changed has no codes that could stay.
        let kept = head.kept().filter(|_| options.recipe.transform.is_none());
        let recipe = options.recipe.clone().with_head(kept, head.rows * head.cols);
        let plan = plan(&model, &bindings, vocabulary.tokenizer.as_deref(), &recipe);
        match recipe.transform {
            None => {
                let encoded = plan.iter().filter_map(|plan| Some((plan.id, plan.encoding?)));
                let known = encoded.filter(|(id, _)| bindings.iter().any(|binding| binding.id == *id));
                warnings.extend(carry::warnings(known.map(|(id, encoding)| (find(&bindings, id), encoding))));
            }
            Some(transform) if bindings.iter().any(|binding| binding.survey.is_some()) => {
                let name = transform.name();
                warnings.push(format!(
                    "the codes of quantized matrices are decoded, changed by {name} and rounded again"
                ));
            }
            Some(_) => {}
        }
        let untied = was_tied && !model.tied_head;
        Ok(Self {
            checkpoint,
            model,
            bindings,
            vocabulary,
            warnings,
            recipe,
            plan,
            changes,
            untied,
            source_bytes,
        })
    }
}

/// Fails where [`convert`] would before it reads a calibration or a weight.
pub(crate) fn check(source: &Path, options: &ConvertOptions) -> Result<(), ConvertError> {
    Prepared::new(source, options).map(drop)
}

fn find(bindings: &[Binding], id: TensorId) -> &Binding {
    bindings.iter().find(|binding| binding.id == id).expect("every tensor of the plan has a binding")
}

/// Writes the checkpoint at `source` to the file `output`.
///
/// Until all is done the file lies under a temporary name beside `output`; an error takes it away again.
pub fn convert(
    source: &Path,
    output: &Path,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<Report, ConvertError> {
    let started = Instant::now();
    check_output(&Checkpoint::open(source)?, output, options.force)?;
    let Prepared {
        checkpoint,
        model,
        bindings,
        vocabulary,
        warnings,
        recipe,
        plan,
        mut changes,
        untied,
        source_bytes,
    } = Prepared::new(source, options)?;
    let head = find(&bindings, head_id(&model));
    let checksum = format!("{:032x}", checkpoint.checksum()?);
    let read_as =
        identity_of(&checksum, recipe.transform.filter(|transform| transform.is_calibrated_after()));
    let calibration = options.calibration.as_ref().map(|path| quantized::open(path, &read_as)).transpose()?;
    let mut writer = Writer::create(output, &plan)?;
    // What the head's second part is made of is read again.
    let rest = plan.iter().find(|plan| plan.id.role == Role::HeadRest);
    let read: u64 = bindings.iter().map(Binding::source_bytes).sum();
    progress.begin(read + rest.map_or(0, |_| head.source_bytes()));
    if recipe.transform == Some(Transform::Awq) {
        let calibration = calibration.as_ref().expect("checked with the recipe");
        if calibration.info().is_pair() {
            let reason = "the calibration is of a pair of models; give that of one".into();
            return Err(ConvertError::Transform { name: Transform::Awq.name(), reason });
        }
        let encoding_of = |id| plan.iter().find(|plan| plan.id == id).and_then(|plan| plan.encoding);
        changes = Some(awq(&checkpoint, &model, &bindings, calibration, &encoding_of, progress)?);
    }
    let scaled = changes.as_ref().filter(|_| recipe.transform == Some(Transform::Awq));
    let mut calibrated = Calibrated::new(calibration.as_ref(), scaled, model.tied_head);
    let mut tensors = Vec::with_capacity(plan.len());
    if let Some(blob) = &vocabulary.tokenizer {
        let id = TensorId::model(Role::Tokenizer);
        writer.write(id, blob)?;
        tensors.push(TensorReport {
            id,
            encoding: None,
            bytes: blob.len() as u64,
            carried: false,
            relative_error: None,
        });
    }
    for (binding, plan) in bindings.iter().zip(&plan[tensors.len()..]) {
        progress.tensor(&binding.tensor);
        let mut source = Source::new(&checkpoint, binding, changes.as_ref());
        let read = source.binding.clone();
        let encoder = plan.encoding.map(|encoding| Encoder::new(&read, encoding, options.measure));
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
        tensors.push(write_tensor(&mut source, plan.id, encoder, calibrated, &mut writer, progress)?);
    }
    if let Some(rest) = rest {
        progress.tensor(&head.tensor);
        let mut source = Source::new(&checkpoint, head, changes.as_ref());
        let read = source.binding.clone();
        let encodings = recipe.head.map(|head| head.first).zip(rest.encoding);
        let encoder = encodings.map(|(first, rest)| Encoder::rest(&read, first, rest, options.measure));
        tensors.push(write_tensor(&mut source, rest.id, encoder, None, &mut writer, progress)?);
    }
    let family = model.family.clone();
    let name = model.name.clone();
    let metadata = Metadata {
        model,
        chat_template: vocabulary.chat_template,
        provenance: Provenance {
            passes: recipe.transform.iter().map(|&transform| pass(transform, head, untied, &plan)).collect(),
            ..provenance(&checkpoint, source_bytes, checksum, &recipe)
        },
    };
    let file_bytes = writer.finish(&metadata)?;
    Ok(Report { family, name, source_bytes, file_bytes, elapsed: started.elapsed(), tensors, warnings })
}

/// Every pattern speaks of some matrix, nothing asked for excludes another thing, and there is room for the widest matrix.
fn check_recipe(recipe: &Recipe, bindings: &[Binding], options: &ConvertOptions) -> Result<(), ConvertError> {
    let matrices = bindings.iter().filter(|binding| binding.id.role.kind() == Kind::Matrix);
    let ids: Vec<TensorId> = matrices.clone().map(|binding| binding.id).collect();
    if let Some(pattern) = recipe.unmatched(&ids) {
        return Err(ConvertError::Unmatched { pattern: pattern.into(), example: ids[ids.len() / 2] });
    }
    if let Some(transform) = recipe.transform {
        let refused =
            |reason: &str| Err(ConvertError::Transform { name: transform.name(), reason: reason.into() });
        if recipe.keep {
            return refused("it changes the weights, which encoding \"keep\" stores as they are");
        }
        if recipe.refine && !transform.is_calibrated_after() {
            return refused("refining compares inputs with the dense model's, which it scales");
        }
        if options.calibration.is_none() && !transform.is_calibrated_after() {
            return refused(
                "it needs a calibration with Hessians: make one with `pith calibrate --hessians`",
            );
        }
    }
    let scaled = recipe.transform == Some(Transform::Awq);
    let by_inputs = |binding: &&Binding| scaled || recipe.quantizer(binding.id) == Quantizer::Gptq;
    let cols = matrices.clone().filter(by_inputs).map(|binding| binding.cols).max().unwrap_or(0);
    // Matrices whose rows are rotated are there as a whole, as stored and as numbers.
    let rotated = matrices.filter(|binding| {
        recipe.transform == Some(Transform::Hadamard)
            && matches!(binding.id.role, Role::AttentionOutput | Role::Down)
    });
    let bytes =
        |binding: &Binding| binding.rows * (binding.row_bytes() + 2 * size_of::<f32>() * binding.cols);
    let whole = rotated.map(bytes).max().unwrap_or(0);
    let need_bytes = (Feedback::peak_bytes(cols, recipe.refine) + whole) as u64;
    match options.memory {
        Some(limit_bytes) if need_bytes > limit_bytes => {
            Err(ConvertError::Memory { need_bytes, limit_bytes })
        }
        _ => Ok(()),
    }
}

fn plan(
    model: &ModelConfig,
    bindings: &[Binding],
    tokenizer: Option<&[u8]>,
    recipe: &Recipe,
) -> Vec<TensorPlan> {
    let tokenizer = tokenizer.map(|blob| TensorPlan {
        id: TensorId::model(Role::Tokenizer),
        encoding: None,
        rows: blob.len(),
        cols: 1,
    });
    let tensors = bindings.iter().map(|binding| TensorPlan {
        id: binding.id,
        encoding: (binding.id.role.kind() == Kind::Matrix)
            .then(|| recipe.encoding(binding.id, binding.kept(), model.tied_head)),
        rows: binding.rows,
        cols: binding.cols,
    });
    let rest = recipe.head.and_then(|head| head.rest).map(|rest| TensorPlan {
        id: TensorId::model(Role::HeadRest),
        encoding: Some(rest),
        rows: model.vocab_len,
        cols: model.hidden_len,
    });
    tokenizer.into_iter().chain(tensors).chain(rest).collect()
}

/// The matrix that gives logits.
fn head_id(model: &ModelConfig) -> TensorId {
    TensorId::model(if model.tied_head { Role::TokenEmbedding } else { Role::Head })
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

fn check_output(checkpoint: &Checkpoint, output: &Path, force: bool) -> Result<(), ConvertError> {
    let Ok(target) = output.canonicalize() else { return Ok(()) };
    let is_target = |path: &Path| path.canonicalize().is_ok_and(|path| path == target);
    if target.is_dir() || is_target(checkpoint.path()) || checkpoint.files().any(is_target) {
        return Err(ConvertError::OutputIsSource { path: output.into() });
    }
    if force { Ok(()) } else { Err(ConvertError::OutputExists { path: output.into() }) }
}

/// What the checkpoint calls itself: `general.name`, otherwise the name of its folder or file.
fn name_of(checkpoint: &Checkpoint) -> Result<String, ConvertError> {
    let named = match checkpoint.metadata() {
        Some(metadata) => metadata.get::<&str>("general.name")?.filter(|name| !name.is_empty()),
        None => None,
    };
    Ok(named.map_or_else(|| path_name(checkpoint), str::to_string))
}

/// The last part of the path, an ending such as `.gguf` left out.
fn path_name(checkpoint: &Checkpoint) -> String {
    let path = checkpoint.path().canonicalize().unwrap_or(checkpoint.path().into());
    let name = match checkpoint.kind() {
        SourceKind::HuggingFace => path.file_name(),
        SourceKind::Gguf => path.file_stem(),
    };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// What a change of basis did. A head that was the embedding's before is bytes more.
fn pass(transform: Transform, head: &Binding, tied: bool, plan: &[TensorPlan]) -> PassRecord {
    let plan = plan.iter().find(|plan| plan.id == head.id && plan.id.role == Role::Head && tied);
    let bytes = plan.and_then(|plan| plan.encoding?.matrix_bytes(plan.rows as u64, plan.cols as u64));
    PassRecord { name: transform.name().into(), zeros: 0, bytes_saved: -(bytes.unwrap_or(0) as i64) }
}

fn provenance(checkpoint: &Checkpoint, tensor_bytes: u64, checksum: String, recipe: &Recipe) -> Provenance {
    let kind = match checkpoint.kind() {
        SourceKind::HuggingFace => "huggingface",
        SourceKind::Gguf => "gguf",
    };
    Provenance {
        converter: format!("pith {}", env!("CARGO_PKG_VERSION")),
        source: SourceRecord { kind: kind.into(), name: path_name(checkpoint), tensor_bytes, checksum },
        recipe: recipe.to_string(),
        recipe_file: recipe.is_of_file().then(|| recipe.to_toml()),
        passes: Vec::new(),
    }
}
