//! A complete compression: the dense model, its activation statistics, and files that recipes make
//! from both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pith_format::{Encoding, Progress};

use crate::checkpoint::Checkpoint;
use crate::error::ConvertError;
use crate::identity::{identity, identity_of, recorded};
use crate::pipeline::prepare::check;
use crate::pipeline::{ConvertOptions, convert};
use crate::recipe::{Recipe, Transform};
use crate::report::Report;
use crate::statistics::{
    CalibrationText, Model, SessionOptions, Statistics, StatisticsError, StatisticsOptions, TextOptions,
};

/// Settings of a compression.
#[derive(Clone, Debug, Default)]
pub struct CompressOptions {
    /// The calibration text; `None`: text that the model generates.
    pub text: Option<PathBuf>,
    /// How much of the text.
    pub text_options: TextOptions,
    /// Threads, CPUs and kernels of the runs.
    pub session: SessionOptions,
    /// Memory limit of each step, in bytes.
    pub memory: Option<u64>,
}

/// A checkpoint ready for repeated compression. Its f16 file and its activation statistics lie in a
/// folder; they are made when first needed, or found there.
pub struct Compression {
    source: PathBuf,
    checksum: String,
    folder: PathBuf,
    options: CompressOptions,
    dense: Arc<Model>,
    text: Option<CalibrationText>,
}

impl Compression {
    /// Writes the f16 file of the checkpoint at `source` into `folder`, unless that of this
    /// checkpoint is there.
    pub fn new(
        source: &Path,
        folder: &Path,
        options: CompressOptions,
        progress: &dyn Progress,
    ) -> Result<Self, ConvertError> {
        let checksum = format!("{:032x}", Checkpoint::open(source)?.checksum()?);
        let dense = dense_file(source, folder, &checksum, None, options.memory, progress)?;
        Ok(Self { source: source.into(), checksum, folder: folder.into(), options, dense, text: None })
    }

    /// Fails where [`Compression::write`] would fail for this recipe and checkpoint, before any
    /// file is made.
    pub fn check(source: &Path, options: &ConvertOptions) -> Result<(), ConvertError> {
        // Missing statistics are collected.
        let calibration = options.calibration.clone().or_else(|| Some(PathBuf::new()));
        check(source, &ConvertOptions { calibration, ..options.clone() })
    }

    /// The dense model.
    pub fn dense(&self) -> &Arc<Model> {
        &self.dense
    }

    /// Sequences that the model generates and that no statistics see, to judge its files by.
    /// `window`: most tokens of each.
    pub fn unseen_text(
        &self,
        window: Option<usize>,
        progress: &dyn Progress,
    ) -> Result<CalibrationText, ConvertError> {
        let session = self.options.session.clone();
        self.written(progress, |model| CalibrationText::generate_unseen(model, window, session, progress))
    }

    /// Text that the model writes in 8 bits: much sooner than the dense model, and hardly to be told
    /// from its text.
    fn written(
        &self,
        progress: &dyn Progress,
        write: impl FnOnce(&Arc<Model>) -> Result<CalibrationText, StatisticsError>,
    ) -> Result<CalibrationText, ConvertError> {
        let path = self.folder.join("writer.pith");
        let options = ConvertOptions {
            recipe: Recipe::new(Encoding::Q8),
            force: true,
            memory: self.options.memory,
            ..ConvertOptions::default()
        };
        convert(&self.source, &path, &options, progress)?;
        let model = Arc::new(Model::open(&path).map_err(StatisticsError::from)?);
        let text = write(&model);
        drop(model);
        // A failure is harmless: the folder is removed, or the next text overwrites the file.
        let _ = std::fs::remove_file(path);
        Ok(text?)
    }

    /// The statistics, with Hessians if asked for.
    pub fn calibration(&mut self, hessians: bool, progress: &dyn Progress) -> Result<PathBuf, ConvertError> {
        let dense = Arc::clone(&self.dense);
        self.calibration_of(&dense, hessians, progress)
    }

