//! Nested encodings: 8-bit codes in two parts, each contiguous over the whole matrix. The first part
//! is a matrix of an encoding of fewer bits, which can be read alone; the second holds the low bits.
//!
//! ```text
//!         first part      low bits, planes   range of codes
//! Q8N4    Q4              4                  −128 ..= 119
//! Q8N3    Q3G32           4 + 1              −128 ..= 111
//! ```
//! With `L` low bits, `high` the level of the first part and `scale` its scale:
//! ```text
//! code   = high · 2^L + low, with low from −2^(L−1) on; at least −128
//! weight = scale / 2^L · code
//! ```
//! So `high` is the level nearest to `code / 2^L`, and `scale · high` is the weight with fewer bits.
//! The low bits are stored as `low + 2^(L−1)` in [planes](super::planes), without scales. Codes below
//! −128, which are never written, count as −128, so that all fit a signed byte.
//!
//! Here a tile is that of the first part with that of the low bits behind it. Only a
//! [`Matrix`](crate::Matrix) and a file keep the parts separate.

use super::coded::Q3G32Tile;
use super::planes::{self, plane_bytes};
use super::q4::Q4Tile;
use super::{
    Codes, Encoding, Grouped, MAX_NESTED_BYTES, MAX_TILE_COLS, Multiplier, Operation, TILE_ROWS, Tile,
    read_scales,
};
use half::f16;
use std::marker::PhantomData;

/// A tile of the first part, `F`, with `LOW` low bits: 4 or more.
pub struct Nested<F, const LOW: usize>(PhantomData<F>);

/// [`Q4Tile`] and 4 low bits: 1088 bytes.
pub type Q8N4Tile = Nested<Q4Tile, 4>;

/// [`Q3G32Tile`] and 5 low bits: 2176 bytes.
pub type Q8N3Tile = Nested<Q3G32Tile, 5>;

/// A tile that can be the first part: consecutive levels, one f16 scale a group.
pub trait First: Tile {
    /// Its encoding.
    const ENCODING: Encoding;
}

impl First for Q4Tile {
    const ENCODING: Encoding = Encoding::Q4;
}

impl First for Q3G32Tile {
    const ENCODING: Encoding = Encoding::Q3G32;
}

/// Bits of the plane of the lowest bits.
const PLANE: usize = 4;

/// All signed bytes, ascending.
const SIGNED: [i8; 256] = {
    let (mut levels, mut index) = ([0; 256], 0);
    while index < 256 {
        levels[index] = (index as i16 - 128) as i8;
        index += 1;
    }
    levels
};

impl<F: First, const LOW: usize> Nested<F, LOW> {
    /// Encoding of the first part.
    pub const FIRST: Encoding = F::ENCODING;

    /// Half the range of the low bits.
    const HALF: i16 = 1 << (LOW - 1);

    const fn low_bytes() -> usize {
        plane_bytes(LOW, F::COLS)
    }

    /// Columns of a group.
    const GROUP_COLS: usize = match F::GROUPED {
        Some(first) => first.group_cols,
        None => panic!("an encoding with scales"),
    };

    /// Bytes of the scales, at the end of the first part.
    const SCALE_BYTES: usize = 2 * TILE_ROWS * F::COLS / Self::GROUP_COLS;

    fn pack(codes: &Codes<'_>, bytes: &mut [u8]) {
        assert_eq!((codes.levels.len(), bytes.len()), (TILE_ROWS * F::COLS, Self::BYTES));
        let unsigned = |level: i8| (i16::from(level) + 128 + Self::HALF) as u8;
        let high: Vec<i8> =
            codes.levels.iter().map(|&level| (unsigned(level) >> LOW) as i8 - (128 >> LOW) as i8).collect();
        let scales: Vec<f32> = codes.scales.iter().map(|scale| scale * (1u32 << LOW) as f32).collect();
        let (first, rest) = bytes.split_at_mut(F::BYTES);
        let grouped = F::GROUPED.expect("an encoding with scales");
        (grouped.pack)(&Codes { levels: &high, scales: &scales, ..Codes::default() }, first);
        let mut low: Vec<u8> = codes.levels.iter().map(|&level| unsigned(level) & ((1 << LOW) - 1)).collect();
        rest.fill(0);
        let (lowest, others) = rest.split_at_mut(plane_bytes(PLANE, F::COLS));
        planes::write(PLANE, F::COLS, &low, lowest);
        if LOW > PLANE {
            low.iter_mut().for_each(|code| *code >>= PLANE);
            planes::write(LOW - PLANE, F::COLS, &low, others);
        }
    }
}

impl<F: First, const LOW: usize> Tile for Nested<F, LOW> {
    const COLS: usize = F::COLS;
    const BYTES: usize = F::BYTES + Self::low_bytes();
    const OPERATION: Operation = Operation::Integer;
    const GROUPED: Option<Grouped> = Some(Grouped {
        group_cols: Self::GROUP_COLS,
        levels: SIGNED.split_at(256 - (1 << (LOW - 1))).0,
        scale: Multiplier::Fraction { shift: LOW as u32 },
        minimum: None,
        pack: Self::pack,
    });

    fn encode(weights: &[f32], bytes: &mut [u8]) {
        super::rounding::encode(&Self::GROUPED.expect("set above"), Self::COLS, weights, None, bytes);
    }

