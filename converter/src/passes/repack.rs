//! Lossless repack: which encodings hold the codes of a quantized source, and the copying of codes.

use half::f16;
use pith_format::{Encoding, TILE_ROWS};
use rayon::prelude::*;

use super::nearest::nearest;
use super::{Codes, Group, Pass, PassError, PassReport, Rounded};
use crate::checkpoint::families::Binding;
use crate::checkpoint::survey::CLIPPED;
use crate::checkpoint::{SourceType, scale_and_code};
use crate::statistics::Statistics;

/// Values of a Q4_0 or Q8_0 block, which is also a group of Q4 or Q8.
const GROUP: usize = 32;

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
            let mut levels = repack(&codes, encoding, &member.weights, member.cols);
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

/// Repacks rows of codes in an encoding that holds them. A block of 16 rows with a code that the
/// encoding lacks (−128, which ggml never writes) is rounded again from its weights.
pub(super) fn repack(codes: &Codes, encoding: Encoding, weights: &[f32], cols: usize) -> Rounded {
    let mut out = Rounded::new(encoding, weights.len() / cols, cols);
    let grouped = out.grouped();
    let (stride, group_cols) = (out.stride, grouped.group_cols);
    let groups = stride / group_cols;
    let unpack = if codes.dtype == SourceType::Packed { unpack_values } else { unpack_blocks };
    let group_bytes = group_cols / codes.dtype.block_len() * codes.dtype.block_bytes();
    let (low, high) = grouped.code_range();
    codes
        .bytes
        .par_chunks(TILE_ROWS * codes.row_bytes)
        .zip(weights.par_chunks(TILE_ROWS * cols))
        .zip(out.levels.par_chunks_mut(TILE_ROWS * stride))
        .zip(out.scales.par_chunks_mut(TILE_ROWS * groups))
        .for_each(|(((stored, weights), levels), scales)| {
            let rows = stored.chunks_exact(codes.row_bytes);
            let rows = rows.zip(levels.chunks_exact_mut(stride)).zip(scales.chunks_exact_mut(groups));
            for ((stored, levels), scales) in rows {
                let groups = stored.chunks(group_bytes).zip(levels.chunks_exact_mut(group_cols)).zip(scales);
                groups.for_each(|((stored, levels), scale)| *scale = unpack(stored, levels));
            }
            if levels.iter().any(|level| !(low..=high).contains(level)) {
                let rounded = nearest(encoding, weights, cols, None);
                levels.copy_from_slice(&rounded.levels);
                scales.copy_from_slice(&rounded.scales);
            }
        });
    out
}

