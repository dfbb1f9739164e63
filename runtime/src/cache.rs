//! The cache of keys and values: one row per layer, key head and position.

mod q4;

use crate::error::RuntimeError;
use crate::memory::{Zeros, product};
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use pith_format::Layer;
use pith_kernels::{KV4_BYTES, KvRows};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Storage type of keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// 32-bit floats, exact.
    F32,
    /// 16-bit floats, saturating.
    #[default]
    F16,
    /// Bytes, with one 16-bit scale per row.
    Q8,
    /// 4 bits, with one 16-bit scale per 32 numbers of a row; a last partial group takes the space
    /// of a whole one.
    Q4,
}

/// The cache of one layer.
pub(crate) struct LayerCache {
    kv_heads: usize,
    head_dim: usize,
    /// Most positions of a head.
    context_len: usize,
    keys: Rows,
    values: Rows,
}

/// `kv_heads × context_len` rows of `head_dim`, zero at first: untouched pages take no memory.
enum Rows {
    F32(Zeros<f32>),
    F16(Zeros<u16>),
    Q8 { codes: Zeros<i8>, scales: Zeros<u16> },
    Q4 { codes: Zeros<u8>, scales: Zeros<u16> },
}

impl LayerCache {
    /// A cache for `context_len` positions; empty for a layer without attention.
    pub fn new(layer: &Layer, context_len: usize, kind: KvType) -> Result<Self, RuntimeError> {
        let (kv_heads, head_dim) =
            layer.attention().map_or((0, 0), |config| (config.kv_heads(), config.head_dim));
        let rows = product(&[kv_heads, context_len]).unwrap_or(usize::MAX);
        let rows = || Rows::new(rows, head_dim, kind);
        let (keys, values) = (rows()?, rows()?);
        Ok(Self { kv_heads, head_dim, context_len, keys, values })
    }

    /// Stores one position's keys and values, `kv_heads × head_dim` each, after
    /// [`LayerCache::spread`].
    pub fn store(&mut self, position: usize, keys: &[f32], values: &[f32]) {
        assert!(position < self.context_len);
        for head in 0..self.kv_heads {
            let row = head * self.context_len + position;
            let range = head * self.head_dim..(head + 1) * self.head_dim;
            self.keys.store(row, &keys[range.clone()]);
            self.values.store(row, &values[range]);
        }
    }

    /// Transforms queries, keys or values (rows of `head_dim`) into the basis of this cache, and
    /// mixes of values back. The map is orthonormal and its own inverse; for most types it is the
    /// identity.
    pub fn spread(&self, x: &mut [f32]) {
        if let Rows::Q4 { .. } = self.keys {
            q4::spread(self.head_dim, x);
        }
    }

    /// Keys of one head at `positions`.
    pub fn keys(&self, head: usize, positions: Range<usize>) -> KvRows<'_> {
        self.keys.view(self.rows(head, positions), self.head_dim)
    }

    /// Values of one head at `positions`.
    pub fn values(&self, head: usize, positions: Range<usize>) -> KvRows<'_> {
        self.values.view(self.rows(head, positions), self.head_dim)
    }

    /// Appends the keys and values of `positions` to `out`, [`LayerCache::position_bytes`] each:
    /// for every position the keys of all heads, then the values of all heads, little-endian.
    /// Independent of the cache's own layout.
    pub fn export(&self, positions: Range<usize>, out: &mut Vec<u8>) {
        assert!(positions.end <= self.context_len);
        for position in positions {
            for rows in [&self.keys, &self.values] {
                for head in 0..self.kv_heads {
                    rows.export(head * self.context_len + position, self.head_dim, out);
                }
            }
        }
    }

    /// Stores the output of [`LayerCache::export`] from position `first` on. `bytes` holds whole
    /// positions.
    pub fn import(&mut self, first: usize, bytes: &[u8]) {
        let row_bytes = self.keys.row_bytes(self.head_dim);
        if self.kv_heads == 0 {
            assert!(bytes.is_empty());
            return;
        }
        let positions = bytes.chunks_exact(2 * self.kv_heads * row_bytes);
        assert!(positions.remainder().is_empty() && positions.len() <= self.context_len - first);
        for (position, bytes) in (first..).zip(positions) {
            let mut rows = bytes.chunks_exact(row_bytes);
            for stored in [&mut self.keys, &mut self.values] {
                for (head, bytes) in (0..self.kv_heads).zip(&mut rows) {
                    stored.import(head * self.context_len + position, self.head_dim, bytes);
                }
            }
        }
    }

    /// Bytes of one position: keys and values of all heads.
    pub fn position_bytes(&self) -> u64 {
        2 * self.kv_heads as u64 * self.keys.row_bytes(self.head_dim) as u64
    }

    /// Bytes of all positions.
    pub fn bytes(&self) -> u64 {
        self.position_bytes() * self.context_len as u64
    }

    fn rows(&self, head: usize, positions: Range<usize>) -> Range<usize> {
        assert!(head < self.kv_heads && positions.end <= self.context_len);
        head * self.context_len + positions.start..head * self.context_len + positions.end
    }
}

