//! AWQ as AutoAWQ writes it, version GEMM.
//!
//! `qweight` (I32, inputs × words of outputs) and `qzeros` (I32, groups × words of outputs): eight
//! outputs per word, even outputs in its lower half, odd ones in its upper half. `scales` (groups ×
//! outputs). Groups are runs of inputs. Source: `WQLinear_GEMM.from_linear` of AutoAWQ 0.2.9,
//! `awq/modules/linear/gemm.py`.

use std::ops::Range;

use rayon::prelude::*;

use super::super::file::SourceFile;
use super::super::{CheckpointError, TensorInfo};
use super::gptq::transposed;
use super::part::{FLOATS, Part, Parts, WORDS};
use super::settings::Settings;
use super::{Band, Layout, Method, Opened, runs};

/// Outputs per word.
const WORD_CODES: usize = 8;
/// The nibble of each output in a word.
const NIBBLES: [u32; WORD_CODES] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Settings of the configuration.
pub(super) struct Awq {
    group_size: Option<usize>,
}

impl Awq {
    pub(super) fn new(settings: &Settings<'_>) -> Result<Self, CheckpointError> {
        for key in ["version", "checkpoint_format", "format"] {
            if settings.text(key)?.is_some_and(|version| !version.eq_ignore_ascii_case("gemm")) {
                return Err(settings.error(key, "gemm"));
            }
        }
        let bits = if settings.is_empty("w_bit") { "bits" } else { "w_bit" };
        settings.bits(bits, &[4])?;
        let size = if settings.is_empty("q_group_size") { "group_size" } else { "q_group_size" };
        Ok(Self { group_size: settings.group_size(size)? })
    }
}

impl Method for Awq {
    fn base<'n>(&self, tensor: &'n TensorInfo) -> Option<&'n str> {
        tensor.name.strip_suffix(".qweight")
    }

    fn open(&self, parts: &mut Parts<'_>, base: &str) -> Result<Opened, CheckpointError> {
        let codes = parts.take(base, "qweight", WORDS)?;
        let zeros = parts.take(base, "qzeros", WORDS)?;
        let scales = parts.take(base, "scales", FLOATS)?;
        let (cols, rows) = (codes.lines(), codes.width() * WORD_CODES);
        let group_count = scales.lines();
        parts.check(&scales, group_count, rows)?;
        parts.check(&zeros, group_count, codes.width())?;
        let groups = runs(cols, self.group_size.unwrap_or(cols), group_count)
            .ok_or_else(|| parts.wrong(&scales, format!("a line for every group of the {cols} inputs")))?;
        let name = scales.name().into();
        Ok(Opened {
            rows,
            groups,
            group_count,
            scales: name,
            layout: Box::new(Interleaved { codes, zeros, scales }),
        })
    }

    fn looks_for(&self) -> &'static str {
        "NAME.qweight"
    }
}

#[derive(Debug)]
struct Interleaved {
    codes: Part,
    zeros: Part,
    scales: Part,
}

impl Layout for Interleaved {
    fn read(&self, files: &[SourceFile], rows: Range<usize>) -> Result<Band, CheckpointError> {
        let scales = self.scales.floats(files, 0..self.scales.lines(), rows.clone())?;
        Ok(Band {
            codes: nibbles(&self.codes, files, rows.clone())?,
            zeros: nibbles(&self.zeros, files, rows.clone())?,
            scales: transposed(&scales, rows.len()),
        })
    }
}

/// Codes of some outputs of a part, `rows × lines`.
fn nibbles(part: &Part, files: &[SourceFile], rows: Range<usize>) -> Result<Vec<i16>, CheckpointError> {
    let first = rows.start / WORD_CODES;
    let columns = first..rows.end.div_ceil(WORD_CODES);
    let words = part.words(files, 0..part.lines(), columns.clone())?;
    let mut out = vec![0; rows.len() * part.lines()];
    out.par_chunks_mut(part.lines()).zip(rows).for_each(|(out, row)| {
        let (word, shift) = (row / WORD_CODES - first, 4 * NIBBLES[row % WORD_CODES]);
        let lines = words.chunks_exact(columns.len());
        out.iter_mut().zip(lines).for_each(|(out, line)| *out = (line[word] >> shift & 15) as i16);
    });
    Ok(out)
}
