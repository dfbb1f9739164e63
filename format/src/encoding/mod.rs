//! Encodings: the byte layouts of blocks of 16 rows of a weight matrix.
//!
//! A tile is self-contained (codes and scales), so a matrix is one stream of bytes and a band of
//! rows is one contiguous part of it. Tiles follow the R16K4 order: one 64-byte line of codes is 16
//! rows × 4 columns, byte `j` being row `j / 4`, column `j % 4`.
//!
//! To add an encoding: write one file here with a type that implements [`Tile`], or [`Blocks`]
//! where blocks differ in size, and add one line to the table below, which also declares the
//! module. (`cargo fmt` does not follow modules declared by a macro; `.ci/run` formats these files
//! by name.)

use half::f16;
use half::slice::HalfFloatSliceExt;
use std::fmt;
use std::str::FromStr;

/// Rows in a tile of any encoding.
pub const TILE_ROWS: usize = 16;

/// A multiple of every [`Tile::COLS`], so that kernels of any encoding can read a vector padded to
/// it.
pub const MAX_TILE_COLS: usize = 256;

/// At least the bytes of a tile of any nested encoding.
pub const MAX_NESTED_BYTES: usize = 4096;

mod layout;
mod levels;
mod multiplier;
mod planes;
pub mod rounding;

pub use multiplier::{FLOAT9_EXPONENT, Multiplier};
pub use nested::{First, Nested};

/// Activations that a kernel multiplies the weights with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// f32 activations.
    Float,
    /// Activations rounded to int8 in groups of 32, so that products are integers.
    Integer,
}

/// The layout of one tile: 16 rows × [`Tile::COLS`] columns.
pub trait Tile {
    /// Columns per tile; divides [`MAX_TILE_COLS`].
    const COLS: usize;
    /// Bytes per tile.
    const BYTES: usize;
    /// Activations of its products.
    const OPERATION: Operation;
    /// Scales and codes for a lossless repack and for rounding; `None` where codes have no meaning
    /// of their own.
    const GROUPED: Option<Grouped> = None;

    /// Rounds `weights` (16 × `COLS`, row-major, finite) into `bytes` (`BYTES`).
    fn encode(weights: &[f32], bytes: &mut [u8]);

    /// Decodes the exact values of a tile. Kernels are tested against this.
    fn decode(bytes: &[u8], weights: &mut [f32]);
}

/// An encoding with blocks of 16 rows that differ in size, such as a sparse one. The file's block
/// index holds the sizes.
pub trait Blocks {
    /// Columns decoded together; divides [`MAX_TILE_COLS`].
    const COLS: usize;
    /// Activations of its products.
    const OPERATION: Operation;
    /// Bits per weight in a matrix without zeros, scales included.
    const BITS: f64;

    /// Encodes one block: `weights` are 16 rows of `cols`, row-major, finite.
    fn encode(weights: &[f32], cols: usize) -> Vec<u8>;

    /// Decodes the exact values of 16 rows × `COLS` columns, from column `tile_index · COLS` on;
    /// columns beyond `cols` are zeros.
    ///
    /// Opening a file does not check its blocks: invalid bytes may decode to any values, but never
    /// panic.
    fn decode(block: &[u8], cols: usize, tile_index: usize, weights: &mut [f32]);
}

