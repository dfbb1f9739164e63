//! A tensor of the checkpoint, assembled from the roles that were taken from it.

use half::{bf16, f16};
use pith_format::{Index, Kind, Matrix, Role, TILE_ROWS, TensorId};
use rayon::prelude::*;

use super::ExportType;
use crate::checkpoint::families::Binding;
use crate::checkpoint::rows::BAND_VALUES;
use crate::error::ConvertError;

/// Takes the bytes of a tensor, band after band.
pub(super) type Put<'p> = dyn FnMut(&[u8]) -> Result<(), ConvertError> + 'p;

/// One tensor and the bindings that read it.
pub(super) struct Target<'a> {
    parts: Vec<&'a Binding>,
}

impl<'a> Target<'a> {
    /// All tensors, in the order of the file.
    pub(super) fn all(bindings: &'a [Binding]) -> Vec<Self> {
        let mut targets: Vec<Self> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for binding in bindings {
            let place = *places.entry(binding.tensor.as_str()).or_insert(targets.len());
            match targets.get_mut(place) {
                Some(target) => target.parts.push(binding),
                None => targets.push(Self { parts: vec![binding] }),
            }
        }
        targets
    }

    fn first(&self) -> &'a Binding {
        self.parts[0]
    }

    pub(super) fn name(&self) -> &'a str {
        &self.first().tensor
    }

    fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }

    pub(super) fn shape(&self) -> Vec<usize> {
        let (rows, first) = (self.rows(), self.first());
        match (first.id.role.kind(), first.transposed) {
            (Kind::Matrix, false) => vec![rows, first.cols],
            (Kind::Matrix, true) => vec![first.cols, rows],
            _ => vec![rows],
        }
    }

    pub(super) fn bytes(&self, dtype: ExportType) -> u64 {
        let value_bytes = if dtype == ExportType::F32 { 4 } else { 2 };
        (self.rows() * self.first().cols * value_bytes) as u64
    }

    /// Hands all values to `put`, band after band.
    pub(super) fn write(
        &self,
        index: &Index,
        file: &[u8],
        dtype: ExportType,
        put: &mut Put<'_>,
    ) -> Result<(), ConvertError> {
        let origins = self.origins();
        if self.first().id.role.kind() != Kind::Matrix {
            let parts: Vec<_> =
                self.parts.iter().map(|part| index.vector(file, part.id)).collect::<Result<_, _>>()?;
            let values = origins.iter().map(|&(part, row)| parts[part][row] - self.parts[part].offset);
            return put(&self.encode(&values.collect::<Vec<_>>(), dtype)?);
        }
        let parts: Vec<_> =
            self.parts.iter().map(|part| Stored::of(index, file, part)).collect::<Result<_, _>>()?;
        let cols = self.first().cols;
        if self.first().transposed {
            let values = decode(&parts, &origins, cols);
            let lines = (0..cols).flat_map(|col| values.iter().skip(col).step_by(cols).copied());
            return put(&self.encode(&lines.collect::<Vec<_>>(), dtype)?);
        }
        let band_rows = (BAND_VALUES / cols / TILE_ROWS * TILE_ROWS).max(TILE_ROWS);
        origins.chunks(band_rows).try_for_each(|rows| put(&self.encode(&decode(&parts, rows, cols), dtype)?))
    }

    /// For every row of the tensor, the part that holds it and the row's index there.
    fn origins(&self) -> Vec<(usize, usize)> {
        let mut origins = vec![None; self.rows()];
        for (index, part) in self.parts.iter().enumerate() {
            (0..part.rows).for_each(|row| origins[part.row_map.source(row)] = Some((index, row)));
        }
        origins
            .into_iter()
            .map(|origin| origin.expect("the roles of a tensor share all of its rows"))
            .collect()
    }

    fn encode(&self, values: &[f32], dtype: ExportType) -> Result<Vec<u8>, ConvertError> {
        let limit = if dtype == ExportType::F16 { f16::MAX.to_f32() } else { f32::MAX };
        if let Some(&value) = values.iter().find(|value| value.is_nan() || value.abs() > limit) {
            let (tensor, id) = (self.name().to_string(), self.first().id);
            return Err(ConvertError::ExportRange { tensor, id, value, dtype: dtype.name() });
        }
        Ok(match dtype {
            ExportType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ExportType::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
            ExportType::Bf16 => {
                values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect()
            }
        })
    }
}

/// A matrix of the file, and its residual where it is a head in two parts.
struct Stored<'a> {
    matrix: Matrix<'a>,
    rest: Option<Matrix<'a>>,
    offset: f32,
}

impl<'a> Stored<'a> {
    fn of(index: &'a Index, file: &'a [u8], binding: &Binding) -> Result<Self, ConvertError> {
        let tied = index.metadata().model.tied_head;
        let head = if tied { Role::TokenEmbedding } else { Role::Head };
        let rest = TensorId::model(Role::HeadResidual);
        let has_rest = binding.id.role == head && index.entry(rest).is_some();
        Ok(Self {
            matrix: index.matrix(file, binding.id)?,
            rest: has_rest.then(|| index.matrix(file, rest)).transpose()?,
            offset: binding.offset,
        })
    }

    /// The values of a block of 16 rows, `16 × cols`.
    fn block(&self, block: usize, values: &mut Vec<f32>) {
        let cols = self.matrix.cols();
        values.clear();
        values.resize(TILE_ROWS * cols, -self.offset);
        for matrix in std::iter::once(&self.matrix).chain(&self.rest) {
            let tile_cols = matrix.encoding().tile_cols();
            let mut tile = vec![0.0; TILE_ROWS * tile_cols];
            for index in 0..matrix.tile_count() {
                matrix.decode_tile(block, index, &mut tile);
                let start = index * tile_cols;
                let width = tile_cols.min(cols - start);
                for (row, decoded) in values.chunks_exact_mut(cols).zip(tile.chunks_exact(tile_cols)) {
                    row[start..start + width].iter_mut().zip(decoded).for_each(|(sum, value)| *sum += value);
                }
            }
        }
    }
}

/// Decodes the rows of these origins, one after the other.
fn decode(parts: &[Stored<'_>], origins: &[(usize, usize)], cols: usize) -> Vec<f32> {
    let mut values = vec![0.0; origins.len() * cols];
    let run = |(origins, values): (&[(usize, usize)], &mut [f32])| {
        let (mut block, mut decoded) = (Vec::new(), None);
        for (&(part, row), values) in origins.iter().zip(values.chunks_exact_mut(cols)) {
            let wanted = (part, row / TILE_ROWS);
            if decoded != Some(wanted) {
                parts[part].block(wanted.1, &mut block);
                decoded = Some(wanted);
            }
            values.copy_from_slice(&block[row % TILE_ROWS * cols..][..cols]);
        }
    };
    origins.par_chunks(TILE_ROWS).zip(values.par_chunks_mut(TILE_ROWS * cols)).for_each(run);
    values
}
