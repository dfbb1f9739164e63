//! Encodings: how a tile of 16 rows of a weight matrix becomes bytes.
//!
//! A tile holds everything needed to read it (codes and scales), so a matrix is one stream of bytes and a band of
//! rows is one contiguous part of it. Tiles follow the R16K4 order: one 64-byte line of codes is 16 rows × 4
//! columns, byte `j` being row `j / 4`, column `j % 4`.
//!
//! To add an encoding: one file here with a type that implements [`Tile`], and one line in the table below, which
//! declares the module too. (`cargo fmt` does not look behind a macro; `.ci/run` formats these files by name.)

use half::f16;
use half::slice::HalfFloatSliceExt;
use std::fmt;
use std::str::FromStr;

/// Rows in a tile of any encoding.
pub const TILE_ROWS: usize = 16;

/// Every [`Tile::COLS`] divides this, so a vector padded to it can be read by a kernel of any encoding.
pub const MAX_TILE_COLS: usize = 128;

/// What a kernel multiplies the weights with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// f32 activations.
    Float,
    /// Activations rounded to int8 in groups of 32, so that products are integers.
    Integer,
}

/// The layout of one tile: 16 rows × [`Tile::COLS`] columns.
pub trait Tile {
    /// Columns in a tile; divides [`MAX_TILE_COLS`].
    const COLS: usize;
    /// Bytes in a tile.
    const BYTES: usize;
    /// The activations it is multiplied with.
    const OPERATION: Operation;
    /// The parts that lossless carry-over needs; `None` where codes have no meaning of their own.
    const GROUPED: Option<Grouped> = None;

    /// Rounds `weights` (16 × `COLS`, row-major, finite) into `bytes` (`BYTES`).
    fn encode(weights: &[f32], bytes: &mut [u8]);

    /// The exact values of a tile. This is the norm that kernels are tested against.
    fn decode(bytes: &[u8], weights: &mut [f32]);
}

/// Access to an encoding's integer codes, for sources that already hold such codes.
#[derive(Clone, Copy, Debug)]
pub struct Grouped {
    /// Columns that share one scale.
    pub group_cols: usize,
    /// Smallest and largest code.
    pub code_range: (i8, i8),
    /// `pack(codes, scales, bytes)`: codes 16 × `COLS` row-major, scales 16 × `COLS / group_cols` row-major.
    pub pack: fn(&[i8], &[f16], &mut [u8]),
}

/// The one table of encodings: module, then tag in the file, variant, tile, name, a line about it.
macro_rules! encodings {
    ($($module:ident { $($tag:literal => $variant:ident, $tile:ident, $name:literal, $about:literal;)* })*) => {
        $(mod $module; pub use $module::{$($tile),*};)*

        encodings!(@ $($($tag => $variant, $tile, $name, $about;)*)*);
    };
    (@ $($tag:literal => $variant:ident, $tile:ident, $name:literal, $about:literal;)*) => {
        /// How the weights of a matrix are stored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Encoding { $(#[doc = $about] $variant,)* }

        impl Encoding {
            /// Every encoding, in the order of the table.
            pub const ALL: &[Encoding] = &[$(Encoding::$variant,)*];

            /// The number that stands for it in a file.
            pub fn tag(self) -> u8 { match self { $(Encoding::$variant => $tag,)* } }

            /// The encoding of a tag, `None` where this version knows none.
            pub fn from_tag(tag: u8) -> Option<Self> { match tag { $($tag => Some(Encoding::$variant),)* _ => None } }

            /// The name used on the command line and in reports.
            pub fn name(self) -> &'static str { match self { $(Encoding::$variant => $name,)* } }

            /// One line about it.
            pub fn about(self) -> &'static str { match self { $(Encoding::$variant => $about,)* } }

            /// [`Tile::COLS`].
            pub fn tile_cols(self) -> usize { match self { $(Encoding::$variant => <$tile>::COLS,)* } }

            /// [`Tile::BYTES`].
            pub fn tile_bytes(self) -> usize { match self { $(Encoding::$variant => <$tile>::BYTES,)* } }

            /// [`Tile::OPERATION`].
            pub fn operation(self) -> Operation { match self { $(Encoding::$variant => <$tile>::OPERATION,)* } }

            /// [`Tile::GROUPED`].
            pub fn grouped(self) -> Option<Grouped> { match self { $(Encoding::$variant => <$tile>::GROUPED,)* } }

            /// [`Tile::encode`].
            pub fn encode_tile(self, weights: &[f32], bytes: &mut [u8]) {
                match self { $(Encoding::$variant => <$tile>::encode(weights, bytes),)* }
            }

            /// [`Tile::decode`].
            pub fn decode_tile(self, bytes: &[u8], weights: &mut [f32]) {
                match self { $(Encoding::$variant => <$tile>::decode(bytes, weights),)* }
            }
        }

        #[cfg(test)]
        #[test]
        fn every_tile_fits_the_padding() {
            $(assert_eq!(MAX_TILE_COLS % <$tile>::COLS, 0, "{}", $name);)*
        }
    };
}

