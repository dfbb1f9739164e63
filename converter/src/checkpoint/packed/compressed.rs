//! compressed-tensors, as llm-compressor writes it: the formats `pack-quantized` and
//! `int-quantized`.
//!
//! Packed: `weight_packed` (I32, outputs × words of inputs) with each code plus half its range,
//! `weight_shape` (I64), `weight_zero_point` (I32, words of outputs × groups). Plain: `weight`
//! (I8), `weight_zero_point` (I8, outputs × groups). Both: `weight_scale` (outputs × groups,
//! outputs × 1, or one number), `weight_g_idx` (I32, −1: none). Source:
//! `compressors/pack_quantized` and `compressors/naive_quantized` of compressed-tensors 0.20.

use std::ops::Range;

use rayon::prelude::*;

use super::super::file::SourceFile;
use super::super::{CheckpointError, SourceType, TensorInfo};
use super::fields::{field, words_of};
use super::part::{FLOATS, Part, Parts, WORDS};
use super::settings::Settings;
use super::{Band, Layout, Method, Opened, indexed, runs};

const BITS: &[u32] = &[2, 4, 8];
const FORMATS: &[&str] = &["pack-quantized", "int-quantized", "naive-quantized"];
const WEIGHTS_ONLY: &str = "none: only checkpoints whose weights alone are quantized are read";

/// Settings of the configuration, combined over its groups of modules.
pub(super) struct Compressed {
    bits: Vec<u32>,
    group_sizes: Vec<usize>,
    /// Whether every scheme has zero points.
    asymmetric: bool,
}

impl Compressed {
    pub(super) fn new(settings: &Settings<'_>) -> Result<Self, CheckpointError> {
        check_format(settings)?;
        for key in ["kv_cache_scheme", "transform_config"] {
            if !settings.is_empty(key) {
                return Err(settings.error(key, "none"));
            }
        }
        if let Some(sparsity) = settings.object("sparsity_config")?
            && sparsity.text("format")?.is_some_and(|format| format != "dense")
        {
            return Err(sparsity.error("format", "dense: compressed sparse weights are not read"));
        }
        let mut found = Self { bits: Vec::new(), group_sizes: Vec::new(), asymmetric: true };
        let groups = settings.object("config_groups")?;
        let groups = groups.ok_or_else(|| settings.error("config_groups", "an object"))?;
        for key in groups.keys() {
            let Some(group) = groups.object(key)? else { continue };
            check_format(&group)?;
            for key in ["input_activations", "output_activations"] {
                if !group.is_empty(key) {
                    return Err(group.error(key, WEIGHTS_ONLY));
                }
            }
            let Some(weights) = group.object("weights")? else { continue };
            if weights.text("type")?.is_some_and(|kind| kind != "int") {
                return Err(weights.error("type", "int"));
            }
            found.bits.push(weights.bits("num_bits", BITS)?);
            match weights.text("strategy")? {
                None | Some("tensor" | "channel" | "group") => {}
                Some(_) => return Err(weights.error("strategy", "tensor, channel or group")),
            }
            found.group_sizes.extend(weights.group_size("group_size")?);
            found.asymmetric &= !weights.is_empty("symmetric") && !weights.flag("symmetric")?;
        }
        if found.bits.is_empty() {
            return Err(settings.error("config_groups", "one that quantizes weights"));
        }
        Ok(found)
    }

    /// The group of each column and the number of groups, by the width of the scales.
    fn groups(
        &self,
        parts: &mut Parts<'_>,
        base: &str,
        scales: &Part,
        cols: usize,
    ) -> Result<Vec<u32>, CheckpointError> {
        let count = scales.width();
        if let Some(index) = parts.find(base, "weight_g_idx", WORDS)? {
            parts.check(&index, 1, cols)?;
            if parts.words(&index)?.iter().any(|&group| group != u32::MAX) {
                return indexed(parts, &index, count);
            }
        }
        if count == 1 {
            return Ok(vec![0; cols]);
        }
        self.group_sizes
            .iter()
            .find_map(|&size| runs(cols, size, count))
            .ok_or_else(|| parts.wrong(scales, format!("a column for every group of the {cols} inputs")))
    }
}

/// Checks the format of all modules, or of one group of them.
fn check_format(settings: &Settings<'_>) -> Result<(), CheckpointError> {
    match settings.text("format")? {
        Some(format) if !FORMATS.contains(&format) => Err(settings.error("format", &FORMATS.join(", "))),
        _ => Ok(()),
    }
}

