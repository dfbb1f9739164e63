//! Keys or values of one head, as the cache holds them.

use half::f16;
use std::ops::Range;

/// `positions × head_dim`, one row a position.
#[derive(Clone, Copy, Debug)]
pub enum KvRows<'a> {
    /// 32-bit floats.
    F32 {
        /// Width of a row.
        head_dim: usize,
        /// All rows.
        rows: &'a [f32],
    },
    /// 16-bit floats.
    F16 {
        /// Width of a row.
        head_dim: usize,
        /// All rows.
        rows: &'a [f16],
    },
    /// Bytes with one scale a row: `value = scale · code`.
    Q8 {
        /// Width of a row.
        head_dim: usize,
        /// All rows.
        codes: &'a [i8],
        /// One a row.
        scales: &'a [f16],
    },
}

impl<'a> KvRows<'a> {
    /// Width of a row.
    pub fn head_dim(&self) -> usize {
        match *self {
            KvRows::F32 { head_dim, .. } | KvRows::F16 { head_dim, .. } | KvRows::Q8 { head_dim, .. } => {
                head_dim
            }
        }
    }

    /// Rows.
    pub fn positions(&self) -> usize {
        let len = match self {
            KvRows::F32 { rows, .. } => rows.len(),
            KvRows::F16 { rows, .. } => rows.len(),
            KvRows::Q8 { codes, .. } => codes.len(),
        };
        len / self.head_dim()
    }

    /// Some of the rows.
    pub fn slice(&self, positions: Range<usize>) -> KvRows<'a> {
        let span = positions.start * self.head_dim()..positions.end * self.head_dim();
        match *self {
            KvRows::F32 { head_dim, rows } => KvRows::F32 { head_dim, rows: &rows[span] },
            KvRows::F16 { head_dim, rows } => KvRows::F16 { head_dim, rows: &rows[span] },
            KvRows::Q8 { head_dim, codes, scales } => {
                KvRows::Q8 { head_dim, codes: &codes[span], scales: &scales[positions] }
            }
        }
    }

    /// One value.
    pub fn get(&self, position: usize, dim: usize) -> f32 {
        let at = position * self.head_dim() + dim;
        match self {
            KvRows::F32 { rows, .. } => rows[at],
            KvRows::F16 { rows, .. } => rows[at].to_f32(),
            KvRows::Q8 { codes, scales, .. } => scales[position].to_f32() * f32::from(codes[at]),
        }
    }
}
