//! Prepares and checks a conversion: everything that is known before a weight is changed.

use std::path::Path;

use pith_format::{Kind, Role, TensorId, TensorPlan};

use super::ConvertOptions;
use super::encodings::{choose_encodings, warnings_of};
use crate::checkpoint::families::{Architecture, Binding};
use crate::checkpoint::rows::survey;
use crate::checkpoint::vocabulary::Vocabulary;
use crate::checkpoint::{Checkpoint, SourceKind, SourceType};
use crate::error::ConvertError;
use crate::identity::identity_of;
use crate::passes::awq::Awq;
use crate::passes::gptq::Feedback;
use crate::passes::hadamard::Hadamard;
use crate::passes::quantizers::quantizers;
use crate::passes::repack::Repack;
use crate::passes::residual::Residual;
use crate::passes::{Outline, Pass, PassError};
use crate::recipe::{HeadEncoding, Quantizer, Recipe, Transform};
use crate::statistics::Statistics;

/// A conversion that is ready to begin.
pub(crate) struct Prepared {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) outline: Outline,
    /// In the order in which they are applied to each group.
    pub(crate) passes: Vec<Box<dyn Pass>>,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) warnings: Vec<String>,
    pub(crate) recipe: Recipe,
    /// Whether the codes of a quantized source are carried, whatever the recipe says.
    pub(crate) is_carried: bool,
    /// Bytes of the tensors in the checkpoint.
    pub(crate) source_bytes: u64,
}

impl Prepared {
    /// `extra`: passes that follow the recipe's change of basis.
    pub(crate) fn new(
        source: &Path,
        options: &ConvertOptions,
        extra: Vec<Box<dyn Pass>>,
    ) -> Result<Self, ConvertError> {
        let checkpoint = Checkpoint::open(source)?;
        let Architecture { mut model, mut bindings, mut warnings } = Architecture::resolve(&checkpoint)?;
        for binding in bindings.iter_mut().filter(|binding| binding.dtype == SourceType::Packed) {
            binding.survey = Some(survey(&checkpoint, binding)?);
        }
        model.name = match &options.name {
            Some(name) => name.clone(),
            None => name_of(&checkpoint)?,
        };
        let vocabulary = Vocabulary::of(&checkpoint, &model, &mut warnings)?;
        let source_bytes = bindings.iter().map(Binding::source_bytes).sum();
        check_recipe(&options.recipe, &bindings, options)?;
        let mut outline = Outline::new(model, bindings);
        let mut passes: Vec<_> = transform(&options.recipe).into_iter().chain(extra).collect();
        passes.iter_mut().try_for_each(|pass| pass.reshape(&checkpoint, &mut outline))?;
        let (recipe, is_carried) = choose_encodings(&mut outline, options)?;
        warnings.extend(warnings_of(&outline, &recipe));
        let mut rounding = rounding_passes(&recipe);
        rounding.iter_mut().try_for_each(|pass| pass.reshape(&checkpoint, &mut outline))?;
        passes.extend(rounding);
        Ok(Self { checkpoint, outline, passes, vocabulary, warnings, recipe, is_carried, source_bytes })
    }

    /// Opens the statistics that the options name. They must be of this checkpoint, or of its
    /// rotated form where the recipe rotates it.
    pub(crate) fn statistics(
        &self,
        options: &ConvertOptions,
        checksum: &str,
    ) -> Result<Option<Statistics>, ConvertError> {
        let Some(path) = &options.calibration else { return Ok(None) };
        let statistics = Statistics::open(path)?;
        let changed = self.recipe.transform.filter(|transform| transform.is_calibrated_after());
        statistics.check_model(&identity_of(checksum, changed))?;
        Ok(Some(statistics))
    }

    /// All tensors of the file.
    pub(crate) fn plan(&self) -> Vec<TensorPlan> {
        let tokenizer = self.vocabulary.tokenizer.as_deref().map(|blob| TensorPlan {
            id: TensorId::model(Role::Tokenizer),
            encoding: None,
            rows: blob.len(),
            cols: 1,
        });
        tokenizer.into_iter().chain(self.outline.plan()).collect()
    }

    /// Bytes of the checkpoint that a conversion reads. The source of an added tensor is read
    /// again.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.outline.tensors.iter().map(|tensor| tensor.source.source_bytes()).sum()
    }
}

/// The recipe's change of basis.
fn transform(recipe: &Recipe) -> Option<Box<dyn Pass>> {
    Some(match recipe.transform? {
        Transform::Hadamard => Box::new(Hadamard::default()),
        Transform::Awq => Box::new(Awq::default()),
    })
}

/// The passes that turn weights into levels; the head's encoding is already chosen.
fn rounding_passes(recipe: &Recipe) -> Vec<Box<dyn Pass>> {
    let residual = recipe
        .head
        .and_then(|HeadEncoding { first, residual }| Some(Residual { first, encoding: residual? }));
    let residual = residual.map(|residual| Box::new(residual) as Box<dyn Pass>);
    residual.into_iter().chain([Box::new(Repack) as Box<dyn Pass>]).chain(quantizers()).collect()
}

/// Fails where [`convert`](crate::convert) would fail for this recipe and model. Reads no matrix.
pub(crate) fn check(source: &Path, options: &ConvertOptions) -> Result<(), ConvertError> {
    let checkpoint = Checkpoint::open(source)?;
    let Architecture { model, bindings, .. } = Architecture::resolve(&checkpoint)?;
    check_recipe(&options.recipe, &bindings, options)?;
    let mut outline = Outline::new(model, bindings);
    let mut pass = transform(&options.recipe);
    pass.iter_mut().try_for_each(|pass| pass.reshape(&checkpoint, &mut outline))?;
    choose_encodings(&mut outline, options).map(drop)
}

/// Checks that every pattern matches a matrix, that no two settings contradict each other, and that
/// the widest matrix fits in memory.
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
    // Matrices with rotated rows are in memory as a whole, both as stored and as f32.
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

/// The checkpoint's name: `general.name`, otherwise the name of its folder or file.
pub(crate) fn name_of(checkpoint: &Checkpoint) -> Result<String, ConvertError> {
    let named = match checkpoint.metadata() {
        Some(metadata) => metadata.get::<&str>("general.name")?.filter(|name| !name.is_empty()),
        None => None,
    };
    Ok(named.map_or_else(|| path_name(checkpoint), str::to_string))
}

/// The last part of the path, without an ending such as `.gguf`.
pub(crate) fn path_name(checkpoint: &Checkpoint) -> String {
    let path = checkpoint.path().canonicalize().unwrap_or(checkpoint.path().into());
    let name = match checkpoint.kind() {
        SourceKind::HuggingFace => path.file_name(),
        SourceKind::Gguf => path.file_stem(),
    };
    name.unwrap_or_default().to_string_lossy().into_owned()
}
