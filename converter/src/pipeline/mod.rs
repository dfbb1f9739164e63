//! The pipeline: checkpoint → passes → encoding → file.

pub(crate) mod encode;
mod encodings;
pub(crate) mod prepare;
mod rounder;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};
use std::time::Instant;

use pith_format::{
    Kind, Metadata, ModelConfig, PassRecord, Progress, Provenance, ReplaceOptions, Replacement, SourceRecord,
    Unit, Writer,
};

use crate::checkpoint::families::Architecture;
use crate::checkpoint::{Checkpoint, SourceKind, huggingface};
use crate::error::ConvertError;
use crate::passes::Pass;
use crate::recipe::Recipe;
use crate::report::Report;
use encodings::types_of;
use prepare::{Prepared, name_of, path_name};
use write::{Written, write_tensors};

pub use rounder::Rounder;

/// Treatment of matrices that are quantized already. Encodings of floats hold decoded values in
/// any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuantizedSource {
    /// Their codes are carried into the file, whatever encodings the recipe names, and so are the
    /// other matrices of such a source. Matrices whose codes no encoding holds are stored in q8,
    /// with a warning.
    #[default]
    Carry,
    /// A conversion that would round them again is an error.
    Refuse,
    /// They are rounded again where that takes fewer bits; the others are carried.
    Narrow,
    /// They are decoded and rounded like matrices of floats.
    Round,
}

/// Options of a conversion.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// Encodings of the matrices, and how they are rounded.
    pub recipe: Recipe,
    /// Treatment of matrices that are quantized already.
    pub quantized: QuantizedSource,
    /// Name of the model; `None`: the checkpoint's.
    pub name: Option<String>,
    /// Overwrite the output.
    pub force: bool,
    /// Decode the encoded weights and report their error; costs time.
    pub measure: bool,
    /// File of [activation statistics](crate::statistics) of this checkpoint.
    pub calibration: Option<PathBuf>,
    /// Memory limit of rounding, in bytes; `None`: no limit.
    pub memory: Option<u64>,
}

/// A checkpoint in the terms of a `.pith` file, before any weight is read.
#[derive(Clone, Debug)]
pub struct SourceSummary {
    /// Kind of the checkpoint.
    pub kind: SourceKind,
    /// The configuration that the file would have.
    pub model: ModelConfig,
    /// Tensors in the checkpoint.
    pub tensor_count: usize,
    /// Bytes of these tensors.
    pub tensor_bytes: u64,
    /// Whether any tensor holds codes, not floats.
    pub is_quantized: bool,
    /// The types of its matrices with their numbers, most frequent first: `81 × Q5_0, 27 × Q4_K`.
    pub matrix_types: String,
    /// Bits of a weight in the matrices, on average.
    pub matrix_bits: f64,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Reads a checkpoint's configuration and checks its tensors' names and shapes against it.
pub fn inspect_source(source: &Path) -> Result<SourceSummary, ConvertError> {
    let checkpoint = Checkpoint::open(source)?;
    let mut architecture = Architecture::resolve(&checkpoint)?;
    architecture.model.name = name_of(&checkpoint)?;
    let matrices = || architecture.bindings.iter().filter(|binding| binding.id.role.kind() == Kind::Matrix);
    let bits: f64 = matrices().map(|binding| 8.0 * binding.source_bytes() as f64).sum();
    let weights: f64 = matrices().map(|binding| (binding.rows * binding.cols) as f64).sum();
    Ok(SourceSummary {
        kind: checkpoint.kind(),
        model: architecture.model,
        tensor_count: checkpoint.tensors().len(),
        tensor_bytes: checkpoint.tensors().map(|tensor| tensor.bytes).sum(),
        is_quantized: architecture.bindings.iter().any(|binding| binding.is_quantized()),
        matrix_types: types_of(matrices()),
        matrix_bits: bits / weights,
        warnings: architecture.warnings,
    })
}

/// Writes the checkpoint at `source` to the file `output`.
///
/// The file appears when it is complete; an error leaves nothing.
pub fn convert(
    source: &Path,
    output: &Path,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<Report, ConvertError> {
    convert_with(source, output, options, Vec::new(), progress)
}

/// [`convert`] with `extra` passes, which follow the recipe's change of basis.
fn convert_with(
    source: &Path,
    output: &Path,
    options: &ConvertOptions,
    extra: Vec<Box<dyn Pass>>,
    progress: &dyn Progress,
) -> Result<Report, ConvertError> {
    let started = Instant::now();
    let mut inputs = input_files(source)?;
    inputs.extend(options.calibration.clone());
    let replacing = ReplaceOptions { force: options.force, inputs: &inputs };
    replacing.check(output)?;
    let mut prepared = Prepared::new(source, options, extra)?;
    let checksum = format!("{:032x}", prepared.checkpoint.checksum()?);
    let statistics = prepared.statistics(options, &checksum)?;
    let mut writer = Writer::new(Replacement::create(output, replacing)?, &prepared.plan())?;
    progress.begin("converting", prepared.read_bytes(), Unit::Bytes);
    let Prepared { checkpoint, outline, passes, .. } = &mut prepared;
    passes
        .iter_mut()
        .try_for_each(|pass| pass.prepare(checkpoint, outline, statistics.as_ref(), progress))?;
    let Written { tensors, passes, warnings: lost } =
        write_tensors(&prepared, statistics.as_ref(), options.measure, &mut writer, progress)?;
    let provenance = provenance(&prepared, checksum, passes);
    let Prepared { outline, vocabulary, mut warnings, source_bytes, .. } = prepared;
    warnings.extend(lost);
    let (family, name) = (outline.model.family.clone(), outline.model.name.clone());
    let (chat_template, sampling) = (vocabulary.chat_template, vocabulary.sampling);
    let metadata = Metadata { model: outline.model, chat_template, sampling, provenance };
    let file_bytes = writer.finish(&metadata)?;
    Ok(Report { family, name, source_bytes, file_bytes, elapsed: started.elapsed(), tensors, warnings })
}

/// The files that a conversion of `source` reads; none of them may be its output.
pub fn input_files(source: &Path) -> Result<Vec<PathBuf>, ConvertError> {
    let checkpoint = Checkpoint::open(source)?;
    let weights = checkpoint.files().chain([checkpoint.path()]).map(Path::to_path_buf);
    Ok(weights.chain(huggingface::described(source)).collect())
}

fn provenance(prepared: &Prepared, checksum: String, passes: Vec<PassRecord>) -> Provenance {
    let Prepared { checkpoint, recipe, is_carried, source_bytes, .. } = prepared;
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
        recipe: if *is_carried { "carried".into() } else { recipe.to_string() },
        recipe_file: (!is_carried && recipe.is_of_file()).then(|| recipe.to_toml()),
        passes,
    }
}