impl Rows {
    fn new(rows: usize, head_dim: usize, kind: KvType) -> Result<Self, RuntimeError> {
        let what = "the cache of keys and values";
        let count = product(&[rows, head_dim]).unwrap_or(usize::MAX);
        Ok(match kind {
            KvType::F32 => Rows::F32(Zeros::new(what, count)?),
            KvType::F16 => Rows::F16(Zeros::new(what, count)?),
            KvType::Q8 => Rows::Q8 { codes: Zeros::new(what, count)?, scales: Zeros::new(what, rows)? },
            KvType::Q4 => {
                let groups = product(&[rows, q4::groups(head_dim)]).unwrap_or(usize::MAX);
                let bytes = product(&[groups, KV4_BYTES]).unwrap_or(usize::MAX);
                Rows::Q4 { codes: Zeros::new(what, bytes)?, scales: Zeros::new(what, groups)? }
            }
        })
    }

    fn store(&mut self, row: usize, values: &[f32]) {
        let range = row * values.len()..(row + 1) * values.len();
        match self {
            Rows::F32(rows) => rows[range].copy_from_slice(values),
            Rows::F16(rows) => {
                // Convert a slice at a time: the CPU has an instruction for it.
                let mut clamped = [0.0f32; 64];
                for (stored, values) in rows[range].chunks_mut(64).zip(values.chunks(64)) {
                    let clamped = &mut clamped[..values.len()];
                    for (clamped, value) in clamped.iter_mut().zip(values) {
                        *clamped = value.clamp(-MAX_F16, MAX_F16);
                    }
                    stored.reinterpret_cast_mut::<f16>().convert_from_f32_slice(clamped);
                }
            }
            Rows::Q8 { codes, scales } => {
                let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                let scale = saturating_f16(largest / 127.0);
                scales[row] = scale.to_bits();
                let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
                for (code, value) in codes[range].iter_mut().zip(values) {
                    *code = (value * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
                }
            }
            Rows::Q4 { codes, scales } => {
                let (bytes, groups) = groups_of(row..row + 1, values.len());
                q4::store(values, &mut codes[bytes], &mut scales[groups]);
            }
        }
    }

    /// Appends a row: its numbers, little-endian, then its scales if it has any.
    fn export(&self, row: usize, head_dim: usize, out: &mut Vec<u8>) {
        let range = row * head_dim..(row + 1) * head_dim;
        match self {
            Rows::F32(rows) => out.extend(rows[range].iter().flat_map(|value| value.to_le_bytes())),
            Rows::F16(rows) => out.extend(rows[range].iter().flat_map(|value| value.to_le_bytes())),
            Rows::Q8 { codes, scales } => {
                out.extend(codes[range].iter().map(|code| code.cast_unsigned()));
                out.extend(scales[row].to_le_bytes());
            }
            Rows::Q4 { codes, scales } => {
                let (bytes, groups) = groups_of(row..row + 1, head_dim);
                out.extend(&codes[bytes]);
                out.extend(scales[groups].iter().flat_map(|scale| scale.to_le_bytes()));
            }
        }
    }

    fn import(&mut self, row: usize, head_dim: usize, bytes: &[u8]) {
        let range = row * head_dim..(row + 1) * head_dim;
        match self {
            Rows::F32(rows) => {
                for (value, bytes) in rows[range].iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            Rows::F16(rows) => {
                for (value, bytes) in rows[range].iter_mut().zip(bytes.as_chunks().0) {
                    *value = u16::from_le_bytes(*bytes);
                }
            }
            Rows::Q8 { codes, scales } => {
                let (values, scale) = bytes.split_at(head_dim);
                for (code, byte) in codes[range].iter_mut().zip(values) {
                    *code = byte.cast_signed();
                }
                scales[row] = u16::from_le_bytes([scale[0], scale[1]]);
            }
            Rows::Q4 { codes, scales } => {
                let (span, groups) = groups_of(row..row + 1, head_dim);
                let (values, from) = bytes.split_at(span.len());
                codes[span].copy_from_slice(values);
                for (scale, bytes) in scales[groups].iter_mut().zip(from.as_chunks().0) {
                    *scale = u16::from_le_bytes(*bytes);
                }
            }
        }
    }

    fn view(&self, rows: Range<usize>, head_dim: usize) -> KvRows<'_> {
        let range = rows.start * head_dim..rows.end * head_dim;
        match self {
            Rows::F32(values) => KvRows::F32 { head_dim, rows: &values[range] },
            Rows::F16(values) => KvRows::F16 { head_dim, rows: values[range].reinterpret_cast() },
            Rows::Q8 { codes, scales } => {
                KvRows::Q8 { head_dim, codes: &codes[range], scales: scales[rows].reinterpret_cast() }
            }
            Rows::Q4 { codes, scales } => {
                let (bytes, groups) = groups_of(rows, head_dim);
                KvRows::Q4 { head_dim, codes: &codes[bytes], scales: scales[groups].reinterpret_cast() }
            }
        }
    }

    fn row_bytes(&self, head_dim: usize) -> usize {
        let kind = match self {
            Rows::F32(_) => KvType::F32,
            Rows::F16(_) => KvType::F16,
            Rows::Q8 { .. } => KvType::Q8,
            Rows::Q4 { .. } => KvType::Q4,
        };
        kind.row_bytes(head_dim)
    }
}

/// Ranges of code bytes and of groups of some rows in 4 bits.
fn groups_of(rows: Range<usize>, head_dim: usize) -> (Range<usize>, Range<usize>) {
    let groups = q4::groups(head_dim);
    let span = rows.start * groups..rows.end * groups;
    (KV4_BYTES * span.start..KV4_BYTES * span.end, span)
}

/// The largest f16.
const MAX_F16: f32 = 65504.0;

/// The nearest f16; numbers out of range saturate.
fn saturating_f16(value: f32) -> f16 {
    f16::from_f32(value.clamp(-MAX_F16, MAX_F16))
}

impl KvType {
    /// All types.
    pub const ALL: [KvType; 4] = [KvType::F32, KvType::F16, KvType::Q8, KvType::Q4];