/// Scales, minima, levels and packing of an encoding, for callers that choose them themselves or
/// already have them.
///
/// `weight = scale · level + minimum`. With [factors](Multiplier::Factors) a group's scale is a
/// value of its row in the tile times the group's factor; likewise the minimum. A
/// [zero point](Multiplier::Zero) gives the minimum by the scale.
#[derive(Clone, Copy, Debug)]
pub struct Grouped {
    /// Columns that share one scale.
    pub group_cols: usize,
    /// Values of the codes, ascending.
    pub levels: &'static [i8],
    /// Storage of the scales.
    pub scale: Multiplier,
    /// Storage of the minima; `None` where there are none.
    pub minimum: Option<Multiplier>,
    /// Packs a tile. Panics if lengths disagree or a value is not a level or factor.
    pub pack: fn(&Codes<'_>, &mut [u8]),
}

/// Inputs for packing a tile, all row-major. A row has `n` = [`Multiplier::values`] scales and
/// minima, and factors where the multiplier has such.
#[derive(Clone, Copy, Debug, Default)]
pub struct Codes<'a> {
    /// 16 × `COLS`, each one of [`Grouped::levels`].
    pub levels: &'a [i8],
    /// 16 × `n`, each [storable](Multiplier::storable).
    pub scales: &'a [f32],
    /// 16 × groups per row, or empty.
    pub factors: &'a [i8],
    /// 16 × `n`, or empty.
    pub minima: &'a [f32],
    /// Factors or zero points: 16 × groups per row, or empty.
    pub min_factors: &'a [i8],
}

impl Grouped {
    /// Whether levels are consecutive integers, each group has its own scale and none a minimum:
    /// codes of other formats can then be repacked losslessly.
    pub fn is_uniform(&self) -> bool {
        matches!(self.scale, Multiplier::Half) && self.minimum.is_none() && self.is_even()
    }

    /// Whether scales or minima are products of a value of a row of a tile and a factor.
    pub fn has_factors(&self) -> bool {
        let multipliers = [Some(self.scale), self.minimum];
        multipliers.into_iter().flatten().any(|multiplier| matches!(multiplier, Multiplier::Factors(_)))
    }

    /// Whether a weight of any group can be exactly zero.
    pub fn has_zero(&self) -> bool {
        self.minimum.is_none() && self.levels.contains(&0)
    }

    /// Whether levels are consecutive integers.
    pub fn is_even(&self) -> bool {
        let (first, last) = self.code_range();
        usize::from(last.abs_diff(first)) + 1 == self.levels.len()
    }

    /// Smallest and largest level.
    pub fn code_range(&self) -> (i8, i8) {
        (self.levels[0], self.levels[self.levels.len() - 1])
    }

    fn range(&self) -> (f32, f32) {
        let (low, high) = self.code_range();
        (f32::from(low), f32::from(high))
    }

    /// Weights up to this magnitude can be stored, whatever the rest of their group is.
    pub fn largest_weight(&self) -> f32 {
        let largest = self.scale.storable(f32::MAX);
        match self.minimum {
            // Half of the levels may have to lie on the other side of zero.
            Some(Multiplier::Zero { .. }) => largest * self.range().1 / 2.0,
            _ => f16::MAX.to_f32(),
        }
    }
}

