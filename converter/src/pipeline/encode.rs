//! From stored values to tiles, 16 rows at a time on all cores.

use half::f16;
use pith_format::encoding::Codes;
use pith_format::{Encoding, TILE_ROWS, encode_block};
use rayon::prelude::*;

use crate::checkpoint::families::Binding;
use crate::checkpoint::survey::CLIPPED;
use crate::checkpoint::{CheckpointError, SourceType, scale_and_code};
use crate::error::ConvertError;
use crate::passes::calibrated::Calibrated;
use crate::recipe::Quantizer;

/// Largest value of f16, and so of its scales.
const F16_MAX: f32 = 65504.0;
/// Values of a Q4_0 or Q8_0 block, which is a group of Q4 or Q8 too.
const GROUP: usize = 32;

/// Sums over weights, from which the relative error of an encoding follows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deviation {
    squared_error: f64,
    squared_weight: f64,
}

impl Deviation {
    pub(crate) fn add(self, other: Self) -> Self {
        Self {
            squared_error: self.squared_error + other.squared_error,
            squared_weight: self.squared_weight + other.squared_weight,
        }
    }

    /// √(Σ(w − ŵ)² / Σw²); 0 for a matrix of zeros.
    pub(crate) fn relative(self) -> f64 {
        if self.squared_weight == 0.0 { 0.0 } else { (self.squared_error / self.squared_weight).sqrt() }
    }
}

/// How the rows of one matrix become tiles.
pub(crate) struct Encoder<'a> {
    binding: &'a Binding,
    encoding: Encoding,
    /// What is encoded is what this encoding leaves of the weights.
    first: Option<Encoding>,
    carried: bool,
    measured: bool,
}

impl<'a> Encoder<'a> {
    /// `measured`: decode what was encoded and compare.
    pub(crate) fn new(binding: &'a Binding, encoding: Encoding, measured: bool) -> Self {
        Self { binding, encoding, first: None, carried: binding.is_carried(encoding), measured }
    }

    /// Encodes what `first` leaves of the weights.
    pub(crate) fn rest(binding: &'a Binding, first: Encoding, encoding: Encoding, measured: bool) -> Self {
        Self { binding, encoding, first: Some(first), carried: false, measured }
    }

    /// What the tiles are.
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether the source's codes become the file's.
    pub(crate) fn is_carried(&self) -> bool {
        self.carried
    }

    /// Whether weights are rounded to levels.
    pub(crate) fn is_rounded(&self) -> bool {
        self.encoding.grouped().is_some() && !self.carried
    }

    /// Whether what was encoded is compared.
    pub(crate) fn is_measured(&self) -> bool {
        self.measured
    }

    /// Bytes of a block of 16 rows.
    pub(crate) fn block_bytes(&self) -> usize {
        self.binding.cols.div_ceil(self.encoding.tile_cols()) * self.encoding.tile_bytes()
    }

    /// Encodes whole blocks of rows, the matrix's last block aside. `stored` holds the rows from `first_row` on,
    /// `out` is a whole number of blocks.
    pub(crate) fn encode(
        &self,
        first_row: usize,
        stored: &[u8],
        out: &mut [u8],
    ) -> Result<Deviation, ConvertError> {
        stored
            .par_chunks(TILE_ROWS * self.binding.row_bytes())
            .zip(out.par_chunks_mut(self.block_bytes()))
            .enumerate()
            .map_init(Vec::new, |weights, (block, (stored, out))| {
                self.encode_block(first_row + block * TILE_ROWS, stored, weights, out)
            })
            .try_reduce(Deviation::default, |one, other| Ok(one.add(other)))
    }

    /// [`Encoder::encode`] by what is known of the inputs.
    pub(crate) fn encode_calibrated(
        &self,
        calibrated: &Calibrated<'_>,
        quantizer: Quantizer,
        first_row: usize,
        stored: &[u8],
        out: &mut [u8],
    ) -> Result<Deviation, ConvertError> {
        let (row_bytes, cols) = (self.binding.row_bytes(), self.binding.cols);
        let mut weights = vec![0.0f32; stored.len() / row_bytes * cols];
        let rows = stored.par_chunks(row_bytes).zip(weights.par_chunks_mut(cols)).enumerate();
        rows.try_for_each(|(row, (stored, weights))| self.load(first_row + row, stored, weights))?;
        let rounded = calibrated.round(self.binding.id, quantizer, self.encoding, &weights, cols);
        rounded.pack(out);
        if !self.measured {
            return Ok(Deviation::default());
        }
        let sum = |of: &dyn Fn(f32, f32) -> f64| {
            weights.iter().zip(rounded.values(cols)).map(|(&w, r)| of(w, r)).sum()
        };
        Ok(Deviation {
            squared_error: sum(&|weight, rounded| f64::from(weight - rounded).powi(2)),
            squared_weight: sum(&|weight, _| f64::from(weight).powi(2)),
        })
    }