    /// Bytes of one position of a layer: keys and values of all heads.
    pub(crate) fn position_bytes(self, layer: &Layer) -> u64 {
        layer.attention().map_or(0, |config| 2 * (config.kv_heads() * self.row_bytes(config.head_dim)) as u64)
    }

    /// Bytes of one head's row.
    fn row_bytes(self, head_dim: usize) -> usize {
        match self {
            KvType::F32 => 4 * head_dim,
            KvType::F16 => 2 * head_dim,
            KvType::Q8 => head_dim + 2,
            KvType::Q4 => (KV4_BYTES + 2) * q4::groups(head_dim),
        }
    }

    /// Tag in a session file.
    pub(crate) fn tag(self) -> u32 {
        match self {
            KvType::F32 => 0,
            KvType::F16 => 1,
            KvType::Q8 => 2,
            KvType::Q4 => 3,
        }
    }

    /// Name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Q8 => "q8",
            KvType::Q4 => "q4",
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for KvType {
    type Err = RuntimeError;

    fn from_str(name: &str) -> Result<Self, RuntimeError> {
        KvType::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| RuntimeError::Option {
            option: "cache type",
            found: format!("\"{name}\""),
            expected: KvType::ALL.map(KvType::name).join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_format::{Attention, FeedForward, Mixer};

    fn config() -> Layer {
        let attention = Attention {
            query_heads: vec![2; 2],
            head_dim: 3,
            scale: 1.0,
            softcap: None,
            qk_norm: false,
            window: None,
            rope: None,
        };
        Layer { mixer: Mixer::Attention(attention), feed_forward: FeedForward::None {}, parallel: false }
    }

    #[test]
    fn rows_come_back_within_their_types_error() {
        for (kind, error, bytes) in [
            (KvType::F32, 0.0, 48),
            (KvType::F16, 4.0 / 4096.0, 24),
            (KvType::Q8, 0.017, 20),
            (KvType::Q4, 0.25, 72),
        ] {
            let mut cache = LayerCache::new(&config(), 5, kind).unwrap();
            for position in 0..5 {
                let at = |offset: usize| -> Vec<f32> {
                    (0..6).map(|dim| (position * 7 + dim + offset) as f32 / 10.0 - 2.0).collect()
                };
                cache.store(position, &at(0), &at(1));
            }
            let (keys, values) = (cache.keys(1, 2..5), cache.values(1, 2..5));
            assert_eq!((keys.positions(), keys.head_dim()), (3, 3));
            for (position, dim) in [(0, 0), (1, 2), (2, 1)] {
                let expected = ((position + 2) * 7 + 3 + dim) as f32 / 10.0 - 2.0;
                assert!((keys.get(position, dim) - expected).abs() <= error, "{kind}");
                assert!((values.get(position, dim) - expected - 0.1).abs() <= error + 1e-6, "{kind}");
            }
            assert_eq!((cache.position_bytes(), cache.bytes()), (bytes, 5 * bytes));
            assert_eq!(kind.position_bytes(&config()), bytes);
        }
    }

    #[test]
    fn positions_move_to_a_longer_cache_as_they_are() {
        for kind in KvType::ALL {
            let mut cache = LayerCache::new(&config(), 5, kind).unwrap();
            for position in 0..5 {
                let at = |offset: usize| -> Vec<f32> {
                    (0..6).map(|dim| (position * 6 + dim + offset) as f32 / 7.0 - 2.0).collect()
                };
                cache.store(position, &at(0), &at(50));
            }
            let mut bytes = Vec::new();
            cache.export(1..4, &mut bytes);
            assert_eq!(bytes.len() as u64, 3 * cache.position_bytes());
            let mut longer = LayerCache::new(&config(), 9, kind).unwrap();
            longer.import(6, &bytes);
            let mut again = Vec::new();
            longer.export(6..9, &mut again);
            assert_eq!(bytes, again);
            for (position, head, dim) in [(0, 0, 0), (1, 1, 2), (2, 0, 1)] {
                let (old, new) = (cache.keys(head, 1..4), longer.keys(head, 6..9));
                assert_eq!(old.get(position, dim), new.get(position, dim), "{kind}");
                let (old, new) = (cache.values(head, 1..4), longer.values(head, 6..9));
                assert_eq!(old.get(position, dim), new.get(position, dim), "{kind}");
            }
        }
    }

    #[test]
    fn extremes_saturate() {
        for kind in [KvType::F16, KvType::Q8, KvType::Q4] {
            let mut cache = LayerCache::new(&config(), 1, kind).unwrap();
            cache.store(0, &[1e30, -1e30, 0.0, 0.0, 0.0, 0.0], &[1e-30; 6]);
            assert!(cache.keys(0, 0..1).get(0, 0) > 6e4, "{kind}");
            assert!(cache.keys(0, 0..1).get(0, 1) < -6e4, "{kind}");
            assert_eq!(
                (cache.keys(1, 0..1).get(0, 0), cache.values(0, 0..1).get(0, 0)),
                (0.0, 0.0),
                "{kind}"
            );
        }
    }

    #[test]
    fn names_lead_back_and_others_are_refused() {
        for kind in KvType::ALL {
            assert_eq!(kind.name().parse::<KvType>().unwrap(), kind);
        }
        let message = "q5".parse::<KvType>().unwrap_err().to_string();
        assert!(message.contains("\"q5\"") && message.contains("f32, f16, q8, q4"), "{message}");
    }
}
