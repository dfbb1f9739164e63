//! Quantized Hugging Face checkpoints: reads the several tensors of a matrix as one.
//!
//! All such formats store integers `q` and, for groups of them, a scale and a zero point:
//! `weight = scale · (q − zero)`. They differ in the layout of the bits; each format has its file
//! here. The result is a tensor `NAME.weight`, outputs × inputs, of [`SourceType::Packed`]: every
//! `q − zero` beside its scale.
//!
//! Opening reads shapes and the small tensors that assign columns to groups. Codes, zero points and
//! scales are read with their rows.

mod awq;
mod bitnet;
mod compressed;
mod fields;
mod gptq;
mod part;
mod settings;

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;

use super::decode::packed::VALUE_BYTES;
use super::file::SourceFile;
use super::{CheckpointError, SourceType, TensorInfo};
use part::{Part, Parts};
use settings::Settings;

/// A method of `quantization_config`: finds and reads the tensors of a matrix.
trait Method {
    /// The name of the matrix, without `.weight`, if this is the tensor of its codes.
    fn base<'n>(&self, tensor: &'n TensorInfo) -> Option<&'n str>;

    /// Finds the other tensors and checks all shapes.
    fn open(&self, parts: &mut Parts<'_>, base: &str) -> Result<Opened, CheckpointError>;

    /// The tensors it looks for, for messages.
    fn looks_for(&self) -> &'static str;
}

/// A matrix whose tensors are known.
struct Opened {
    rows: usize,
    /// The group of every column.
    groups: Vec<u32>,
    group_count: usize,
    /// The tensor of the scales, for messages.
    scales: String,
    layout: Box<dyn Layout>,
}

/// The layout of one matrix.
trait Layout: Debug + Send + Sync {
    /// Reads the codes, zeros and scales of `rows`, which must be rows of the matrix.
    fn read(&self, files: &[SourceFile], rows: Range<usize>) -> Result<Band, CheckpointError>;
}

/// Some rows of a matrix, row-major.
struct Band {
    /// rows × columns.
    codes: Vec<i16>,
    /// rows × groups; empty where all are zero.
    zeros: Vec<i16>,
    /// rows × groups.
    scales: Vec<f32>,
}

/// One matrix of a quantized checkpoint.
#[derive(Debug)]
pub(super) struct Packed {
    path: std::path::PathBuf,
    cols: usize,
    groups: Vec<u32>,
    group_count: usize,
    scales: String,
    layout: Box<dyn Layout>,
}

/// Ends of names that only parts of quantized matrices have.
const PARTS: &[&str] = &[".qweight", ".qzeros", ".weight_packed", ".weight_scale"];