impl Binding {
    /// Whether the source's codes and scales are repacked without loss, not decoded and rounded
    /// again.
    pub(crate) fn is_repacked(&self, encoding: Encoding) -> bool {
        let Some(grouped) = encoding.grouped().filter(|_| self.offset == 0.0) else { return false };
        match self.dtype {
            SourceType::Q4_0 => encoding == Encoding::Q4,
            SourceType::Q8_0 => encoding == Encoding::Q8,
            SourceType::Packed => self.survey.as_ref().is_some_and(|survey| survey.fits(&grouped)),
            _ => false,
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
}

/// Warnings about packed matrices that get these encodings.
pub(crate) fn warnings<'a>(matrices: impl Iterator<Item = (&'a Binding, Encoding)>) -> Vec<String> {
    let (mut rounded, mut inexact, mut clipped) = (Vec::new(), Vec::new(), Vec::new());
    for (binding, encoding) in matrices {
        let Some(survey) = binding.survey.as_ref().filter(|_| encoding.grouped().is_some()) else { continue };
        if !binding.is_repacked(encoding) {
            rounded.push((binding, survey, encoding));
            continue;
        }
        if !survey.exact {
            inexact.push(binding);
        }
        if survey.low < CLIPPED {
            clipped.push(binding);
        }
    }
    let mut warnings = Vec::new();
    if let Some((first, survey, encoding)) = rounded.first() {
        let advice = match first.kept() {
            Some(kept) => format!("--encoding keep would store it as {kept} without"),
            None => "no encoding holds them as they are".into(),
        };
        warnings.push(format!(
            "the codes of {} quantized matrices are decoded and rounded again: {:?} has {}, which {encoding} does not hold; {advice}",
            rounded.len(),
            first.tensor,
            survey.about(),
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

/// Scale and codes of a Q4_0 or Q8_0 block, which is a group of its encoding. Stored are 16 bytes
/// of nibbles plus 8 (low nibbles: first half, high nibbles: second half) or 32 signed bytes.
fn unpack_blocks(stored: &[u8], codes: &mut [i8]) -> f16 {
    assert_eq!(codes.len(), GROUP);
    let (scale, stored) = stored.split_at(2);
    if stored.len() == GROUP {
        codes.iter_mut().zip(stored).for_each(|(code, &byte)| *code = byte as i8);
    } else {
        let (low, high) = codes.split_at_mut(GROUP / 2);
        for ((low, high), &byte) in low.iter_mut().zip(high).zip(stored) {
            *low = (byte & 15) as i8 - 8;
            *high = (byte >> 4) as i8 - 8;
        }
    }
    f16::from_le_bytes([scale[0], scale[1]])
}

/// Scale and codes of a group of a packed matrix. All its values have one scale; the last group of
/// a row may be short.
fn unpack_values(stored: &[u8], codes: &mut [i8]) -> f16 {
    let values = stored.as_chunks().0;
    for (code, &value) in codes.iter_mut().zip(values) {
        *code = i8::try_from(scale_and_code(value).1.max(CLIPPED)).expect("the codes were surveyed");
    }
    f16::from_f32(scale_and_code(values[0]).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_format::Matrix;

    const COLS: usize = 96;

    /// Three rows of Q8_0 blocks with codes around zero, scales 1/64, 2/64, …
    fn q8_0() -> Vec<u8> {
        let block = |index: usize| {
            let scale = f16::from_f32((index + 1) as f32 / 64.0);
            let codes = (0..32).map(move |code| (code as i8 - 16).wrapping_mul(7) as u8);
            scale.to_le_bytes().into_iter().chain(codes)
        };
        (0..9).flat_map(block).collect()
    }

    /// Values of stored rows after the repack, and before it.
    fn repacked(bytes: Vec<u8>) -> (Vec<f32>, Vec<f32>) {
        let mut weights = vec![0.0; 3 * COLS];
        SourceType::Q8_0.decode(&bytes, &mut weights).unwrap();
        let codes = Codes { dtype: SourceType::Q8_0, row_bytes: COLS / 32 * 34, bytes };
        let levels = repack(&codes, Encoding::Q8, &weights, COLS);
        let mut tiles = vec![0; levels.bytes()];
        levels.pack(&mut tiles);
        let matrix = Matrix::new(Encoding::Q8, 3, COLS, &tiles).unwrap();
        let mut found = vec![0.0; 3 * COLS];
        found.chunks_exact_mut(COLS).enumerate().for_each(|(row, out)| matrix.decode_row(row, out));
        (found, weights)
    }

    #[test]
    fn repacked_blocks_keep_every_value() {
        let (found, expected) = repacked(q8_0());
        assert_eq!(found, expected);
    }

    #[test]
    fn a_code_that_q8_lacks_is_rounded() {
        let mut stored = q8_0();
        stored[2] = -128i8 as u8;
        let (found, expected) = repacked(stored);
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let scale = (index / 32 + 1) as f32 / 64.0;
            assert!((found - expected).abs() <= 0.51 * scale * 128.0 / 127.0, "{index}: {found}, {expected}");
        }
    }

    #[test]
    fn q4_0_nibbles_are_halves_of_a_block() {
        let nibbles = (0..16u8).map(|byte| byte | (15 - byte) << 4);
        let stored: Vec<u8> = f16::ONE.to_le_bytes().into_iter().chain(nibbles).collect();
        let mut codes = [0; 32];
        assert_eq!(unpack_blocks(&stored, &mut codes), f16::ONE);
        let expected: Vec<i8> = (-8..8).chain((-8..8).rev()).collect();
        assert_eq!(codes.as_slice(), expected);
    }
}
