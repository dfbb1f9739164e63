//! Lossless repack: which encodings hold the codes of a quantized source, and the copying of codes.

use pith_format::encoding::Multiplier;
use pith_format::encoding::rounding::{Parameters, Shared, Stored};
use pith_format::{Encoding, TILE_ROWS};
use rayon::prelude::*;

use super::{Codes, Group, Pass, PassError, PassReport, Rounded};
use crate::checkpoint::families::Binding;
use crate::checkpoint::survey::CLIPPED;
use crate::checkpoint::{SourceType, scale_and_code};
use crate::statistics::Statistics;

/// Repacks the checkpoint's codes where the file's encoding holds them and no pass has changed the
/// weights.
pub(crate) struct Repack;

impl Pass for Repack {
    fn name(&self) -> &'static str {
        "repack"
    }

    fn apply(&self, group: &mut Group, _: Option<&Statistics>) -> Result<PassReport, PassError> {
        let mut report = PassReport::default();
        for member in &mut group.members {
            let (Some(codes), Some(encoding)) = (member.codes.take(), member.encoding) else { continue };
            let (mut levels, clipped) = repack(&codes, encoding, member.rows(), member.cols);
            report.clipped += clipped;
            if let Some(mask) = &member.mask {
                levels.clear(mask, member.cols);
            }
            member.levels = Some(levels);
            member.repacked = true;
            report.members += 1;
        }
        Ok(report)
    }
}

/// Repacks rows of codes in an encoding that holds them. Also returns how many codes of −128, which
/// ggml never writes and Q8 lacks, became −127.
pub(super) fn repack(codes: &Codes, encoding: Encoding, rows: usize, cols: usize) -> (Rounded, u64) {
    let mut out = Rounded::new(encoding, rows, cols);
    let stride = out.stride;
    let blocks = codes
        .bytes
        .par_chunks(TILE_ROWS * codes.row_bytes)
        .zip(out.levels.par_chunks_mut(TILE_ROWS * stride))
        .map(|(stored, levels)| {
            let (mut parameters, mut clipped) = (Parameters::default(), 0);
            let rows = stored.chunks_exact(codes.row_bytes).zip(levels.chunks_exact_mut(stride));
            rows.for_each(|(stored, levels)| unpack_row(codes, encoding, stored, levels, &mut parameters));
            for level in levels.iter_mut().filter(|level| **level == i8::MIN) {
                *level = -i8::MAX;
                clipped += 1;
            }
            (parameters, clipped)
        });
    let (blocks, clipped): (Vec<Parameters>, Vec<u64>) = blocks.unzip();
    out.set_parameters(blocks);
    (out, clipped.into_iter().sum())
}

/// Levels and parameters of a row, tile by tile.
fn unpack_row(
    codes: &Codes,
    encoding: Encoding,
    stored: &[u8],
    levels: &mut [i8],
    parameters: &mut Parameters,
) {
    let grouped = encoding.grouped().expect("an encoding of codes");
    let (tile_cols, group_cols) = (encoding.tile_cols(), grouped.group_cols);
    let (block_len, block_bytes) = (codes.dtype.block_len(), codes.dtype.block_bytes());
    let padding = Stored::padding(&grouped);
    let mut groups = vec![padding; tile_cols / group_cols];
    let tiles = stored.chunks(tile_cols / block_len * block_bytes).zip(levels.chunks_exact_mut(tile_cols));
    for (stored, levels) in tiles {
        groups.fill(padding);
        let mut shared = Shared::default();
        match codes.dtype.code_blocks() {
            Some(blocks) => {
                let levels = levels.chunks_exact_mut(block_len);
                let groups = groups.chunks_exact_mut(block_len / group_cols);
                for ((stored, levels), groups) in stored.chunks_exact(block_bytes).zip(levels).zip(groups) {
                    shared = (blocks.unpack)(stored, levels, groups);
                }
            }
            None => {
                let values = stored.chunks(group_cols * block_bytes).zip(levels.chunks_mut(group_cols));
                for ((stored, levels), group) in values.zip(&mut groups) {
                    group.scale = unpack_values(stored, levels);
                }
            }
        }
        parameters.push(&grouped, shared, &groups);
    }
}

impl Binding {
    /// Whether the source's codes and scales are repacked without loss, not decoded and rounded
    /// again.
    pub(crate) fn is_repacked(&self, encoding: Encoding) -> bool {
        if self.offset != 0.0 {
            return false;
        }
        match self.dtype.code_blocks() {
            Some(blocks) => blocks.encoding == encoding,
            None => encoding
                .grouped()
                .is_some_and(|grouped| self.survey.as_ref().is_some_and(|survey| survey.fits(&grouped))),
        }
    }

    /// The encoding that holds the source's values exactly: that of the source's own type, or the
    /// narrowest for its codes.
    pub(crate) fn kept(&self) -> Option<Encoding> {
        match self.dtype {
            SourceType::F32 => Some(Encoding::F32),
            SourceType::F16 => Some(Encoding::F16),
            _ => {
                let fitting = Encoding::ALL.iter().copied().filter(|&encoding| self.is_repacked(encoding));
                fitting.min_by(|one, other| one.bits_per_weight().total_cmp(&other.bits_per_weight()))
            }
        }
    }

    /// Whether the source's values are codes and scales.
    pub(crate) fn is_quantized(&self) -> bool {
        self.dtype == SourceType::Packed || self.dtype.block_len() > 1
    }

    /// Bits per weight of the source; of assembled codes those of the encoding that holds them.
    pub(crate) fn source_bits(&self) -> f64 {
        match (self.dtype, self.kept()) {
            (SourceType::Packed, Some(kept)) => kept.bits_per_weight(),
            (SourceType::Packed, None) => 8.0 * size_of::<f32>() as f64,
            (dtype, _) => dtype.block_bytes() as f64 * 8.0 / dtype.block_len() as f64,
        }
    }
}