/// The one table of encodings. Columns: module, tag in the file, variant, [`Tile`] or [`Blocks`],
/// its type, name, description.
macro_rules! encodings {
    ($($(#[$gate:meta])? $module:ident {
        $($(#[$only:meta])? $tag:literal => $variant:ident, $kind:ident $type:ident, $name:literal, $about:literal;)*
    })*) => {
        $($(#[$gate])? mod $module; $(#[$gate])? pub use $module::{$($type),*};)*

        encodings!(@ $($($(#[$only])? $tag => $variant, $kind $type, $name, $about;)*)*);
    };
    (@ $($(#[$only:meta])? $tag:literal => $variant:ident, $kind:ident $type:ident, $name:literal, $about:literal;)*) => {
        /// Storage format of a matrix's weights.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Encoding { $($(#[$only])? #[doc = $about] $variant,)* }

        impl Encoding {
            /// All encodings in table order.
            pub const ALL: &[Encoding] = &[$($(#[$only])? Encoding::$variant,)*];

            /// Tag in the file.
            pub fn tag(self) -> u8 { match self { $($(#[$only])? Encoding::$variant => $tag,)* } }

            /// The encoding with this tag; `None` if this version knows none.
            pub fn from_tag(tag: u8) -> Option<Self> {
                match tag { $($(#[$only])? $tag => Some(Encoding::$variant),)* _ => None }
            }

            /// Name on the command line and in reports.
            pub fn name(self) -> &'static str { match self { $($(#[$only])? Encoding::$variant => $name,)* } }

            /// One-line description.
            pub fn about(self) -> &'static str { match self { $($(#[$only])? Encoding::$variant => $about,)* } }

            /// [`Tile::COLS`] or [`Blocks::COLS`].
            pub fn tile_cols(self) -> usize { match self { $($(#[$only])? Encoding::$variant => <$type>::COLS,)* } }

            /// Whether blocks of 16 rows differ in size; a file then holds their sizes in its block
            /// index.
            pub fn is_indexed(self) -> bool {
                match self { $($(#[$only])? Encoding::$variant => encodings!(@indexed $kind),)* }
            }

            /// [`Tile::BYTES`]. Panics where blocks are not cut into tiles.
            pub fn tile_bytes(self) -> usize {
                match self { $($(#[$only])? Encoding::$variant => encodings!(@bytes $kind $type),)* }
            }

            /// Encoding of the first part of a nested encoding.
            pub fn first(self) -> Option<Encoding> {
                match self { $($(#[$only])? Encoding::$variant => encodings!(@first $kind $type),)* }
            }

            /// Activations of its products.
            pub fn operation(self) -> Operation {
                match self { $($(#[$only])? Encoding::$variant => <$type>::OPERATION,)* }
            }

            /// [`Tile::GROUPED`]; `None` where blocks are not cut into tiles.
            pub fn grouped(self) -> Option<Grouped> {
                match self { $($(#[$only])? Encoding::$variant => encodings!(@grouped $kind $type),)* }
            }

            /// Bits per weight, scales included, padding not; for encodings that leave zeros out,
            /// without zeros.
            pub fn bits_per_weight(self) -> f64 {
                match self { $($(#[$only])? Encoding::$variant => encodings!(@bits $kind $type),)* }
            }

            /// [`Tile::encode`]. Panics where blocks are not cut into tiles.
            pub fn encode_tile(self, weights: &[f32], bytes: &mut [u8]) {
                match self { $($(#[$only])? Encoding::$variant => encodings!(@tile $kind $type, weights, bytes),)* }
            }

            /// [`Blocks::encode`]; `None` where blocks are cut into tiles.
            fn encode_blocks(self, weights: &[f32], cols: usize) -> Option<Vec<u8>> {
                match self { $($(#[$only])? Encoding::$variant => encodings!(@blocks $kind $type, weights, cols),)* }
            }

            /// Decodes the exact values of 16 rows × [`Self::tile_cols`] columns of a block of a
            /// matrix of `cols` columns, from column `tile_index · tile_cols` on. Panics if there
            /// is no such tile.
            #[inline]
            pub fn decode(self, block: &[u8], cols: usize, tile_index: usize, weights: &mut [f32]) {
                match self {
                    $($(#[$only])? Encoding::$variant => {
                        encodings!(@decode $kind $type, block, cols, tile_index, weights)
                    })*
                }
            }
        }

        #[cfg(test)]
        #[test]
        fn every_tile_fits_the_padding() {
            $(assert_eq!(MAX_TILE_COLS % <$type>::COLS, 0, "{}", $name);)*
        }
    };
    (@indexed Tile) => { false };
    (@indexed Nested) => { false };
    (@indexed Blocks) => { true };
    (@first Tile $type:ident) => { None };
    (@first Blocks $type:ident) => { None };
    (@first Nested $type:ident) => { Some(<$type>::FIRST) };
    (@bytes Tile $type:ident) => { <$type>::BYTES };
    (@bytes Nested $type:ident) => { <$type>::BYTES };
    (@bytes Blocks $type:ident) => { panic!("blocks of {} are not cut into tiles", stringify!($type)) };
    (@grouped Tile $type:ident) => { <$type>::GROUPED };
    (@grouped Nested $type:ident) => { <$type>::GROUPED };
    (@grouped Blocks $type:ident) => { None };
    (@bits Tile $type:ident) => { <$type>::BYTES as f64 * 8.0 / (TILE_ROWS * <$type>::COLS) as f64 };
    (@bits Nested $type:ident) => { <$type>::BYTES as f64 * 8.0 / (TILE_ROWS * <$type>::COLS) as f64 };
    (@bits Blocks $type:ident) => { <$type>::BITS };
    (@tile Tile $type:ident, $weights:ident, $bytes:ident) => { <$type>::encode($weights, $bytes) };
    (@tile Nested $type:ident, $weights:ident, $bytes:ident) => { <$type>::encode($weights, $bytes) };
    (@tile Blocks $type:ident, $weights:ident, $bytes:ident) => {{
        let _ = ($weights, $bytes);
        panic!("blocks of {} are not cut into tiles", stringify!($type))
    }};
    (@blocks Tile $type:ident, $weights:ident, $cols:ident) => {{
        let _ = ($weights, $cols);
        None
    }};
    (@blocks Nested $type:ident, $weights:ident, $cols:ident) => {{
        let _ = ($weights, $cols);
        None
    }};
    (@blocks Blocks $type:ident, $weights:ident, $cols:ident) => { Some(<$type>::encode($weights, $cols)) };
    (@decode Tile $type:ident, $block:ident, $cols:ident, $tile_index:ident, $weights:ident) => {{
        let _ = $cols;
        <$type>::decode(&$block[$tile_index * <$type>::BYTES..][..<$type>::BYTES], $weights)
    }};
    (@decode Nested $type:ident, $block:ident, $cols:ident, $tile_index:ident, $weights:ident) => {{
        let _ = $cols;
        <$type>::decode(&$block[$tile_index * <$type>::BYTES..][..<$type>::BYTES], $weights)
    }};
    (@decode Blocks $type:ident, $block:ident, $cols:ident, $tile_index:ident, $weights:ident) => {
        <$type>::decode($block, $cols, $tile_index, $weights)
    };
}

encodings! {
    float {
        0 => F32, Tile F32Tile, "f32", "32-bit floats";
        1 => F16, Tile F16Tile, "f16", "16-bit floats";
    }
    q8 { 8 => Q8, Tile Q8Tile, "q8", "8-bit codes, one f16 scale for 32 columns"; }
    q4 {
        4 => Q4, Tile Q4Tile, "q4", "4-bit codes, one f16 scale for 32 columns";
        5 => Q4G64, Tile Q4G64Tile, "q4-g64", "4-bit codes, one f16 scale for 64 columns";
    }
    coded {
        6 => Q6, Tile Q6Tile, "q6", "6-bit codes, one f16 scale for 64 columns";
        9 => Q5, Tile Q5Tile, "q5", "5-bit codes, one f16 scale for 64 columns";
        10 => Q4NL, Tile Q4NLTile, "q4-nl", "16 levels dense around zero, one f16 scale for 64 columns";
        3 => Q3, Tile Q3Tile, "q3", "8 levels, a 4-bit factor for 32 columns, one f16 scale for 128";
        2 => Q2, Tile Q2Tile, "q2", "4 levels, a 4-bit factor for 32 columns, one f16 scale for 128";
        29 => Q3G32, Tile Q3G32Tile, "q3-g32", "3-bit codes, one f16 scale for 32 columns";
        11 => Ternary, Tile TernaryTile, "ternary", "-1, 0 or 1, one f16 scale for 128 columns";
    }
    ggml {
        12 => Q41, Tile Q41Tile, "q4-1", "ggml's Q4_1: 4-bit codes, f16 scale and minimum for 32 columns";
        13 => Q50, Tile Q50Tile, "q5-0", "ggml's Q5_0: 5-bit codes, one f16 scale for 32 columns";
        14 => Q51, Tile Q51Tile, "q5-1", "ggml's Q5_1: 5-bit codes, f16 scale and minimum for 32 columns";
        15 => Iq4Nl, Tile Iq4NlTile, "iq4-nl", "ggml's IQ4_NL: 16 levels, one f16 scale for 32 columns";
        16 => Mxfp4, Tile Mxfp4Tile, "mxfp4", "MXFP4: 15 levels, a power of two for 32 columns";
        17 => Q2K, Tile Q2KTile, "q2-k", "ggml's Q2_K: 2-bit codes, 4-bit scale and minimum for 16 columns";
        18 => Q3K, Tile Q3KTile, "q3-k", "ggml's Q3_K: 3-bit codes, 6-bit scale for 16 columns";
        19 => Q4K, Tile Q4KTile, "q4-k", "ggml's Q4_K: 4-bit codes, 6-bit scale and minimum for 32 columns";
        20 => Q5K, Tile Q5KTile, "q5-k", "ggml's Q5_K: 5-bit codes, 6-bit scale and minimum for 32 columns";
        21 => Q6K, Tile Q6KTile, "q6-k", "ggml's Q6_K: 6-bit codes, 8-bit scale for 16 columns";
        22 => Iq4Xs, Tile Iq4XsTile, "iq4-xs", "ggml's IQ4_XS: 16 levels, 6-bit scale for 32 columns";
        24 => Tq2, Tile Tq2Tile, "tq2", "ggml's TQ2_0: -1, 0 or 1 in 2 bits, one f16 scale for 256 columns";
    }
    tq1 { 23 => Tq1, Tile Tq1Tile, "tq1", "ggml's TQ1_0: -1, 0 or 1, five to a byte, one f16 scale for 256 columns"; }
    affine {
        25 => Q6A, Tile Q6ATile, "q6-a", "6-bit codes, a small float and a zero point for 32 columns";
        26 => Q5A, Tile Q5ATile, "q5-a", "5-bit codes, a small float and a zero point for 32 columns";
        27 => Q4A, Tile Q4ATile, "q4-a", "4-bit codes, a small float and a zero point for 32 columns";
        28 => Q3A, Tile Q3ATile, "q3-a", "3-bit codes, a small float and a zero point for 32 columns";
    }
    nested {
        30 => Q8N4, Nested Q8N4Tile, "q8-n4", "8-bit codes in two parts: q4, then four low bits";
        31 => Q8N3, Nested Q8N3Tile, "q8-n3", "8-bit codes in two parts: q3-g32, then five low bits";
    }
    #[cfg(test)]
    columns { #[cfg(test)] 200 => Columns, Blocks ColumnBlocks, "columns", "for tests: f32, columns of zeros left out"; }
}

impl Encoding {
    /// Bytes of a `rows × cols` matrix, padding included. `None` on overflow, and where blocks
    /// differ in size, since their bytes depend on the weights.
    pub fn matrix_bytes(self, rows: u64, cols: u64) -> Option<u64> {
        if self.is_indexed() {
            return None;
        }
        let blocks = rows.div_ceil(TILE_ROWS as u64);
        let tiles = cols.div_ceil(self.tile_cols() as u64);
        blocks.checked_mul(tiles)?.checked_mul(self.tile_bytes() as u64)
    }

    /// Of so many bytes of whole tiles, those of their first parts: all but for a nested encoding.
    #[inline]
    pub fn first_bytes(self, bytes: usize) -> usize {
        self.first().map_or(bytes, |first| bytes / self.tile_bytes() * first.tile_bytes())
    }

    /// Tiles in the order of a file: of a nested encoding the first parts of all, then the low bits
    /// of all.
    pub fn stored(self, tiles: Vec<u8>) -> Vec<u8> {
        let Some(first) = self.first() else { return tiles };
        let halves = || tiles.chunks_exact(self.tile_bytes()).map(|tile| tile.split_at(first.tile_bytes()));
        halves().map(|(first, _)| first).chain(halves().map(|(_, low)| low)).flatten().copied().collect()
    }

    /// Encodes up to 16 rows (`weights`: row-major, a multiple of `cols` values) into a new block;
    /// missing rows become zeros. Panics if the lengths disagree.
    pub fn encode_block(self, weights: &[f32], cols: usize) -> Vec<u8> {
        let mut rows = weights.to_vec();
        rows.resize(TILE_ROWS * cols, 0.0);
        self.encode_blocks(&rows, cols).unwrap_or_else(|| {
            let mut bytes = vec![0; cols.div_ceil(self.tile_cols()) * self.tile_bytes()];
            encode_block(self, weights, cols, &mut bytes);
            bytes
        })
    }
}

/// Encodes up to 16 rows (`weights`: row-major, a multiple of `cols` values) into one block of
/// tiles. Those of nested encodings are whole; [`Encoding::stored`] takes them apart.
///
/// `bytes` is `tile_count · tile_bytes`; missing rows and columns become zeros. Panics if the
/// lengths disagree.
pub fn encode_block(encoding: Encoding, weights: &[f32], cols: usize, bytes: &mut [u8]) {
    let rows = weights.len() / cols;
    let tile_cols = encoding.tile_cols();
    assert!(rows * cols == weights.len() && rows <= TILE_ROWS);
    assert_eq!(bytes.len(), cols.div_ceil(tile_cols) * encoding.tile_bytes());
    let mut tile = vec![0.0f32; TILE_ROWS * tile_cols];
    for (tile_index, bytes) in bytes.chunks_exact_mut(encoding.tile_bytes()).enumerate() {
        let start = tile_index * tile_cols;
        let width = tile_cols.min(cols - start);
        tile.fill(0.0);
        for row in 0..rows {
            tile[row * tile_cols..][..width].copy_from_slice(&weights[row * cols + start..][..width]);
        }
        encoding.encode_tile(&tile, bytes);
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// The name is not in the table; the message lists the names that are.
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

/// The 16 f16 scales of one group of a tile, row after row.
fn read_scales(bytes: &[u8]) -> [f32; TILE_ROWS] {
    widened(&std::array::from_fn(|row| f16::from_le_bytes([bytes[2 * row], bytes[2 * row + 1]])))
}

/// One value per row, converted together with the CPU's instruction where it has one.
fn widened(halves: &[f16; TILE_ROWS]) -> [f32; TILE_ROWS] {
    let mut out = [0.0; TILE_ROWS];
    halves.convert_to_f32_slice(&mut out);
    out
}

/// The scales of one group, of `groups` a row, as f16.
fn write_scales(scales: &[f32], group: usize, groups: usize, bytes: &mut [u8]) {
    for (row, out) in bytes.chunks_exact_mut(2).enumerate() {
        out.copy_from_slice(&f16::from_f32(scales[row * groups + group]).to_le_bytes());
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

    /// Encodings that cut blocks into tiles.
    fn tiled() -> impl Iterator<Item = Encoding> {
        Encoding::ALL.iter().copied().filter(|encoding| !encoding.is_indexed())
    }

    #[test]
    fn every_encoding_comes_close_to_its_weights() {
        for encoding in tiled() {
            let count = TILE_ROWS * encoding.tile_cols();
            let (weights, mut bytes, mut decoded) =
                (weights(count), vec![0; encoding.tile_bytes()], vec![0.0; count]);
            encoding.encode_tile(&weights, &mut bytes);
            encoding.decode(&bytes, encoding.tile_cols(), 0, &mut decoded);
            // Largest error for weights up to 1: half the widest step, or the largest amount that
            // clipping removes.
            let (mut bound, mut step) = (2.0f32.powi(-11), 0.0f32);
            if let Some(grouped) = encoding.grouped() {
                let widest = grouped.levels.windows(2).map(|pair| pair[1].abs_diff(pair[0])).max().unwrap();
                let (low, high) = grouped.range();
                bound += match grouped.minimum {
                    None => f32::from(widest) / 2.0 / high.min(-low),
                    Some(_) => f32::from(widest) / (high - low),
                };
                // A power of two may be √2 away from the best scale.
                if matches!(grouped.scale, Multiplier::Exponent) {
                    bound *= 2.0f32.sqrt();
                }
                bound += if grouped.levels.len() > 64 { 0.0 } else { 1.0 - 1.0 / 1.5 };
                step = 2.0 / grouped.levels.len() as f32;
            }
            let mut squares = 0.0;
            for (weight, value) in weights.iter().zip(&decoded) {
                assert!((weight - value).abs() <= bound, "{encoding}: {weight} became {value}");
                squares += (weight - value).powi(2);
            }
            // Uniform rounding in steps of s has error s / √12; the range −1..1 has 2^bits steps.
            // Levels dense around zero do not suit these weights, which are uniformly distributed.
            if encoding.grouped().is_some() {
                let rms = (squares / count as f32).sqrt();
                let limit = match encoding.grouped().unwrap() {
                    // Of few levels the range has half a step more on one side.
                    grouped if grouped.is_uniform() && grouped.levels.len() < 16 => 1.1,
                    grouped if grouped.is_uniform() => 1.05,
                    Grouped { scale: Multiplier::Exponent, .. } => 2.0,
                    _ => 1.4,
                };
                assert!(rms < limit * step / 12.0f32.sqrt(), "{encoding}: rms {rms}, step {step}");
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        for &encoding in Encoding::ALL {
            let cols = encoding.tile_cols();
            let bytes = encoding.encode_block(&vec![0.0; TILE_ROWS * cols], cols);
            let mut decoded = vec![1.0; TILE_ROWS * cols];
            encoding.decode(&bytes, cols, 0, &mut decoded);
            assert!(decoded.iter().all(|&value| value == 0.0), "{encoding}");
        }
    }

    #[test]
    fn packed_codes_come_back_exactly() {
        for &encoding in Encoding::ALL {
            let Some(grouped) = encoding.grouped() else { continue };
            let (cols, groups) = (encoding.tile_cols(), encoding.tile_cols() / grouped.group_cols);
            let level = |i: usize| grouped.levels[(i * 7 + i / 5) % grouped.levels.len()];
            let levels: Vec<i8> = (0..TILE_ROWS * cols).map(level).collect();
            let (scales, factors) = multipliers(Some(grouped.scale), groups, 0.01);
            let (minima, min_factors) = multipliers(grouped.minimum, groups, 0.03);
            let parameters = rounding::Parameters { scales, factors, minima, min_factors };
            let mut bytes = vec![0; encoding.tile_bytes()];
            (grouped.pack)(&parameters.codes(&levels), &mut bytes);
            let rounding::Parameters { scales, factors, minima, min_factors } = parameters;
            let mut decoded = vec![0.0; levels.len()];
            encoding.decode(&bytes, encoding.tile_cols(), 0, &mut decoded);
            let value_of = |values: &[f32], factors: &[i8], group: usize, row: usize| match factors {
                [] => values.get(row * groups + group).copied().unwrap_or(0.0),
                factors => values[row] * f32::from(factors[row * groups + group]),
            };
            for (index, &value) in decoded.iter().enumerate() {
                let (row, group) = (index / cols, index % cols / grouped.group_cols);
                let scale = value_of(&scales, &factors, group, row);
                let minimum = match grouped.minimum {
                    Some(Multiplier::Zero { shift }) => {
                        -scale * f32::from(min_factors[row * groups + group]) * 0.5f32.powi(shift as i32)
                    }
                    _ => value_of(&minima, &min_factors, group, row),
                };
                let expected = scale * f32::from(levels[index]) + minimum;
                assert_eq!(value, expected, "{encoding} row {row} column {}", index % cols);
            }
        }
    }

    /// Values that `multiplier` stores, and factors of its table, for all groups of a tile.
    fn multipliers(multiplier: Option<Multiplier>, groups: usize, unit: f32) -> (Vec<f32>, Vec<i8>) {
        let Some(multiplier) = multiplier else { return (Vec::new(), Vec::new()) };
        let values = (0..TILE_ROWS * multiplier.values(groups)).map(|i| unit * (i as f32 - 9.0));
        let zeros: Vec<i8> = (0..=127).collect();
        let table = if let Multiplier::Zero { .. } = multiplier { &zeros } else { multiplier.factors() };
        let factors = 0..TILE_ROWS * multiplier.integers(groups);
        let factors = factors.map(|i| table[(i * 7 + i / 5) % table.len()]);
        (values.map(|value| multiplier.storable(value)).collect(), factors.collect())
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
