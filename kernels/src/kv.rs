//! Keys or values of one head, in the cache's storage types.

use half::f16;
use std::ops::Range;

/// Values of a row of [`KvRows::Q4`] that share one scale.
pub const KV4_GROUP: usize = 32;

/// Bytes of a group's codes.
pub const KV4_BYTES: usize = KV4_GROUP / 2;

/// Levels that the codes of [`KvRows::Q4`] stand for.
pub const KV4_LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The levels as floats.
#[cfg(target_arch = "x86_64")]
pub(crate) const KV4_FLOATS: [f32; 16] = {
    let (mut floats, mut code) = ([0.0; 16], 0);
    while code < 16 {
        floats[code] = KV4_LEVELS[code] as f32;
        code += 1;
    }
    floats
};

/// `positions × head_dim`, one row per position.
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
    /// Bytes with one scale per row: `value = scale · code`.
    Q8 {
        /// Width of a row.
        head_dim: usize,
        /// All rows.
        codes: &'a [i8],
        /// One per row.
        scales: &'a [f16],
    },
    /// 4-bit codes in groups of [`KV4_GROUP`] values with one scale each:
    /// `value = scale · KV4_LEVELS[code]`.
    ///
    /// Byte `i` of a group's [`KV4_BYTES`] holds value `i` in its low bits and value `i + 16` in
    /// its high bits. A row's last group is whole; codes behind `head_dim` are ignored.
    Q4 {
        /// Width of a row.
        head_dim: usize,
        /// All rows, each in whole groups.
        codes: &'a [u8],
        /// One per group.
        scales: &'a [f16],
    },
}

impl<'a> KvRows<'a> {
    /// Width of a row.
    pub fn head_dim(&self) -> usize {
        match *self {
            KvRows::F32 { head_dim, .. }
            | KvRows::F16 { head_dim, .. }
            | KvRows::Q8 { head_dim, .. }
            | KvRows::Q4 { head_dim, .. } => head_dim,
        }
    }

    /// Number of rows.
    pub fn positions(&self) -> usize {
        match *self {
            KvRows::F32 { head_dim, rows } => rows.len() / head_dim,
            KvRows::F16 { head_dim, rows } => rows.len() / head_dim,
            KvRows::Q8 { head_dim, codes, .. } => codes.len() / head_dim,
            KvRows::Q4 { head_dim, scales, .. } => scales.len() / head_dim.div_ceil(KV4_GROUP),
        }
    }

    /// A range of rows.
    pub fn slice(&self, positions: Range<usize>) -> KvRows<'a> {
        let span = positions.start * self.head_dim()..positions.end * self.head_dim();
        match *self {
            KvRows::F32 { head_dim, rows } => KvRows::F32 { head_dim, rows: &rows[span] },
            KvRows::F16 { head_dim, rows } => KvRows::F16 { head_dim, rows: &rows[span] },
            KvRows::Q8 { head_dim, codes, scales } => {
                KvRows::Q8 { head_dim, codes: &codes[span], scales: &scales[positions] }
            }
            KvRows::Q4 { head_dim, codes, scales } => {
                let groups = head_dim.div_ceil(KV4_GROUP);
                let span = positions.start * groups..positions.end * groups;
                let bytes = KV4_BYTES * span.start..KV4_BYTES * span.end;
                KvRows::Q4 { head_dim, codes: &codes[bytes], scales: &scales[span] }
            }
        }
    }

    /// One value.
    pub fn get(&self, position: usize, dim: usize) -> f32 {
        let at = position * self.head_dim() + dim;
        match *self {
            KvRows::F32 { rows, .. } => rows[at],
            KvRows::F16 { rows, .. } => rows[at].to_f32(),
            KvRows::Q8 { codes, scales, .. } => scales[position].to_f32() * f32::from(codes[at]),
            KvRows::Q4 { head_dim, codes, scales } => {
                let group = position * head_dim.div_ceil(KV4_GROUP) + dim / KV4_GROUP;
                let byte = codes[KV4_BYTES * group + dim % KV4_BYTES];
                let code = if dim % KV4_GROUP < KV4_BYTES { byte & 15 } else { byte >> 4 };
                scales[group].to_f32() * f32::from(KV4_LEVELS[usize::from(code)])
            }
        }
    }
}