/// Whether codes of a quantized matrix are rounded again. Floats hold decoded values.
pub(crate) fn rounds(binding: &Binding, encoding: Encoding) -> bool {
    binding.is_quantized() && encoding.grouped().is_some() && !binding.is_repacked(encoding)
}

/// Warnings about quantized matrices that get these encodings.
pub(crate) fn warnings<'a>(matrices: impl Iterator<Item = (&'a Binding, Encoding)>) -> Vec<String> {
    let (mut rounded, mut inexact, mut clipped) = (Vec::new(), Vec::new(), Vec::new());
    for (binding, encoding) in matrices {
        if rounds(binding, encoding) {
            rounded.push((binding, encoding));
            continue;
        }
        let repacked = binding.survey.as_ref().filter(|_| binding.is_repacked(encoding));
        let Some(survey) = repacked else { continue };
        if !survey.exact {
            inexact.push(binding);
        }
        if survey.low < CLIPPED {
            clipped.push(binding);
        }
    }
    let mut warnings = Vec::new();
    if let Some((first, encoding)) = rounded.first() {
        let about = match &first.survey {
            Some(survey) => survey.about(),
            None => format!("the blocks of {}", first.dtype),
        };
        let advice = match first.kept() {
            Some(kept) => format!("--encoding keep would store it as {kept} without"),
            None => "no encoding holds them as they are".into(),
        };
        warnings.push(format!(
            "the codes of {} quantized matrices are decoded and rounded again: {:?} has {about}, which {encoding} does not hold; {advice}",
            rounded.len(),
            first.tensor,
        ));
    }
    if let Some(first) = inexact.first() {
        warnings.push(format!(
            "the scales of {} quantized matrices are rounded to f16, a relative error of up to 1/2048, their codes kept: {:?} is the first",
            inexact.len(),
            first.tensor
        ));
    }
    if let Some(first) = clipped.first() {
        warnings.push(format!(
            "codes of -128, which no encoding has, become -127 in {} quantized matrices, the others kept: {:?} is the first",
            clipped.len(),
            first.tensor
        ));
    }
    warnings
}

/// Scale and codes of a group of a packed matrix. All its values have one scale; the last group of
/// a row may be short.
fn unpack_values(stored: &[u8], codes: &mut [i8]) -> f32 {
    let values = stored.as_chunks().0;
    for (code, &value) in codes.iter_mut().zip(values) {
        *code = i8::try_from(scale_and_code(value).1.max(CLIPPED)).expect("the codes were surveyed");
    }
    Multiplier::Half.storable(scale_and_code(values[0]).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use pith_format::Matrix;
    use std::path::Path;

    /// Three rows of Q8_0 blocks with codes around zero, scales 1/64, 2/64, …
    fn q8_0() -> Vec<u8> {
        let block = |index: usize| {
            let scale = f16::from_f32((index + 1) as f32 / 64.0);
            let codes = (0..32).map(move |code| (code as i8 - 16).wrapping_mul(7) as u8);
            scale.to_le_bytes().into_iter().chain(codes)
        };
        (0..9).flat_map(block).collect()
    }

    /// Values of three stored rows after the repack, and before it.
    fn repacked(dtype: SourceType, cols: usize, bytes: Vec<u8>) -> (Vec<f32>, Vec<f32>) {
        let mut weights = vec![0.0; 3 * cols];
        dtype.decode(&bytes, &mut weights).unwrap();
        let encoding = dtype.code_blocks().unwrap().encoding;
        let codes = Codes { dtype, row_bytes: cols / dtype.block_len() * dtype.block_bytes(), bytes };
        let (levels, _) = repack(&codes, encoding, 3, cols);
        let mut tiles = vec![0; levels.bytes()];
        levels.pack(&mut tiles);
        let matrix = Matrix::new(encoding, 3, cols, &tiles).unwrap();
        let mut found = vec![0.0; 3 * cols];
        found.chunks_exact_mut(cols).enumerate().for_each(|(row, out)| matrix.decode_row(row, out));
        (found, weights)
    }

    /// The golden blocks of every type, in three rows; with one of the two halves of a tile empty
    /// where a tile has two blocks.
    #[test]
    fn repacked_blocks_keep_every_bit() {
        for &dtype in SourceType::ALL.iter().filter(|dtype| dtype.code_blocks().is_some()) {
            let name = format!("../tests/golden/blocks/{}.bin", dtype.name().to_lowercase());
            let golden = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
            let stored = u32::from_le_bytes(*golden.first_chunk().unwrap()) as usize;
            let blocks = stored / dtype.block_bytes() / 3;
            let cols = blocks * dtype.block_len();
            let mut bytes = golden[8..][..3 * blocks * dtype.block_bytes()].to_vec();
            if dtype == SourceType::Q8_0 {
                // The only code that an encoding lacks, see below.
                bytes.iter_mut().filter(|byte| **byte == 0x80).for_each(|byte| *byte = 0x81);
            }
            let (found, expected) = repacked(dtype, cols, bytes);
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(found.to_bits(), expected.to_bits(), "{dtype}, {index}: {found} and {expected}");
            }
        }
    }

    #[test]
    fn a_code_that_q8_lacks_is_clipped_alone() {
        let mut stored = q8_0();
        stored[2] = -128i8 as u8;
        let (found, mut expected) = repacked(SourceType::Q8_0, 96, stored);
        assert_eq!((found[0], expected[0]), (-127.0 / 64.0, -2.0));
        expected[0] = found[0];
        assert_eq!(found, expected);
    }
}
