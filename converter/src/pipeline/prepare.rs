//! What a conversion will do, and whether it can: everything that is known before a weight is changed.

use std::collections::HashMap;
use std::path::Path;

use pith_format::{Kind, ModelConfig, Role, TensorId, TensorPlan};

use crate::checkpoint::families::{Architecture, Binding};
use crate::checkpoint::rows::survey;
use crate::checkpoint::vocabulary::Vocabulary;
use crate::checkpoint::{Checkpoint, SourceKind, SourceType};
use crate::error::ConvertError;
use crate::passes::PassError;
use crate::passes::carry;
use crate::passes::change::Changes;
use crate::passes::gptq::Feedback;
use crate::passes::hadamard::hadamard;
use crate::pipeline::ConvertOptions;
use crate::recipe::{Quantizer, Recipe, Transform};

/// A conversion before it begins.
pub(crate) struct Prepared {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) model: ModelConfig,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) warnings: Vec<String>,
    pub(crate) recipe: Recipe,
    pub(crate) plan: Vec<TensorPlan>,
    /// What becomes of tensors, as far as no calibration is needed to tell.
    pub(crate) changes: Option<Changes>,
    /// Whether the head was the embedding before.
    pub(crate) untied: bool,
    /// Bytes of the tensors in the checkpoint.
    pub(crate) source_bytes: u64,
}

impl Prepared {
    pub(crate) fn new(source: &Path, options: &ConvertOptions) -> Result<Self, ConvertError> {
        let checkpoint = Checkpoint::open(source)?;
        let Architecture { mut model, mut bindings, mut warnings } = Architecture::resolve(&checkpoint)?;
        for binding in bindings.iter_mut().filter(|binding| binding.dtype == SourceType::Packed) {
            binding.survey = Some(survey(&checkpoint, binding)?);
        }
        model.name = match &options.name {
            Some(name) => name.clone(),
            None => name_of(&checkpoint)?,
        };
        let vocabulary = Vocabulary::of(&checkpoint, model.vocab_len, &mut warnings)?;
        let source_bytes = bindings.iter().map(Binding::source_bytes).sum();
        check_recipe(&options.recipe, &bindings, options)?;
        let was_tied = model.tied_head;
        let changes = rotations(&checkpoint, &options.recipe, &mut model, &mut bindings)?;
        let head = find(&bindings, head_id(&model));
        // What is changed has no codes that could stay.
        let kept = head.kept().filter(|_| options.recipe.transform.is_none());
        let recipe = options.recipe.clone().with_head(kept, head.rows * head.cols);
        let plan = plan(&model, &bindings, vocabulary.tokenizer.as_deref(), &recipe);
        match recipe.transform {
            None => {
                let encodings: HashMap<_, _> = plan.iter().map(|plan| (plan.id, plan.encoding)).collect();
                let encoded = bindings
                    .iter()
                    .filter_map(|binding| Some((binding, encodings.get(&binding.id).copied()??)));
                warnings.extend(carry::warnings(encoded));
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

    /// The matrix that gives logits.
    pub(crate) fn head(&self) -> &Binding {
        find(&self.bindings, head_id(&self.model))
    }

    /// What the head's second part is to be.
    pub(crate) fn rest(&self) -> Option<&TensorPlan> {
        self.plan.iter().find(|plan| plan.id.role == Role::HeadResidual)
    }

    /// Bytes of the checkpoint that a conversion reads; what the head's second part is made of, it reads again.
    pub(crate) fn read_bytes(&self) -> u64 {
        let tensors: u64 = self.bindings.iter().map(Binding::source_bytes).sum();
        tensors + self.rest().map_or(0, |_| self.head().source_bytes())
    }
}

/// Fails where [`convert`](crate::convert) would for what the recipe asks of this model. Reads no matrix.
pub(crate) fn check(source: &Path, options: &ConvertOptions) -> Result<(), ConvertError> {
    let checkpoint = Checkpoint::open(source)?;
    let Architecture { mut model, mut bindings, .. } = Architecture::resolve(&checkpoint)?;
    check_recipe(&options.recipe, &bindings, options)?;
    rotations(&checkpoint, &options.recipe, &mut model, &mut bindings).map(drop)
}

/// The changes of basis that need no calibration to tell.
fn rotations(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    model: &mut ModelConfig,
    bindings: &mut Vec<Binding>,
) -> Result<Option<Changes>, ConvertError> {
    match recipe.transform {
        Some(Transform::Hadamard) => Ok(Some(hadamard(checkpoint, model, bindings)?)),
        Some(Transform::Awq) | None => Ok(None),
    }
}

fn find(bindings: &[Binding], id: TensorId) -> &Binding {
    bindings.iter().find(|binding| binding.id == id).expect("every tensor of the plan has a binding")
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
            |reason: &str| Err(PassError::Transform { name: transform.name(), reason: reason.into() }.into());
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
        id: TensorId::model(Role::HeadResidual),
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

/// What the checkpoint calls itself: `general.name`, otherwise the name of its folder or file.
pub(crate) fn name_of(checkpoint: &Checkpoint) -> Result<String, ConvertError> {
    let named = match checkpoint.metadata() {
        Some(metadata) => metadata.get::<&str>("general.name")?.filter(|name| !name.is_empty()),
        None => None,
    };
    Ok(named.map_or_else(|| path_name(checkpoint), str::to_string))
}

/// The last part of the path, an ending such as `.gguf` left out.
pub(crate) fn path_name(checkpoint: &Checkpoint) -> String {
    let path = checkpoint.path().canonicalize().unwrap_or(checkpoint.path().into());
    let name = match checkpoint.kind() {
        SourceKind::HuggingFace => path.file_name(),
        SourceKind::Gguf => path.file_stem(),
    };
    name.unwrap_or_default().to_string_lossy().into_owned()
}
