//! A head in two matrices: a coarse rounding of the weights, and the residual matrix.

use pith_format::{Encoding, Role, TILE_ROWS, TensorId, encode_block};
use rayon::prelude::*;

use super::repack::repack;
use super::{Group, Member, Outline, Pass, PassError, PassReport, Planned};
use crate::checkpoint::Checkpoint;
use crate::statistics::Statistics;

/// Adds the residual of the head to the file.
pub(crate) struct Residual {
    /// Encoding of the first matrix.
    pub(crate) first: Encoding,
    /// Encoding of the residual matrix.
    pub(crate) encoding: Encoding,
}

impl Pass for Residual {
    fn name(&self) -> &'static str {
        "residual"
    }

    fn reshape(&mut self, _: &Checkpoint, outline: &mut Outline) -> Result<(), PassError> {
        let id = outline.head().id;
        let head = outline.tensors.iter_mut().find(|tensor| tensor.id == id).expect("found above");
        // The residual assumes a head rounded by its weights alone, which both steps can reproduce.
        head.quantizer = None;
        let id = TensorId::model(Role::HeadResidual);
        let residual = Planned { id, encoding: Some(self.encoding), ..head.clone() };
        outline.tensors.push(residual);
        Ok(())
    }

    fn apply(&self, group: &mut Group, _: Option<&Statistics>) -> Result<PassReport, PassError> {
        let mut report = PassReport::default();
        for member in group.members.iter_mut().filter(|member| member.id.role == Role::HeadResidual) {
            let rounded = match member.codes.take() {
                Some(codes) => repack(&codes, self.first, member.rows(), member.cols).0.values(member.cols),
                None => nearest_values(self.first, member),
            };
            member.base = Some(rounded);
            let tiles = member.cols.div_ceil(self.encoding.tile_cols()) * member.rows().div_ceil(TILE_ROWS);
            report.members += 1;
            report.bytes_saved -= (tiles * self.encoding.tile_bytes()) as i64;
        }
        Ok(report)
    }
}

/// The weights after rounding to `encoding`.
fn nearest_values(encoding: Encoding, member: &Member) -> Vec<f32> {
    let (cols, tile_cols) = (member.cols, encoding.tile_cols());
    let mut values = vec![0.0; member.weights.len()];
    let blocks = member.weights.par_chunks(TILE_ROWS * cols).zip(values.par_chunks_mut(TILE_ROWS * cols));
    blocks.for_each(|(weights, values)| {
        let mut bytes = vec![0; cols.div_ceil(tile_cols) * encoding.tile_bytes()];
        encode_block(encoding, weights, cols, &mut bytes);
        let mut tile = vec![0.0; TILE_ROWS * tile_cols];
        for index in 0..cols.div_ceil(tile_cols) {
            encoding.decode(&bytes, cols, index, &mut tile);
            let start = index * tile_cols;
            let width = tile_cols.min(cols - start);
            for (row, decoded) in values.chunks_exact_mut(cols).zip(tile.chunks_exact(tile_cols)) {
                row[start..start + width].copy_from_slice(&decoded[..width]);
            }
        }
    });
    values
}
