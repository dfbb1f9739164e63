//! Activation statistics: moments of the inputs of each matrix, from one ordinary run of the model
//! over a text. They are kept in a file that many recipes can share; `docs/quantizing.md` specifies
//! it.
//!
//! ```no_run
//! use pith_converter::statistics::{Statistics, StatisticsOptions, CalibrationText, TextOptions};
//! use pith_runtime::{Model, Site};
//! use std::{path::Path, sync::Arc};
//!
//! let model = Arc::new(Model::open(Path::new("model.pith"))?);
//! let text = CalibrationText::read(Path::new("text.txt"), &model, TextOptions::default())?;
//! let options = StatisticsOptions { hessians: true, ..StatisticsOptions::default() };
//! let output = Path::new("model.calibration.safetensors");
//! Statistics::collect(&model, &text, &options, output, &())?;
//! let statistics = Statistics::open(output)?;
//! let stats = statistics.stats(Some(0), Site::Down)?;
//! let hessian = statistics.gram(Some(0), Site::Down)?;
//! # let _ = (stats, hessian);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod collect;
mod error;
mod file;
mod hidden;
mod moments;
mod sites;
mod text;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use pith_format::Progress;
use xxhash_rust::xxh3::Xxh3;

pub use collect::{StatisticsOptions, StatisticsReport};
pub use error::StatisticsError;
pub use file::StatisticsInfo;
pub use pith_runtime::Site;
pub(crate) use pith_runtime::{Model, SessionOptions};
pub use text::{CalibrationText, DEFAULT_GENERATED, DEFAULT_WINDOW, LEAST_TOKENS, TextOptions};

use crate::checkpoint::file::SourceFile;
use crate::checkpoint::safetensors::{read_header, read_metadata};
use crate::checkpoint::{SourceType, TensorInfo};
use file::{CROSS, GRAM, MOMENTS, packed_len, tensor_name};
use sites::site_name;

/// Largest number of layers, and of columns, in the format.
const MAX_LAYERS: usize = 1 << 12;
const MAX_COLS: usize = 1 << 24;

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// An open file of activation statistics. Values are read when they are asked for.
#[derive(Debug)]
pub struct Statistics {
    file: SourceFile,
    info: StatisticsInfo,
    /// Tensors and their checksums.
    tensors: HashMap<String, (TensorInfo, u64)>,
}

/// Statistics of a site, per column.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteStats {
    /// Number of tokens.
    pub tokens: usize,
    /// `E[x²]`.
    pub mean_square: Vec<f32>,
    /// `E[x]`.
    pub mean: Vec<f32>,
    /// `E[|x|]`.
    pub mean_abs: Vec<f32>,
}

impl SiteStats {
    /// `‖x‖₂` of every column over all tokens: `√(tokens · E[x²])`.
    pub fn norms(&self) -> Vec<f32> {
        let tokens = self.tokens as f64;
        self.mean_square.iter().map(|&square| (tokens * f64::from(square)).sqrt() as f32).collect()
    }
}

/// `E[x xᵀ]` of a site: symmetric, positive semidefinite.
#[derive(Clone, Debug, PartialEq)]
pub struct Gram {
    /// Columns.
    pub cols: usize,
    /// Row by row, the entries on and right of the diagonal: `cols · (cols + 1) / 2` values.
    pub upper: Vec<f32>,
}

impl Gram {
    /// The full matrix, `cols × cols`.
    pub fn to_full(&self) -> Vec<f32> {
        let cols = self.cols;
        let mut full = vec![0.0; cols * cols];
        let mut rest = &self.upper[..];
        for row in 0..cols {
            let (line, tail) = rest.split_at(cols - row);
            full[row * cols + row..(row + 1) * cols].copy_from_slice(line);
            for (col, &value) in (row..cols).zip(line) {
                full[col * cols + row] = value;
            }
            rest = tail;
        }
        full
    }
}

impl Statistics {
    /// Runs all sequences of `text` through the model, layer by layer, and writes the statistics of
    /// every site to `output`.
    ///
    /// The file appears when it is complete. Fails on a text that is too short, on activations that
    /// are not finite, on too little memory (before any is taken), and on a model of other
    /// encodings than f16 and f32 unless the options allow it.
    pub fn collect(
        model: &Arc<Model>,
        text: &CalibrationText,
        options: &StatisticsOptions,
        output: &Path,
        progress: &dyn Progress,
    ) -> Result<StatisticsReport, StatisticsError> {
        collect::collect(model, None, text, options, output, progress)
    }

