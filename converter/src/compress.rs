//! A whole compression: the dense model, what it says of its inputs, and files made by recipes from both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pith_format::Encoding;
use pith_runtime::{Model, SessionOptions};

use crate::calibration::{
    Calibration, CalibrationError, CalibrationOptions, CalibrationProgress, CalibrationText, TextOptions,
};
use crate::convert::{ConvertOptions, convert};
use crate::error::ConvertError;
use crate::recipe::Recipe;
use crate::report::{Progress, Report};
use crate::source::Checkpoint;

/// Hears how far each step is.
pub trait CompressProgress: Progress + CalibrationProgress {}

impl<T: Progress + CalibrationProgress> CompressProgress for T {}

/// What files are made from.
#[derive(Clone, Debug, Default)]
pub struct CompressOptions {
    /// Text that the model is run on; `None`: what it writes by itself.
    pub text: Option<PathBuf>,
    /// How much of it.
    pub text_options: TextOptions,
    /// Threads, CPUs and kernels of the runs.
    pub session: SessionOptions,
    /// Memory that each step may take, in bytes.
    pub memory: Option<u64>,
}

/// A checkpoint ready to be compressed, again and again: its f16 file and its calibration lie in a folder and are made when
/// they are first needed, or found there.
pub struct Compression {
    source: PathBuf,
    folder: PathBuf,
    options: CompressOptions,
    dense: Arc<Model>,
    text: Option<CalibrationText>,
}

impl Compression {
    /// Writes the f16 file of the checkpoint at `source` into `folder`, unless one of this checkpoint is there.
    pub fn new(
        source: &Path,
        folder: &Path,
        options: CompressOptions,
        progress: &dyn CompressProgress,
    ) -> Result<Self, ConvertError> {
        let path = folder.join("dense.pith");
        let opened = if path.exists() { Model::open(&path).ok() } else { None };
        let opened = match opened {
            Some(model) => {
                let checksum = format!("{:032x}", Checkpoint::open(source)?.checksum()?);
                Some(model).filter(|model| model.metadata().provenance.source.checksum == checksum)
            }
            None => None,
        };
        let dense = match opened {
            Some(model) => model,
            None => {
                let half = Encoding::F16;
                let recipe = Recipe { embedding: Some(half), head: Some(half.into()), ..Recipe::new(half) };
                convert(
                    source,
                    &path,
                    &ConvertOptions { recipe, force: true, ..Default::default() },
                    progress,
                )?;
                Model::open(&path).map_err(CalibrationError::from)?
            }
        };
        Ok(Self { source: source.into(), folder: folder.into(), options, dense: Arc::new(dense), text: None })
    }

    /// The dense model.
    pub fn dense(&self) -> &Arc<Model> {
        &self.dense
    }

    /// The calibration, with Hessians if asked for.
    pub fn calibration(
        &mut self,
        hessians: bool,
        progress: &dyn CompressProgress,
    ) -> Result<PathBuf, ConvertError> {
        let path = self.folder.join("dense.calibration.safetensors");
        let checksum = &self.dense.metadata().provenance.source.checksum;
        if let Ok(calibration) = Calibration::open(&path) {
            let serves =
                calibration.check_model(checksum).is_ok() && (calibration.info().hessians || !hessians);
            if serves {
                return Ok(path);
            }
        }
        let (dense, options) = (Arc::clone(&self.dense), self.collecting(hessians));
        Calibration::collect(&dense, self.text(progress)?, &options, &path, progress)?;
        Ok(path)
    }

    /// Writes the file of a recipe.
    pub fn write(
        &mut self,
        options: &ConvertOptions,
        output: &Path,
        progress: &dyn CompressProgress,
    ) -> Result<Report, ConvertError> {
        let recipe = &options.recipe;
        let calibration = match &options.calibration {
            Some(path) => path.clone(),
            None => self.calibration(recipe.needs_hessians(), progress)?,
        };
        let mut options =
            ConvertOptions { calibration: Some(calibration), memory: self.options.memory, ..options.clone() };
        if !recipe.refine {
            return convert(&self.source, output, &options, progress);
        }
        let (first, pair) =
            (self.folder.join("first.pith"), self.folder.join("pair.calibration.safetensors"));
        convert(&self.source, &first, &ConvertOptions { force: true, ..options.clone() }, progress)?;
        let compressed = Arc::new(Model::open(&first).map_err(CalibrationError::from)?);
        let (dense, collecting) = (Arc::clone(&self.dense), self.collecting(true));
        Calibration::collect_pair(&dense, &compressed, self.text(progress)?, &collecting, &pair, progress)?;
        options.calibration = Some(pair.clone());
        let report = convert(&self.source, output, &options, progress);
        for path in [first, pair] {
            // They are in the way of nothing: the folder goes, or the next recipe overwrites them.
            let _ = std::fs::remove_file(path);
        }
        report
    }

    fn collecting(&self, hessians: bool) -> CalibrationOptions {
        let (memory, session) = (self.options.memory, self.options.session.clone());
        CalibrationOptions { hessians, memory, session, force: true, ..CalibrationOptions::default() }
    }

    fn text(&mut self, progress: &dyn CompressProgress) -> Result<&CalibrationText, ConvertError> {
        if self.text.is_none() {
            let options = &self.options;
            self.text = Some(match &options.text {
                Some(path) => CalibrationText::read(path, &self.dense, options.text_options.clone())?,
                None => {
                    let (text, session) = (options.text_options.clone(), options.session.clone());
                    CalibrationText::generate(&self.dense, text, session, progress)?
                }
            });
        }
        Ok(self.text.as_ref().expect("set above"))
    }
}
