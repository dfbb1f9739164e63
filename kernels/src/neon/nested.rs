//! Codes of nested encodings, as signed bytes: those of a first part above their low bits.

use super::coded::{Group, Half, Lines};
use super::dot::Codes;
use super::lanes::*;
use crate::coded::{Plain, plane_bytes};
use crate::tiles::Parts;
use pith_format::encoding::{First, Nested};

/// 16 rows × 32 columns of a tile.
pub struct Joined<'a, F, const LOW: usize, const PART: usize> {
    first: Group<'a, F, PART>,
    low: Half<'a, PART>,
}

impl<F, const LOW: usize, const PART: usize> Clone for Joined<'_, F, LOW, PART> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F, const LOW: usize, const PART: usize> Copy for Joined<'_, F, LOW, PART> {}

impl<F: First + Plain, const LOW: usize> Lines for Nested<F, LOW> {
    type Group<'a, const PART: usize> = Joined<'a, F, LOW, PART>;
    /// The planes of the low bits do.
    const SHARES_LINES: bool = true;

    #[inline(always)]
    fn group<const PART: usize>(tile: Self::Bytes<'_>, index: usize) -> Self::Group<'_, PART> {
        let first = if F::SHARES_LINES { index } else { 2 * index + PART };
        Joined { first: F::group::<PART>(tile.first, first), low: Half { tile: tile.low, index } }
    }

    #[inline(always)]
    fn again(tile: Self::Bytes<'_>) -> Self::Bytes<'_> {
        Parts { first: again_bytes(tile.first), low: again_bytes(tile.low) }
    }
}

impl<F: First + Plain, const LOW: usize, const PART: usize> Codes for Joined<'_, F, LOW, PART> {
    const OFFSET: i8 = 0;
    const LARGEST: i32 = 128;

    #[inline(always)]
    fn pair(self, index: usize, q: usize) -> [I8x16; 2] {
        let high = self.first.signed_pair(index, q);
        let low = match LOW {
            4 => self.low.nibbles(index, q),
            _ => self.low.with_high_plane::<1>(plane_bytes(4, F::COLS), index, q),
        };
        // Low bits are stored 2^(LOW − 1) larger. Codes that are never written become −128.
        let half = splat_i8(1 << (LOW - 1));
        let code = |low: U8x16, high: I8x16| {
            let high = unsigned(high);
            sub_saturating(
                signed(if LOW == 4 { put_above(low, high) } else { put_above_five(low, high) }),
                half,
            )
        };
        [code(low[0], high[0]), code(low[1], high[1])]
    }
}