    /// The checked values of stored rows.
    fn load(&self, first_row: usize, stored: &[u8], weights: &mut [f32]) -> Result<(), ConvertError> {
        self.binding.dtype.decode(stored, weights).expect("the binding's type was seen to be loadable");
        if self.binding.offset != 0.0 {
            weights.iter_mut().for_each(|weight| *weight += self.binding.offset);
        }
        self.check(first_row, weights)
    }

    fn encode_block(
        &self,
        first_row: usize,
        stored: &[u8],
        weights: &mut Vec<f32>,
        out: &mut [u8],
    ) -> Result<Deviation, ConvertError> {
        let rows = stored.len() / self.binding.row_bytes();
        weights.resize(rows * self.binding.cols, 0.0);
        self.load(first_row, stored, weights)?;
        let squared_weight = weights.iter().map(|&weight| f64::from(weight).powi(2)).sum();
        if let Some(encoding) = self.first {
            let mut bytes = vec![0; self.binding.cols.div_ceil(encoding.tile_cols()) * encoding.tile_bytes()];
            Encoder::new(self.binding, encoding, false).pack(stored, weights, &mut bytes);
            subtract(encoding, self.binding.cols, &bytes, weights);
        }
        self.pack(stored, weights, out);
        if !self.measured {
            return Ok(Deviation::default());
        }
        subtract(self.encoding, self.binding.cols, out, weights);
        let squared_error = weights.iter().map(|&error| f64::from(error).powi(2)).sum();
        Ok(Deviation { squared_error, squared_weight })
    }

    /// `weights` as tiles, the source's own codes where they can stay.
    fn pack(&self, stored: &[u8], weights: &[f32], out: &mut [u8]) {
        // A code of −128, which ggml never writes, has no place in Q8: such a block is rounded anew.
        if !(self.carried && self.carry(stored, out)) {
            encode_block(self.encoding, weights, self.binding.cols, out);
        }
    }

    /// Every value must be finite, and within f16 where that is what is stored.
    fn check(&self, first_row: usize, weights: &[f32]) -> Result<(), ConvertError> {
        let limit = if self.encoding == Encoding::F32 || self.carried { f32::MAX } else { F16_MAX };
        let Some(at) = weights.iter().position(|weight| weight.is_nan() || weight.abs() > limit) else {
            return Ok(());
        };
        let (tensor, id, value) = (self.binding.tensor.clone(), self.binding.id, weights[at]);
        let (row, column) = (first_row + at / self.binding.cols, at % self.binding.cols);
        Err(if value.is_finite() {
            ConvertError::Overflow { tensor, id, row, column, value, encoding: self.encoding }
        } else {
            CheckpointError::NotFinite { tensor, id, row, column, value }.into()
        })
    }

    /// Packs the source's own codes and scales; false where a code is out of the encoding's range.
    fn carry(&self, stored: &[u8], out: &mut [u8]) -> bool {
        let grouped = self.encoding.grouped().expect("only grouped encodings are carried");
        let (tile_cols, group_cols) = (self.encoding.tile_cols(), grouped.group_cols);
        let tile_groups = tile_cols / group_cols;
        let unpack = if self.binding.dtype == SourceType::Packed { unpack_values } else { unpack_blocks };
        let block_len = self.binding.dtype.block_len();
        let block_bytes = self.binding.dtype.block_bytes();
        let (low, high) = grouped.code_range();
        let mut codes = vec![0i8; TILE_ROWS * tile_cols];
        let mut scales = vec![f16::ZERO; TILE_ROWS * tile_groups];
        for (tile, out) in out.chunks_exact_mut(self.encoding.tile_bytes()).enumerate() {
            codes.fill(0);
            scales.fill(f16::ZERO);
            for (row, stored) in stored.chunks_exact(self.binding.row_bytes()).enumerate() {
                let groups = stored.chunks(group_cols / block_len * block_bytes);
                for (group, stored) in groups.skip(tile * tile_groups).take(tile_groups).enumerate() {
                    let codes = &mut codes[row * tile_cols + group * group_cols..][..group_cols];
                    scales[row * tile_groups + group] = unpack(stored, codes);
                }
            }
            if codes.iter().any(|code| !(low..=high).contains(code)) {
                return false;
            }
            (grouped.pack)(&Codes { levels: &codes, scales: &scales, factors: &[] }, out);
        }
        true
    }
}