    /// Writes the file of a recipe.
    pub fn write(
        &mut self,
        options: &ConvertOptions,
        output: &Path,
        progress: &dyn Progress,
    ) -> Result<Report, ConvertError> {
        let recipe = &options.recipe;
        let mut options = ConvertOptions { memory: self.options.memory, ..options.clone() };
        let changed = recipe.transform.filter(|transform| transform.is_calibrated_after());
        let dense = match changed {
            // Nothing runs the rotated model.
            Some(_) if options.calibration.is_some() && !recipe.refine => Arc::clone(&self.dense),
            Some(transform) => self.rotated(transform, progress)?,
            None => Arc::clone(&self.dense),
        };
        if options.calibration.is_none() {
            options.calibration = Some(self.calibration_of(&dense, recipe.needs_hessians(), progress)?);
        }
        if !recipe.refine {
            return convert(&self.source, output, &options, progress);
        }
        let (first, pair) =
            (self.folder.join("first.pith"), self.folder.join("pair.calibration.safetensors"));
        convert(&self.source, &first, &ConvertOptions { force: true, ..options.clone() }, progress)?;
        let compressed = Arc::new(Model::open(&first).map_err(StatisticsError::from)?);
        let collecting = self.collecting(true);
        Statistics::collect_pair(&dense, &compressed, self.text(progress)?, &collecting, &pair, progress)?;
        options.calibration = Some(pair.clone());
        let report = convert(&self.source, output, &options, progress);
        for path in [first, pair] {
            // A failure is harmless: the folder is removed, or the next recipe overwrites the
            // files.
            let _ = std::fs::remove_file(path);
        }
        report
    }

    /// The dense model in another basis.
    fn rotated(&self, transform: Transform, progress: &dyn Progress) -> Result<Arc<Model>, ConvertError> {
        let (source, folder, memory) = (&self.source, &self.folder, self.options.memory);
        dense_file(source, folder, &self.checksum, Some(transform), memory, progress)
    }

    fn calibration_of(
        &mut self,
        dense: &Arc<Model>,
        hessians: bool,
        progress: &dyn Progress,
    ) -> Result<PathBuf, ConvertError> {
        let identity = identity(&dense.metadata().provenance);
        let name = dense_name(recorded(&dense.metadata().provenance));
        let path = self.folder.join(format!("{name}.calibration.safetensors"));
        if let Ok(calibration) = Statistics::open(&path) {
            let serves =
                calibration.check_model(&identity).is_ok() && (calibration.info().hessians || !hessians);
            if serves {
                return Ok(path);
            }
        }
        let options = self.collecting(hessians);
        Statistics::collect(dense, self.text(progress)?, &options, &path, progress)?;
        Ok(path)
    }

    fn collecting(&self, hessians: bool) -> StatisticsOptions {
        let (memory, session) = (self.options.memory, self.options.session.clone());
        StatisticsOptions { hessians, memory, session, force: true, ..StatisticsOptions::default() }
    }

    fn text(&mut self, progress: &dyn Progress) -> Result<&CalibrationText, ConvertError> {
        if self.text.is_none() {
            let options = &self.options;
            self.text = Some(match &options.text {
                Some(path) => CalibrationText::read(path, &self.dense, options.text_options)?,
                None => {
                    let (text, session) = (options.text_options, options.session.clone());
                    self.written(progress, |model| CalibrationText::generate(model, text, session, progress))?
                }
            });
        }
        Ok(self.text.as_ref().expect("set above"))
    }
}

fn dense_name(transform: Option<Transform>) -> String {
    transform.map_or("dense".into(), |transform| format!("dense.{}", transform.name()))
}

/// The f16 file of a checkpoint in a folder; written unless it is there.
fn dense_file(
    source: &Path,
    folder: &Path,
    checksum: &str,
    transform: Option<Transform>,
    memory: Option<u64>,
    progress: &dyn Progress,
) -> Result<Arc<Model>, ConvertError> {
    let path = folder.join(format!("{}.pith", dense_name(transform)));
    // The file of another checkpoint, or an unreadable one, is replaced.
    let expected = identity_of(checksum, transform);
    let opened = Model::open(&path).ok();
    if let Some(model) = opened.filter(|model| identity(&model.metadata().provenance) == expected) {
        return Ok(Arc::new(model));
    }
    let half = Encoding::F16;
    let recipe = Recipe { embedding: Some(half), head: Some(half.into()), transform, ..Recipe::new(half) };
    let options = ConvertOptions { recipe, force: true, memory, ..ConvertOptions::default() };
    convert(source, &path, &options, progress)?;
    Ok(Arc::new(Model::open(&path).map_err(StatisticsError::from)?))
}
