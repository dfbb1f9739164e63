//! The bytes of a block as kernels hold them: one stream of tiles, or the two parts of a nested
//! encoding.

use pith_format::Matrix;
use std::ops::Range;

/// Consecutive tiles of a block.
pub trait Tiles<'a>: Copy {
    /// No tiles.
    const NONE: Self;

    /// All tiles of a block.
    fn of_block(w: Matrix<'a>, block_index: usize) -> Self;

    /// Their bytes, by stream; the second is empty where there is one.
    fn streams(self) -> [&'a [u8]; 2];

    /// Those of the range that are there. `bytes`: of a tile in each stream.
    fn part(self, bytes: [usize; 2], tiles: Range<usize>) -> Self;

    /// Tile after tile, of so many bytes in each stream.
    fn each(self, bytes: [usize; 2]) -> impl ExactSizeIterator<Item = Self> + Clone;

    /// The stream with the scales.
    #[inline(always)]
    fn first(self) -> &'a [u8] {
        self.streams()[0]
    }

    /// Whether there are none.
    #[inline(always)]
    fn is_empty(self) -> bool {
        self.first().is_empty()
    }
}

/// Tiles of a nested encoding.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// Tiles of the first part.
    pub first: &'a [u8],
    /// As many tiles of low bits.
    pub low: &'a [u8],
}

impl<'a> Tiles<'a> for &'a [u8] {
    const NONE: Self = &[];

    #[inline(always)]
    fn of_block(w: Matrix<'a>, block_index: usize) -> Self {
        w.block(block_index)
    }

    #[inline(always)]
    fn streams(self) -> [&'a [u8]; 2] {
        [self, &[]]
    }

    #[inline(always)]
    fn part(self, bytes: [usize; 2], tiles: Range<usize>) -> Self {
        part(self, bytes[0], tiles)
    }

    #[inline(always)]
    fn each(self, bytes: [usize; 2]) -> impl ExactSizeIterator<Item = Self> + Clone {
        self.chunks_exact(bytes[0])
    }
}

impl<'a> Tiles<'a> for Parts<'a> {
    const NONE: Self = Self { first: &[], low: &[] };

    #[inline(always)]
    fn of_block(w: Matrix<'a>, block_index: usize) -> Self {
        Self { first: w.block(block_index), low: w.low_block(block_index) }
    }

    #[inline(always)]
    fn streams(self) -> [&'a [u8]; 2] {
        [self.first, self.low]
    }

    #[inline(always)]
    fn part(self, bytes: [usize; 2], tiles: Range<usize>) -> Self {
        let first = part(self.first, bytes[0], tiles.clone());
        Self { first, low: part(self.low, bytes[1], tiles) }
    }

    #[inline(always)]
    fn each(self, bytes: [usize; 2]) -> impl ExactSizeIterator<Item = Self> + Clone {
        let low = self.low.chunks_exact(bytes[1]);
        self.first.chunks_exact(bytes[0]).zip(low).map(|(first, low)| Self { first, low })
    }
}

/// The tiles of the range that are there, of `bytes` each.
#[inline(always)]
fn part(stream: &[u8], bytes: usize, tiles: Range<usize>) -> &[u8] {
    let stream = &stream[tiles.start * bytes..];
    &stream[..stream.len().min(tiles.len() * bytes)]
}