    /// [`Statistics::collect`] for a compressed file of the same model, with its difference from
    /// the dense model ([`Statistics::cross`]). Each token goes through both models, layer by
    /// layer.
    pub fn collect_pair(
        dense: &Arc<Model>,
        compressed: &Arc<Model>,
        text: &CalibrationText,
        options: &StatisticsOptions,
        output: &Path,
        progress: &dyn Progress,
    ) -> Result<StatisticsReport, StatisticsError> {
        collect::collect(dense, Some(compressed), text, options, output, progress)
    }

    /// Opens a file. Checks that every site of every layer is present, with matching widths, and
    /// with means of pairs for all sites or none. Reads no values.
    pub fn open(path: &Path) -> Result<Self, StatisticsError> {
        let file = SourceFile::open(path)?;
        let list = read_header(&file, 0)?;
        let metadata = read_metadata(&file)?;
        let info = StatisticsInfo::parse(path, &metadata)?;
        let wrong = |field, found: String, expected: String| {
            Err(StatisticsError::Field { path: path.into(), field, found, expected })
        };
        if info.layers > MAX_LAYERS {
            return wrong("layers", info.layers.to_string(), format!("{MAX_LAYERS} at most"));
        }
        if info.tokens == 0 {
            return wrong("tokens", "0".into(), "at least 1".into());
        }
        let digits = metadata.get("checksums").map_or("", String::as_str).as_bytes();
        let checksums: Option<Vec<u64>> = digits
            .chunks(16)
            .map(|digits| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
            .collect();
        let Some(checksums) = checksums.filter(|sums| sums.len() == list.len() && digits.len() % 16 == 0)
        else {
            let expected = format!("16 hexadecimal digits for each of {} tensors", list.len());
            return wrong("checksums", format!("{} digits", digits.len()), expected);
        };
        let tensors = list.into_iter().zip(checksums);
        let tensors = tensors.map(|(tensor, checksum)| (tensor.name.clone(), (tensor, checksum))).collect();
        let calibration = Self { file, info, tensors };
        calibration.check_tensors()?;
        Ok(calibration)
    }

    /// Metadata of the file.
    pub fn info(&self) -> &StatisticsInfo {
        &self.info
    }

    /// Fails unless the statistics are of the checkpoint with this checksum, which a `.pith` file
    /// has in its provenance.
    pub fn check_model(&self, source_checksum: &str) -> Result<(), StatisticsError> {
        if self.info.source_checksum == source_checksum {
            return Ok(());
        }
        Err(StatisticsError::OtherModel {
            path: self.file.path().into(),
            name: self.info.model.clone(),
            found: self.info.source_checksum.clone(),
            expected: source_checksum.into(),
        })
    }

    /// Columns of a site; `layer` is `None` for [`Site::Head`].
    pub fn cols(&self, layer: Option<usize>, site: Site) -> Result<usize, StatisticsError> {
        let tensor = self.tensors.get(&tensor_name(layer, site, MOMENTS[0]));
        let tensor = tensor.filter(|_| (site == Site::Head) == layer.is_none());
        let place = || site_name(layer, site);
        let none = || StatisticsError::NoSite { path: self.file.path().into(), place: place() };
        Ok(tensor.ok_or_else(none)?.0.elements())
    }

    /// Statistics of every column of a site.
    pub fn stats(&self, layer: Option<usize>, site: Site) -> Result<SiteStats, StatisticsError> {
        self.cols(layer, site)?;
        let read = |what| self.read(&tensor_name(layer, site, what));
        let [mean_square, mean, mean_abs] = MOMENTS;
        Ok(SiteStats {
            tokens: self.info.tokens,
            mean_square: read(mean_square)?,
            mean: read(mean)?,
            mean_abs: read(mean_abs)?,
        })
    }

    /// `E[(x − x̂) x̂ᵀ]`, `cols × cols`, with the dense model's input `x` and the compressed
    /// model's `x̂`; all other statistics are of `x̂`. `None` for statistics of one model.
    pub fn cross(&self, layer: Option<usize>, site: Site) -> Result<Option<Vec<f32>>, StatisticsError> {
        self.cols(layer, site)?;
        if !self.info.is_pair() {
            return Ok(None);
        }
        self.read(&tensor_name(layer, site, CROSS)).map(Some)
    }

    /// Means of all pairs of a site's columns; `None` where they were not collected.
    pub fn gram(&self, layer: Option<usize>, site: Site) -> Result<Option<Gram>, StatisticsError> {
        let cols = self.cols(layer, site)?;
        if !self.info.hessians {
            return Ok(None);
        }
        Ok(Some(Gram { cols, upper: self.read(&tensor_name(layer, site, GRAM))? }))
    }

    /// Every site that must be present: the head, and those parts of each layer of which the file
    /// has any tensor, since a layer may lack attention or a feed-forward block.
    fn places(&self) -> impl Iterator<Item = (Option<usize>, Site)> {
        const HALVES: [[Site; 2]; 2] = [[Site::Attention, Site::Output], [Site::Ffn, Site::Down]];
        let parts = || MOMENTS.into_iter().chain([GRAM, CROSS]);
        let has =
            move |layer, site| parts().any(|what| self.tensors.contains_key(&tensor_name(layer, site, what)));
        let halves = (0..self.info.layers).map(Some).flat_map(|layer| HALVES.map(|half| (layer, half)));
        let present = halves.filter(move |&(layer, half)| half.into_iter().any(|site| has(layer, site)));
        let of_layers = present.flat_map(|(layer, half)| half.map(|site| (layer, site)));
        of_layers.chain([(None, Site::Head)])
    }

    fn check_tensors(&self) -> Result<(), StatisticsError> {
        let mut known = 0;
        for (layer, site) in self.places() {
            let name = |what| tensor_name(layer, site, what);
            let cols = self.vector(&name(MOMENTS[0]), None)?;
            for what in &MOMENTS[1..] {
                self.vector(&name(what), Some(cols))?;
            }
            if self.info.hessians {
                self.vector(&name(GRAM), Some(packed_len(cols)))?;
            }
            if self.info.is_pair() {
                self.vector(&name(CROSS), Some(cols * cols))?;
            }
            known += MOMENTS.len() + usize::from(self.info.hessians) + usize::from(self.info.is_pair());
        }
        if known == self.tensors.len() {
            return Ok(());
        }
        let pair = self.info.is_pair().then_some(CROSS);
        let parts: Vec<&str> =
            MOMENTS.into_iter().chain(self.info.hessians.then_some(GRAM)).chain(pair).collect();
        let is_known = |name: &str| {
            self.places().any(|(layer, site)| parts.iter().any(|what| tensor_name(layer, site, what) == name))
        };
        let mut names: Vec<&String> = self.tensors.keys().filter(|name| !is_known(name)).collect();
        names.sort();
        Err(self.wrong(names[0], "has no part in a calibration".into()))
    }

    /// Length of a vector of floats; must be `expected` where given.
    fn vector(&self, name: &str, expected: Option<usize>) -> Result<usize, StatisticsError> {
        let Some((tensor, _)) = self.tensors.get(name) else {
            return Err(self.wrong(name, "is missing".into()));
        };
        let len = tensor.elements();
        let fits = match expected {
            Some(expected) => len == expected,
            None => (1..=MAX_COLS).contains(&len),
        };
        if tensor.dtype != SourceType::F32 || tensor.shape.len() != 1 || !fits {
            let expected = expected.map_or(format!("1 to {MAX_COLS}"), |expected| expected.to_string());
            let problem =
                format!("is {} {:?}, expected a vector of {expected} F32 values", tensor.dtype, tensor.shape);
            return Err(self.wrong(name, problem));
        }
        Ok(len)
    }

    /// The values of a tensor, compared with its checksum.
    fn read(&self, name: &str) -> Result<Vec<f32>, StatisticsError> {
        let (tensor, expected) = self.tensors.get(name).expect("checked when the file was opened");
        let mut values = Vec::with_capacity(tensor.elements());
        let (mut hash, mut bytes) = (Xxh3::new(), vec![0; READ_BYTES]);
        let mut left = tensor.bytes as usize;
        while left > 0 {
            let part = &mut bytes[..left.min(READ_BYTES)];
            self.file.read_at(tensor.offset + tensor.bytes - left as u64, part)?;
            hash.update(part);
            values.extend(part.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            left -= part.len();
        }
        let (expected, found) = (*expected, hash.digest());
        if found != expected {
            let (path, tensor) = (self.file.path().into(), name.into());
            return Err(StatisticsError::Damaged { path, tensor, expected, found });
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(self.wrong(name, format!("holds {} at {index}", values[index]))),
            None => Ok(values),
        }
    }

    fn wrong(&self, tensor: &str, problem: String) -> StatisticsError {
        StatisticsError::Tensor { path: self.file.path().into(), tensor: tensor.into(), problem }
    }
}