/// Takes what the tiles of a block of rows hold from its weights, `rows × cols`.
fn subtract(encoding: Encoding, cols: usize, bytes: &[u8], weights: &mut [f32]) {
    let tile_cols = encoding.tile_cols();
    let mut tile = vec![0.0f32; TILE_ROWS * tile_cols];
    for index in 0..cols.div_ceil(tile_cols) {
        encoding.decode(bytes, cols, index, &mut tile);
        let start = index * tile_cols;
        let width = tile_cols.min(cols - start);
        for (row, decoded) in weights.chunks_exact_mut(cols).zip(tile.chunks_exact(tile_cols)) {
            row[start..start + width].iter_mut().zip(decoded).for_each(|(weight, value)| *weight -= value);
        }
    }
}

/// Scale and codes of a block of Q4_0 or Q8_0, which is a group of its encoding: 16 bytes with a first half of low and
/// a second of high nibbles around 8, or 32 signed bytes.
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

/// Scale and codes of a group of a packed matrix, all of whose values have one scale; the last of a row may be short.
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
    use crate::checkpoint::SourceType;
    use crate::checkpoint::families::RowMap;
    use pith_format::{Matrix, Role, TensorId};

    const COLS: usize = 96;

    fn binding(dtype: SourceType) -> Binding {
        Binding {
            id: TensorId::layer(Role::Up, 0),
            tensor: "up".into(),
            dtype,
            rows: 3,
            cols: COLS,
            row_map: RowMap::From(0),
            transposed: false,
            offset: 0.0,
            stored_bytes: 0,
            survey: None,
        }
    }

    /// Three rows of Q8_0 blocks with codes around zero, scales 1/64, 2/64, …
    fn q8_0() -> Vec<u8> {
        let block = |index: usize| {
            let scale = f16::from_f32((index + 1) as f32 / 64.0);
            let codes = (0..32).map(move |code| (code as i8 - 16).wrapping_mul(7) as u8);
            scale.to_le_bytes().into_iter().chain(codes)
        };
        (0..9).flat_map(block).collect()
    }

    fn encode(stored: &[u8]) -> Result<(Vec<f32>, Vec<f32>), ConvertError> {
        let binding = binding(SourceType::Q8_0);
        let encoder = Encoder::new(&binding, Encoding::Q8, false);
        let mut bytes = vec![0; encoder.block_bytes()];
        encoder.encode(0, stored, &mut bytes)?;
        let matrix = Matrix::new(Encoding::Q8, 3, COLS, &bytes).unwrap();
        let (mut found, mut expected) = (vec![0.0; 3 * COLS], vec![0.0; 3 * COLS]);
        found.chunks_exact_mut(COLS).enumerate().for_each(|(row, out)| matrix.decode_row(row, out));
        SourceType::Q8_0.decode(stored, &mut expected).unwrap();
        Ok((found, expected))
    }

    #[test]
    fn carried_blocks_keep_every_value() {
        let (found, expected) = encode(&q8_0()).unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_code_that_q8_lacks_is_rounded() {
        let mut stored = q8_0();
        stored[2] = -128i8 as u8;
        let (found, expected) = encode(&stored).unwrap();
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let scale = (index / 32 + 1) as f32 / 64.0;
            assert!((found - expected).abs() <= 0.51 * scale * 128.0 / 127.0, "{index}: {found}, {expected}");
        }
    }

    #[test]
    fn a_scale_that_is_no_number_is_named() {
        let mut stored = q8_0();
        // The fourth block begins the second row.
        stored[3 * 34..][..2].copy_from_slice(&f16::INFINITY.to_le_bytes());
        let error = encode(&stored).unwrap_err();
        assert!(
            matches!(error, ConvertError::Checkpoint(CheckpointError::NotFinite { row: 1, column: 0, .. })),
            "{error}"
        );
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