    fn decode(bytes: &[u8], weights: &mut [f32]) {
        let (first, low) = bytes.split_at(F::BYTES);
        let (high, scales) = first.split_at(F::BYTES - Self::SCALE_BYTES);
        // With scales of 1 the first part decodes to its levels.
        let mut levels = [0; MAX_NESTED_BYTES];
        let levels = &mut levels[..F::BYTES];
        levels[..high.len()].copy_from_slice(high);
        levels[high.len()..].as_chunks_mut().0.fill(f16::ONE.to_le_bytes());
        F::decode(levels, weights);
        let mut codes = [0u8; TILE_ROWS * MAX_TILE_COLS];
        let codes = &mut codes[..TILE_ROWS * F::COLS];
        let (lowest, others) = low.split_at(plane_bytes(PLANE, F::COLS));
        planes::read(PLANE, F::COLS, lowest, 0, codes);
        if LOW > PLANE {
            planes::read(LOW - PLANE, F::COLS, others, PLANE, codes);
        }
        let (whole, half) = ((1u32 << LOW) as f32, f32::from(Self::HALF));
        for (group, scales) in scales.chunks_exact(2 * TILE_ROWS).enumerate() {
            for (row, scale) in read_scales(scales).into_iter().enumerate() {
                let at = row * F::COLS + group * Self::GROUP_COLS;
                let weights = &mut weights[at..][..Self::GROUP_COLS];
                for (weight, &low) in weights.iter_mut().zip(&codes[at..]) {
                    *weight = scale / whole * (*weight * whole + f32::from(low) - half).max(-128.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Matrix;
    use crate::encode_block;

    const NESTED: [Encoding; 2] = [Encoding::Q8N4, Encoding::Q8N3];

    /// Weights of both signs; in some groups the positive ones are larger, in some as large.
    fn weights(count: usize) -> Vec<f32> {
        let at = |i: usize| (i * 37 % 101) as f32 / 100.0 - [0.3, 0.5, 0.7][i / 32 % 3];
        (0..count).map(at).collect()
    }

    #[test]
    fn the_first_part_is_the_nearest_with_fewer_bits() {
        let (rows, cols) = (37, 150);
        for encoding in NESTED {
            let weights = weights(rows * cols);
            let mut tiles = vec![0; encoding.matrix_bytes(rows as u64, cols as u64).unwrap() as usize];
            let block_bytes = tiles.len() / rows.div_ceil(TILE_ROWS);
            for (weights, block) in weights.chunks(TILE_ROWS * cols).zip(tiles.chunks_mut(block_bytes)) {
                encode_block(encoding, weights, cols, block);
            }
            let bytes = encoding.stored(tiles);
            let whole = Matrix::new(encoding, rows, cols, &bytes).unwrap();
            let first = whole.first().unwrap();
            assert_eq!((Some(first.encoding()), first.first().is_none()), (encoding.first(), true));
            assert_eq!(whole.bytes().parts[0], first.bytes().parts[0]);
            assert_eq!(whole.bytes().len(), bytes.len());
            // The widest step of a group is that of its largest weight, below 0.71.
            let low_step = 0.71 / if encoding == Encoding::Q8N4 { 7.4 } else { 3.4 };
            let (mut fine, mut coarse) = (vec![0.0; cols], vec![0.0; cols]);
            for (row, weights) in weights.chunks_exact(cols).enumerate() {
                // A band has the same rows.
                let band = whole.band(row / TILE_ROWS..row / TILE_ROWS + 1);
                band.decode_row(row % TILE_ROWS, &mut fine);
                first.decode_row(row, &mut coarse);
                for ((weight, fine), coarse) in weights.iter().zip(&fine).zip(&coarse) {
                    assert!((weight - fine).abs() <= 0.71 / 200.0, "{encoding}: {weight} became {fine}");
                    assert!((fine - coarse).abs() <= low_step / 2.0, "{encoding}: {fine} and {coarse}");
                }
            }
        }
    }

    #[test]
    fn codes_that_are_never_written_count_as_the_least() {
        for encoding in NESTED {
            let grouped = encoding.grouped().unwrap();
            let (levels, scales) = (vec![-128; TILE_ROWS * encoding.tile_cols()], vec![1.0; TILE_ROWS * 4]);
            let scales = &scales[..TILE_ROWS * encoding.tile_cols() / grouped.group_cols];
            let mut tile = vec![0; encoding.tile_bytes()];
            (grouped.pack)(&Codes { levels: &levels, scales, ..Codes::default() }, &mut tile);
            // Low bits of 0 are half a step of the first part less.
            tile[encoding.first().unwrap().tile_bytes()..].fill(0);
            let mut decoded = vec![0.0; levels.len()];
            encoding.decode(&tile, encoding.tile_cols(), 0, &mut decoded);
            assert!(decoded.iter().all(|&weight| weight == -128.0), "{encoding}");
        }
    }

    #[test]
    fn both_sides_of_a_group_fit_the_range() {
        for encoding in NESTED {
            let grouped = encoding.grouped().unwrap();
            for (low, high) in [(-1.0, 1.0), (1.0, -1.0), (-0.9, 1.0), (0.2, -1.0), (0.0, 3e-3)] {
                let mut group = vec![0.0; grouped.group_cols];
                (group[3], group[20]) = (low, high);
                let scale = super::super::rounding::fit(&grouped, &group, None).scale;
                let found = [low, high].map(|weight| {
                    let mut level = [0];
                    let affine = super::super::rounding::Affine { scale, minimum: 0.0 };
                    super::super::rounding::round(&grouped, &[weight], affine, &mut level);
                    scale * f32::from(level[0])
                });
                for (found, weight) in found.into_iter().zip([low, high]) {
                    assert!(
                        (found - weight).abs() <= 0.502 * scale.abs(),
                        "{encoding}: {weight} became {found}"
                    );
                }
            }
        }
    }
}
