//! GPTQ as AutoGPTQ and GPTQModel write it.
//!
//! `qweight` (I32, words of inputs × outputs): the codes of an output, packed along the inputs.
//! `qzeros` (I32, groups × words of outputs): zero points, packed along the outputs; the first
//! version of the format stores each less one, `gptq_v2` as it is. `scales` (groups × outputs).
//! `g_idx` (I32): the group of every input, in any order if the columns were quantized by
//! activation. Source: `pack_original` and `dequantize_weight` of GPTQModel 7.7,
//! `nn_modules/qlinear/__init__.py`.

use std::ops::Range;

use rayon::prelude::*;

use super::super::file::SourceFile;
use super::super::{CheckpointError, TensorInfo};
use super::fields::{field, words_of};
use super::part::{FLOATS, Part, Parts, WORDS};
use super::settings::Settings;
use super::{Band, Layout, Method, Opened, indexed, runs};

const BITS: &[u32] = &[2, 3, 4, 8];

/// Settings of the configuration.
pub(super) struct Gptq {
    bits: u32,
    /// Modules may differ in bits, which follow from their shapes.
    bits_differ: bool,
    group_size: Option<usize>,
    /// Zero points are stored less one.
    shifted: bool,
}

impl Gptq {
    pub(super) fn new(settings: &Settings<'_>) -> Result<Self, CheckpointError> {
        let format = match settings.text("checkpoint_format")? {
            Some(format) => Some(("checkpoint_format", format)),
            None => settings.text("format")?.map(|format| ("format", format)),
        };
        let shifted = match format {
            None | Some((_, "" | "gptq")) => true,
            Some((_, "gptq_v2")) => false,
            Some((key, _)) => return Err(settings.error(key, "gptq or gptq_v2")),
        };
        if settings.text("pack_dtype")?.is_some_and(|dtype| dtype != "int32") {
            return Err(settings.error("pack_dtype", "int32"));
        }
        Ok(Self {
            bits: settings.bits("bits", BITS)?,
            bits_differ: !settings.is_empty("dynamic"),
            group_size: settings.group_size("group_size")?,
            shifted,
        })
    }
}

impl Method for Gptq {
    fn base<'n>(&self, tensor: &'n TensorInfo) -> Option<&'n str> {
        tensor.name.strip_suffix(".qweight")
    }

    fn open(&self, parts: &mut Parts<'_>, base: &str) -> Result<Opened, CheckpointError> {
        let codes = parts.take(base, "qweight", WORDS)?;
        let zeros = parts.take(base, "qzeros", WORDS)?;
        let scales = parts.take(base, "scales", FLOATS)?;
        let index = parts.find(base, "g_idx", WORDS)?;
        let rows = codes.width();
        let (cols, bits) = match &index {
            Some(index) => {
                parts.check(index, 1, index.width())?;
                let cols = index.width();
                let fits = |&&bits: &&u32| words_of(cols, bits) == Some(codes.lines());
                let own = BITS.iter().find(fits).filter(|_| self.bits_differ);
                (cols, own.copied().unwrap_or(self.bits))
            }
            None => (codes.lines() * 32 / self.bits as usize, self.bits),
        };
        let words = |count: usize| {
            words_of(count, bits).ok_or_else(|| parts.wrong(&codes, format!("fewer than {count} codes")))
        };
        parts.check(&codes, words(cols)?, rows)?;
        let group_count = scales.lines();
        parts.check(&scales, group_count, rows)?;
        parts.check(&zeros, group_count, words(rows)?)?;
        let groups = match &index {
            Some(index) => indexed(parts, index, group_count)?,
            None => runs(cols, self.group_size.unwrap_or(cols), group_count).ok_or_else(|| {
                parts.wrong(&scales, format!("a line for every group of the {cols} inputs"))
            })?,
        };
        let name = scales.name().into();
        let layout = Box::new(Words { bits, shifted: self.shifted, cols, codes, zeros, scales });
        Ok(Opened { rows, groups, group_count, scales: name, layout })
    }

    fn looks_for(&self) -> &'static str {
        "NAME.qweight"
    }
}

#[derive(Debug)]
struct Words {
    bits: u32,
    shifted: bool,
    cols: usize,
    codes: Part,
    zeros: Part,
    scales: Part,
}

impl Layout for Words {
    fn read(&self, files: &[SourceFile], rows: Range<usize>) -> Result<Band, CheckpointError> {
        let (bits, count) = (self.bits as usize, rows.len());
        let words = self.codes.words(files, 0..self.codes.lines(), rows.clone())?;
        let mut codes = vec![0; count * self.cols];
        codes.par_chunks_mut(self.cols).enumerate().for_each(|(row, codes)| {
            for (col, code) in codes.iter_mut().enumerate() {
                *code = field(|word| words[word * count + row], col * bits, self.bits) as i16;
            }
        });
        let group_count = self.scales.lines();
        let stored = self.scales.floats(files, 0..group_count, rows.clone())?;
        let scales = transposed(&stored, count);
        let zeros = transposed(&self.zeros(files, rows)?, count);
        Ok(Band { codes, zeros, scales })
    }
}

impl Words {
    /// Zero points of some rows, `groups × rows`.
    fn zeros(&self, files: &[SourceFile], rows: Range<usize>) -> Result<Vec<i16>, CheckpointError> {
        let bits = self.bits as usize;
        let first = rows.start * bits / 32;
        let columns = first..(rows.end * bits).div_ceil(32);
        let mut words = self.zeros.words(files, 0..self.zeros.lines(), columns.clone())?;
        // Writers subtract one from all fields of a word at once, so borrows must be undone the
        // same way. Fields that cross words were each shifted separately.
        let whole_words = bits != 3;
        if self.shifted && whole_words {
            let one_each = u32::MAX / ((1 << bits) - 1);
            words.iter_mut().for_each(|word| *word = word.wrapping_add(one_each));
        }
        let lines = words.chunks_exact(columns.len());
        let zeros = lines.flat_map(|line| {
            rows.clone().map(move |row| {
                let zero = field(|word| line[word], row * bits - first * 32, self.bits);
                let added = u32::from(self.shifted && !whole_words);
                ((zero + added) & ((1 << bits) - 1)) as i16
            })
        });
        Ok(zeros.collect())
    }
}

/// Transposes lines of `width` values.
pub(super) fn transposed<T: Copy>(values: &[T], width: usize) -> Vec<T> {
    let lines = values.len() / width.max(1);
    (0..width).flat_map(|col| (0..lines).map(move |line| values[line * width + col])).collect()
}