/// Replaces the several tensors of each quantized matrix by one tensor, and returns how to read it.
///
/// Returns `tensors` unchanged where `config` has no quantization.
pub(super) fn open(
    folder: &Path,
    config: &Value,
    files: &[SourceFile],
    tensors: Vec<TensorInfo>,
) -> Result<(Vec<TensorInfo>, HashMap<String, Packed>), CheckpointError> {
    let Some(settings) = Settings::of(folder, config)? else {
        let is_part = |tensor: &&TensorInfo| PARTS.iter().any(|end| tensor.name.ends_with(end));
        return match tensors.iter().find(is_part) {
            None => Ok((tensors, HashMap::new())),
            Some(part) => {
                let tensor = part.name.clone();
                Err(CheckpointError::NoQuantization { path: folder.into(), tensor })
            }
        };
    };
    let method: Box<dyn Method> = match settings.text("quant_method")? {
        Some("gptq") => Box::new(gptq::Gptq::new(&settings)?),
        Some("awq") => Box::new(awq::Awq::new(&settings)?),
        Some("compressed-tensors") => Box::new(compressed::Compressed::new(&settings)?),
        Some("bitnet") => Box::new(bitnet::Bitnet::new(&settings)?),
        _ => {
            let expected =
                "gptq, awq, compressed-tensors or bitnet; convert the unquantized checkpoint instead";
            return Err(settings.error("quant_method", expected));
        }
    };
    let mut parts = Parts::new(folder, files, &tensors);
    let (mut opened, mut names) = (Vec::new(), HashSet::new());
    for tensor in &tensors {
        let Some(base) = method.base(tensor) else { continue };
        parts.begin();
        let matrix = method.open(&mut parts, base)?;
        let used = parts.end();
        let info = TensorInfo {
            name: format!("{base}.weight"),
            dtype: SourceType::Packed,
            shape: vec![matrix.rows, matrix.groups.len()],
            bytes: used.iter().map(|part| part.bytes).sum(),
            file: tensor.file,
            offset: tensor.offset,
        };
        names.extend(used.iter().map(|part| part.name.clone()));
        opened.push((tensor.name.clone(), info, matrix));
    }
    if opened.is_empty() {
        return Err(settings
            .error("quant_method", &format!("tensors {}, of which there are none", method.looks_for())));
    }
    let (mut packed, mut infos) = (HashMap::new(), HashMap::new());
    for (code_name, info, Opened { groups, group_count, scales, layout, .. }) in opened {
        let matrix = Packed { path: folder.into(), cols: groups.len(), groups, group_count, scales, layout };
        packed.insert(info.name.clone(), matrix);
        infos.insert(code_name, info);
    }
    let replaced = tensors.into_iter().filter_map(|tensor| match infos.remove(&tensor.name) {
        Some(info) => Some(info),
        None => (!names.contains(&tensor.name)).then_some(tensor),
    });
    Ok((replaced.collect(), packed))
}

impl Packed {
    /// The values of `rows`, which must be rows of the matrix, as [`SourceType::Packed`].
    pub(super) fn read(&self, files: &[SourceFile], rows: Range<usize>) -> Result<Vec<u8>, CheckpointError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let first = rows.start;
        let band = self.layout.read(files, rows)?;
        if let Some(at) = band.scales.iter().position(|scale| !scale.is_finite() || *scale == 0.0) {
            let row = first + at / self.group_count;
            return Err(CheckpointError::PartValue {
                path: self.path.clone(),
                tensor: self.scales.clone(),
                found: format!("row {row}, group {} is {}", at % self.group_count, band.scales[at]),
                expected: "a finite number other than 0".into(),
            });
        }
        let mut out = vec![0; band.codes.len() * VALUE_BYTES];
        out.par_chunks_mut(self.cols * VALUE_BYTES).enumerate().for_each(|(row, out)| {
            let scales = &band.scales[row * self.group_count..][..self.group_count];
            let zeros = band.zeros.get(row * self.group_count..(row + 1) * self.group_count);
            let codes = &band.codes[row * self.cols..][..self.cols];
            for ((value, &code), &group) in
                out.as_chunks_mut::<VALUE_BYTES>().0.iter_mut().zip(codes).zip(&self.groups)
            {
                let group = group as usize;
                let code = code - zeros.map_or(0, |zeros| zeros[group]);
                value[..4].copy_from_slice(&scales[group].to_le_bytes());
                value[4..].copy_from_slice(&code.to_le_bytes());
            }
        });
        Ok(out)
    }
}

/// Groups of `len` adjacent columns; `None` where `count` of them do not make `cols` columns.
fn runs(cols: usize, len: usize, count: usize) -> Option<Vec<u32>> {
    let exact = len > 0 && cols.div_ceil(len) == count;
    exact.then(|| (0..cols).map(|col| (col / len) as u32).collect())
}

/// The groups of the columns by an index tensor; every entry must be below `count`.
fn indexed(parts: &Parts<'_>, index: &Part, count: usize) -> Result<Vec<u32>, CheckpointError> {
    let groups = parts.words(index)?;
    match groups.iter().position(|&group| group as usize >= count) {
        None => Ok(groups),
        Some(at) => Err(parts.wrong_value(
            index,
            format!("column {at}"),
            (groups[at] as i32).to_string(),
            format!("a group from 0 to {}", count - 1),
        )),
    }
}