impl Method for Compressed {
    fn base<'n>(&self, tensor: &'n TensorInfo) -> Option<&'n str> {
        let plain = || tensor.name.strip_suffix(".weight").filter(|_| tensor.dtype == SourceType::I8);
        tensor.name.strip_suffix(".weight_packed").or_else(plain)
    }

    fn open(&self, parts: &mut Parts<'_>, base: &str) -> Result<Opened, CheckpointError> {
        let scales = parts.take(base, "weight_scale", FLOATS)?;
        let packed = parts.find(base, "weight_packed", WORDS)?;
        let is_packed = packed.is_some();
        let (codes, bits, cols) = match packed {
            Some(packed) => {
                let shape = parts.take(base, "weight_shape", &[SourceType::I64, SourceType::I32])?;
                let cols = check_shape(parts, &packed, &shape)?;
                let fits = |bits: &&u32| words_of(cols, **bits) == Some(packed.width());
                let bits = self.bits.iter().find(fits).copied();
                let all = || format!("the words of {cols} codes of {:?} bits", self.bits);
                (packed.clone(), bits.ok_or_else(|| parts.wrong(&packed, all()))?, cols)
            }
            None => {
                let plain = parts.take(base, "weight", &[SourceType::I8])?;
                let cols = plain.width();
                (plain, 8, cols)
            }
        };
        let rows = codes.lines();
        let group_count = scales.width();
        // One number for the whole matrix, or one line per row.
        if scales.lines() != rows && (scales.lines(), group_count) != (1, 1) {
            return Err(parts.wrong(&scales, format!("{rows} lines, or one number")));
        }
        let groups = self.groups(parts, base, &scales, cols)?;
        let types = if is_packed { WORDS } else { &[SourceType::I8] };
        let zeros = match self.asymmetric {
            true => Some(parts.take(base, "weight_zero_point", types)?),
            false => parts.find(base, "weight_zero_point", types)?,
        };
        if let Some(zeros) = &zeros {
            let lines = if is_packed { words_of(rows, bits) } else { Some(scales.lines()) };
            parts.check(zeros, lines.unwrap_or(0), group_count)?;
        }
        let name = scales.name().into();
        let layout = Box::new(Lines { bits, is_packed, cols, codes, zeros, scales });
        Ok(Opened { rows, groups, group_count, scales: name, layout })
    }

    fn looks_for(&self) -> &'static str {
        "NAME.weight_packed, or NAME.weight of I8"
    }
}

/// The number of columns of the packed matrix, from `weight_shape`.
fn check_shape(parts: &Parts<'_>, packed: &Part, shape: &Part) -> Result<usize, CheckpointError> {
    parts.check(shape, 1, 2)?;
    let bytes = parts.bytes(shape)?;
    let dims: Vec<i64> = match shape.dtype() {
        SourceType::I64 => bytes.as_chunks::<8>().0.iter().map(|&dim| i64::from_le_bytes(dim)).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|&dim| i32::from_le_bytes(dim).into()).collect(),
    };
    let most = packed.width() as i64 * 32;
    if dims[0] != packed.lines() as i64 || !(1..=most).contains(&dims[1]) {
        let expected =
            format!("{} rows, and 1 to {most} columns in {} words", packed.lines(), packed.width());
        return Err(parts.wrong_value(shape, "the shape".into(), format!("{dims:?}"), expected));
    }
    Ok(dims[1] as usize)
}

#[derive(Debug)]
struct Lines {
    bits: u32,
    is_packed: bool,
    cols: usize,
    codes: Part,
    zeros: Option<Part>,
    scales: Part,
}

impl Layout for Lines {
    fn read(&self, files: &[SourceFile], rows: Range<usize>) -> Result<Band, CheckpointError> {
        let groups = self.scales.width();
        let scales = match self.scales.lines() {
            1 => self.scales.floats(files, 0..1, 0..groups)?.repeat(rows.len()),
            _ => self.scales.floats(files, rows.clone(), 0..groups)?,
        };
        let zeros = match &self.zeros {
            Some(zeros) => self.zeros(zeros, files, rows.clone())?,
            None => Vec::new(),
        };
        let codes = if self.is_packed {
            self.unpack(files, rows)?
        } else {
            signed(&self.codes.window(files, rows, 0..self.cols)?)
        };
        Ok(Band { codes, zeros, scales })
    }
}

impl Lines {
    fn half(&self) -> i16 {
        1 << (self.bits - 1)
    }

    fn unpack(&self, files: &[SourceFile], rows: Range<usize>) -> Result<Vec<i16>, CheckpointError> {
        let width = self.codes.width();
        let words = self.codes.words(files, rows.clone(), 0..width)?;
        let mut codes = vec![0; rows.len() * self.cols];
        codes.par_chunks_mut(self.cols).zip(words.par_chunks(width)).for_each(|(codes, words)| {
            for (col, code) in codes.iter_mut().enumerate() {
                let stored = field(|word| words[word], col * self.bits as usize, self.bits);
                *code = stored as i16 - self.half();
            }
        });
        Ok(codes)
    }

    fn zeros(
        &self,
        zeros: &Part,
        files: &[SourceFile],
        rows: Range<usize>,
    ) -> Result<Vec<i16>, CheckpointError> {
        let (groups, bits) = (zeros.width(), self.bits as usize);
        if !self.is_packed {
            return Ok(match zeros.lines() {
                1 => signed(&zeros.window(files, 0..1, 0..groups)?).repeat(rows.len()),
                _ => signed(&zeros.window(files, rows, 0..groups)?),
            });
        }
        let first = rows.start * bits / 32;
        let words = zeros.words(files, first..(rows.end * bits).div_ceil(32), 0..groups)?;
        let zero = |row: usize, group: usize| {
            let stored = field(|word| words[word * groups + group], row * bits - first * 32, self.bits);
            stored as i16 - self.half()
        };
        Ok(rows
            .flat_map(|row| (0..groups).map(move |group| (row, group)))
            .map(|(row, group)| zero(row, group))
            .collect())
    }
}

fn signed(bytes: &[u8]) -> Vec<i16> {
    bytes.iter().map(|&byte| i16::from(byte as i8)).collect()
}
