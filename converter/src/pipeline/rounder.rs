//! Rounds single matrices of a dense file as a conversion would, to try encodings without writing
//! files.

use pith_format::{Encoding, Index, TILE_ROWS, TensorId};

use super::encode::encode;
use crate::checkpoint::rows::BAND_VALUES;
use crate::error::ConvertError;
use crate::identity::identity;
use crate::passes::group::place;
use crate::passes::quantizers::quantizers;
use crate::passes::{Group, Member, Pass};
use crate::recipe::Quantizer;
use crate::statistics::Statistics;

/// Rounds matrices of a dense file by statistics of their inputs. Matrices that read one input
/// should follow each other: results computed from that input are kept for the next.
pub struct Rounder<'a> {
    index: &'a Index,
    file: &'a [u8],
    statistics: &'a Statistics,
    passes: [Box<dyn Pass>; 3],
}

impl<'a> Rounder<'a> {
    /// `file`: the bytes that `index` describes. Fails where the statistics are of another
    /// checkpoint than the file.
    pub fn new(index: &'a Index, file: &'a [u8], statistics: &'a Statistics) -> Result<Self, ConvertError> {
        statistics.check_model(&identity(&index.metadata().provenance))?;
        Ok(Self { index, file, statistics, passes: quantizers() })
    }

    /// The bytes of a matrix in `encoding`. Encodings without levels store the weights directly.
    ///
    /// Fails where the file has no such matrix, where the quantizer needs more statistics, and
    /// where a Hessian cannot be factored.
    pub fn round(
        &self,
        id: TensorId,
        encoding: Encoding,
        quantizer: Quantizer,
    ) -> Result<Vec<u8>, ConvertError> {
        let matrix = self.index.matrix(self.file, id)?;
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let input = place(id, self.index.metadata().model.tied_head);
        let band_rows = (BAND_VALUES / cols / TILE_ROWS * TILE_ROWS).max(TILE_ROWS);
        let mut tiles = Vec::new();
        for first_row in (0..rows).step_by(band_rows) {
            let mut weights = vec![0.0; band_rows.min(rows - first_row) * cols];
            for (row, weights) in weights.chunks_exact_mut(cols).enumerate() {
                matrix.decode_row(first_row + row, weights);
            }
            let member = Member {
                id,
                origin: id,
                tensor: id.to_string(),
                encoding: Some(encoding),
                quantizer: Some(quantizer),
                first_row,
                cols,
                weights,
                mask: None,
                base: None,
                codes: None,
                levels: None,
                repacked: false,
            };
            let mut group = Group { input, input_scales: None, members: vec![member] };
            for pass in &self.passes {
                pass.apply(&mut group, Some(self.statistics))?;
            }
            tiles.extend(encode(&group.members[0], encoding)?.0.into_bytes());
        }
        Ok(encoding.stored(tiles))
    }
}