encodings! {
    float {
        0 => F32, F32Tile, "f32", "32-bit floats";
        1 => F16, F16Tile, "f16", "16-bit floats";
    }
    q8 { 8 => Q8, Q8Tile, "q8", "8-bit codes, one f16 scale for 32 columns"; }
    q4 {
        4 => Q4, Q4Tile, "q4", "4-bit codes, one f16 scale for 32 columns";
        5 => Q4G64, Q4G64Tile, "q4-g64", "4-bit codes, one f16 scale for 64 columns";
    }
}

impl Encoding {
    /// Bytes of a `rows × cols` matrix, padding included; `None` where they overflow.
    pub fn matrix_bytes(self, rows: u64, cols: u64) -> Option<u64> {
        let blocks = rows.div_ceil(TILE_ROWS as u64);
        let tiles = cols.div_ceil(self.tile_cols() as u64);
        blocks.checked_mul(tiles)?.checked_mul(self.tile_bytes() as u64)
    }

    /// Bits a weight takes, scales included, padding left out.
    pub fn bits_per_weight(self) -> f64 {
        self.tile_bytes() as f64 * 8.0 / (TILE_ROWS * self.tile_cols()) as f64
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// The name is not one of the table's; the message lists those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEncoding(String);

impl fmt::Display for UnknownEncoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<_> = Encoding::ALL.iter().map(|encoding| encoding.name()).collect();
        write!(formatter, "unknown encoding \"{}\"; known are {}", self.0, known.join(", "))
    }
}

impl std::error::Error for UnknownEncoding {}

impl FromStr for Encoding {
    type Err = UnknownEncoding;

    fn from_str(name: &str) -> Result<Self, UnknownEncoding> {
        Encoding::ALL
            .iter()
            .copied()
            .find(|encoding| encoding.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownEncoding(name.to_string()))
    }
}

/// The scale and codes that bring `weights` closest to `scale · code`, in squared error, with codes from `-limit_low`
/// to `limit_high`.
///
/// Candidates are the scale that puts the largest weight on the outermost code and a few around it; the best is
/// kept. `codes` has the length of `weights`, a multiple of 8.
fn round_group(weights: &[f32], limit_low: i32, limit_high: i32, codes: &mut [i8]) -> f16 {
    let extreme = weights.iter().copied().fold(0.0f32, |best, w| if w.abs() > best.abs() { w } else { best });
    if extreme == 0.0 {
        codes.fill(0);
        return f16::ZERO;
    }
    let (low, high) = (-limit_low as f32, limit_high as f32);
    let code = |weight: f32, inverse: f32| round_small((weight * inverse).clamp(low, high));
    let mut best = (f32::INFINITY, f16::ZERO);
    let mut consider = |scale: f32| {
        let scale = f16::from_f32(scale.clamp(-65504.0, 65504.0));
        let value = scale.to_f32();
        if value == 0.0 {
            return;
        }
        let inverse = 1.0 / value;
        // Eight sums, so that the compiler can use vectors.
        let mut sums = [0.0f32; 8];
        for weights in weights.as_chunks::<8>().0 {
            for (sum, &weight) in sums.iter_mut().zip(weights) {
                let difference = weight - value * code(weight, inverse);
                *sum += difference * difference;
            }
        }
        let error: f32 = sums.iter().sum();
        if error < best.0 {
            best = (error, scale);
        }
    };
    // The long side of a code range that is not symmetric serves the extreme weight.
    let outermost = -(limit_low as f32);
    consider(extreme / outermost);
    if limit_low < 16 {
        for step in -8..=8 {
            consider(extreme / (outermost * (1.0 + step as f32 * 0.0125)));
            consider(extreme / (limit_high as f32 * (1.0 + step as f32 * 0.0125)));
        }
    }
    let scale = best.1;
    if scale == f16::ZERO {
        codes.fill(0);
        return scale;
    }
    let inverse = 1.0 / scale.to_f32();
    for (out, &weight) in codes.iter_mut().zip(weights) {
        *out = code(weight, inverse) as i8;
    }
    scale
}

/// `x.round_ties_even()` for |x| up to 2²², in two additions: beyond 2²³ a float has no fraction. Without SSE4.1 the
/// standard function is a call for every value.
fn round_small(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³
    (x + SHIFT) - SHIFT
}

/// Rounds a tile group by group, row by row, and hands codes and scales (both row-major) to `pack`.
fn encode_grouped<const COLS: usize>(weights: &[f32], grouped: &Grouped, bytes: &mut [u8]) {
    assert_eq!(weights.len(), TILE_ROWS * COLS);
    let mut codes = vec![0i8; TILE_ROWS * COLS];
    let mut scales = Vec::with_capacity(TILE_ROWS * COLS / grouped.group_cols);
    let (low, high) = (-i32::from(grouped.code_range.0), i32::from(grouped.code_range.1));
    for (weights, codes) in
        weights.chunks_exact(grouped.group_cols).zip(codes.chunks_exact_mut(grouped.group_cols))
    {
        scales.push(round_group(weights, low, high, codes));
    }
    (grouped.pack)(&codes, &scales, bytes);
}

