//! Single matrices of a dense model, rounded as a conversion would: to try encodings without writing files.

use pith_format::{Encoding, TILE_ROWS, TensorId, encode_block};
use pith_runtime::Model;

use crate::checkpoint::rows::BAND_VALUES;
use crate::error::ConvertError;
use crate::identity::identity;
use crate::passes::calibrated::Calibrated;
use crate::recipe::Quantizer;
use crate::statistics::Statistics;

/// Rounds matrices of a dense model by what a calibration says of their inputs. Matrices that read the same had better come
/// one after the other: what is made of their inputs is kept for the next.
pub struct Rounder<'a> {
    model: &'a Model,
    calibrated: Calibrated<'a>,
}

impl<'a> Rounder<'a> {
    /// Fails where the calibration is of another checkpoint than the model.
    pub fn new(model: &'a Model, calibration: &'a Statistics) -> Result<Self, ConvertError> {
        calibration.check_model(&identity(&model.metadata().provenance))?;
        Ok(Self { model, calibrated: Calibrated::new(Some(calibration), None, model.config().tied_head) })
    }

    /// The tiles of a matrix in `encoding`; encodings without levels of their own take the weights as they are.
    ///
    /// Fails where the model has no such matrix, where the calibration lacks what the quantizer needs, and where a Hessian
    /// cannot be factored.
    pub fn round(
        &mut self,
        id: TensorId,
        encoding: Encoding,
        quantizer: Quantizer,
    ) -> Result<Vec<u8>, ConvertError> {
        let matrix = self.model.index().matrix(self.model.bytes(), id)?;
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let has_levels = encoding.grouped().is_some();
        if has_levels {
            self.calibrated.enter(id, cols, quantizer)?;
        }
        let block_bytes = cols.div_ceil(encoding.tile_cols()) * encoding.tile_bytes();
        let mut tiles = vec![0; rows.div_ceil(TILE_ROWS) * block_bytes];
        let band_rows = (BAND_VALUES / cols / TILE_ROWS * TILE_ROWS).max(TILE_ROWS);
        for (band, out) in tiles.chunks_mut(band_rows / TILE_ROWS * block_bytes).enumerate() {
            let first = band * band_rows;
            let count = band_rows.min(rows - first);
            let mut weights = vec![0.0; count * cols];
            for (row, weights) in weights.chunks_exact_mut(cols).enumerate() {
                matrix.decode_row(first + row, weights);
            }
            if has_levels {
                self.calibrated.round(id, quantizer, encoding, &weights, cols).pack(out);
                continue;
            }
            for (weights, out) in weights.chunks(TILE_ROWS * cols).zip(out.chunks_exact_mut(block_bytes)) {
                encode_block(encoding, weights, cols, out);
            }
        }
        Ok(tiles)
    }
}