/// The 16 f16 scales of one group of a tile, row after row.
fn read_scales(bytes: &[u8]) -> [f32; TILE_ROWS] {
    widened(&std::array::from_fn(|row| f16::from_le_bytes([bytes[2 * row], bytes[2 * row + 1]])))
}

/// One value a row, converted together: by the CPU's own instruction where it has one.
fn widened(halves: &[f16; TILE_ROWS]) -> [f32; TILE_ROWS] {
    let mut out = [0.0; TILE_ROWS];
    halves.convert_to_f32_slice(&mut out);
    out
}

fn write_scales(scales: &[f16], group: usize, groups: usize, bytes: &mut [u8]) {
    for (row, out) in bytes.chunks_exact_mut(2).enumerate() {
        out.copy_from_slice(&scales[row * groups + group].to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(count: usize) -> Vec<f32> {
        let mut state = 7u32;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn every_encoding_comes_close_to_its_weights() {
        for &encoding in Encoding::ALL {
            let count = TILE_ROWS * encoding.tile_cols();
            let (weights, mut bytes, mut decoded) =
                (weights(count), vec![0; encoding.tile_bytes()], vec![0.0; count]);
            encoding.encode_tile(&weights, &mut bytes);
            encoding.decode_tile(&bytes, &mut decoded);
            // Largest error for weights up to 1: half a step, or what the widest clipping candidate cuts off.
            let bound = match encoding.grouped().map(|grouped| grouped.code_range) {
                None => 2.0f32.powi(-11),
                Some((_, 7)) => 1.0 - 7.0 / 8.8 + 2.0f32.powi(-11),
                Some((_, high)) => 0.5 / f32::from(high) + 2.0f32.powi(-11),
            };
            let mut squares = 0.0;
            for (weight, value) in weights.iter().zip(&decoded) {
                assert!((weight - value).abs() <= bound, "{encoding}: {weight} became {value}");
                squares += (weight - value).powi(2);
            }
            // Rounding to steps of s alone costs s / √12; the range −1..1 has 2^bits steps.
            if let Some((low, high)) = encoding.grouped().map(|grouped| grouped.code_range) {
                let step = 2.0 / (f32::from(high) - f32::from(low) + 1.0);
                let rms = (squares / count as f32).sqrt();
                assert!(rms < 1.05 * step / 12.0f32.sqrt(), "{encoding}: rms {rms}, step {step}");
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        for &encoding in Encoding::ALL {
            let count = TILE_ROWS * encoding.tile_cols();
            let mut bytes = vec![0xff; encoding.tile_bytes()];
            encoding.encode_tile(&vec![0.0; count], &mut bytes);
            let mut decoded = vec![1.0; count];
            encoding.decode_tile(&bytes, &mut decoded);
            assert!(decoded.iter().all(|&value| value == 0.0), "{encoding}");
        }
    }

    #[test]
    fn packed_codes_come_back_exactly() {
        for &encoding in Encoding::ALL {
            let Some(grouped) = encoding.grouped() else { continue };
            let cols = encoding.tile_cols();
            let (low, high) = (i32::from(grouped.code_range.0), i32::from(grouped.code_range.1));
            let codes: Vec<i8> = (0..TILE_ROWS * cols)
                .map(|i| (low + (i as i32 * 7 + i as i32 / 5) % (high - low + 1)) as i8)
                .collect();
            let groups = cols / grouped.group_cols;
            let scales: Vec<f16> =
                (0..TILE_ROWS * groups).map(|i| f16::from_f32(0.01 * (i as f32 - 9.0))).collect();
            let mut bytes = vec![0; encoding.tile_bytes()];
            (grouped.pack)(&codes, &scales, &mut bytes);
            let mut decoded = vec![0.0; codes.len()];
            encoding.decode_tile(&bytes, &mut decoded);
            for (index, &value) in decoded.iter().enumerate() {
                let (row, col) = (index / cols, index % cols);
                let scale = scales[row * groups + col / grouped.group_cols].to_f32();
                assert_eq!(value, scale * f32::from(codes[index]), "{encoding} row {row} column {col}");
            }
        }
    }

    #[test]
    fn small_values_round_half_to_even() {
        for x in [0.0f32, 0.5, 1.5, 2.5, -0.5, -1.5, -7.5, 126.5, 0.49999997, -127.0, 3.2] {
            assert_eq!(round_small(x), x.round_ties_even(), "{x}");
        }
    }

    #[test]
    fn tags_and_names_lead_back() {
        for &encoding in Encoding::ALL {
            assert_eq!(Encoding::from_tag(encoding.tag()), Some(encoding));
            assert_eq!(encoding.name().parse(), Ok(encoding));
        }
        assert_eq!(Encoding::from_tag(250), None);
        let message = "q9".parse::<Encoding>().unwrap_err().to_string();
        assert!(message.contains("\"q9\"") && message.contains("q4-g64"), "{message}");
    }

    #[test]
    fn huge_matrices_overflow_to_none() {
        assert_eq!(Encoding::F32.matrix_bytes(u64::MAX, u64::MAX), None);
        assert_eq!(Encoding::Q4.matrix_bytes(17, 65), Some(2 * 2 * 576));
    }
}
