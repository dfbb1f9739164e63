//! Sums of int8 products: 16 rows × 32 columns of codes with one group of activations.
//!
//! A line holds 4 columns of 16 rows, four bytes a row, so four q-registers hold 4 rows each. `sdot` multiplies and
//! sums the four bytes of a row in one instruction. Without it `smull` and `smlal` sum products in 16 bits, where 8
//! products of a nibble fit and 2 of a byte:
//! ```text
//! nibble   8 ·  15 · 127 = 15240, and 30480 for the sum of two lanes, below 32768
//! byte     2 · 128 · 127 = 32512; a third would not fit
//! ```

use super::lanes::*;
use super::tiles::{self, TOKENS, Tiles};
use crate::activations::Operand;
use pith_format::Matrix;
use std::arch::asm;

/// The codes of 16 rows × 32 columns.
pub trait Codes: Copy {
    /// Rows `4·q..4·q + 4` of columns `4·index..4·index + 4` and of the columns 16 further on; `index, q < 4`.
    fn pair(self, index: usize, q: usize) -> [I8x16; 2];
}

/// The activations of 32 columns, −127 ..= 127.
pub type Group = [I8x16; 2];

/// A way to sum products of int8; a value of it proves that the CPU can.
pub trait Dot: Copy + Send + Sync + 'static {
    /// Name of the kernels built on it.
    const NAME: &'static str;
    /// Tokens for which a line is loaded once.
    const TOKENS: usize;

    /// `start[t] + Σ codes · x[t]` for each row; codes 0 ..= 15.
    fn nibbles<const T: usize>(self, codes: impl Codes, x: [Group; T], start: [i32; T]) -> [[I32x4; 4]; T];

    /// `Σ codes · x[t]` for each row; codes −128 ..= 127.
    fn bytes<const T: usize>(self, codes: impl Codes, x: [Group; T]) -> [[I32x4; 4]; T];

    /// [`tiles::mat_mul`], compiled with the instructions that the sums use.
    fn mat_mul<E: Tiles>(self, tiles: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]);
}

/// The instruction `sdot`; made only by [`Sdot::detect`].
#[derive(Clone, Copy)]
pub struct Sdot(());

impl Sdot {
    /// Asks the CPU.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }

    #[inline(always)]
    fn step<const LANE: i32, const T: usize>(
        self,
        sums: &mut [[I32x4; 4]; T],
        codes: impl Codes,
        x: &[Group; T],
    ) {
        for q in 0..4 {
            let [first, second] = codes.pair(LANE as usize, q);
            for (sums, x) in sums.iter_mut().zip(x) {
                // SAFETY: `self` exists only where dotprod was detected.
                sums[q] = unsafe { sdot::<LANE>(sums[q], first, x[0]) };
                // SAFETY: as above.
                sums[q] = unsafe { sdot::<LANE>(sums[q], second, x[1]) };
            }
        }
    }

    #[inline(always)]
    fn sum<const T: usize>(
        self,
        codes: impl Codes,
        x: [Group; T],
        mut sums: [[I32x4; 4]; T],
    ) -> [[I32x4; 4]; T] {
        self.step::<0, T>(&mut sums, codes, &x);
        self.step::<1, T>(&mut sums, codes, &x);
        self.step::<2, T>(&mut sums, codes, &x);
        self.step::<3, T>(&mut sums, codes, &x);
        sums
    }
}

/// Each `sum[i] + Σ a[4i..4i+4] · b[4·LANE..4·LANE+4]`.
#[inline]
#[target_feature(enable = "dotprod")]
fn sdot<const LANE: i32>(mut sum: I32x4, a: I8x16, b: I8x16) -> I32x4 {
    // SAFETY: an instruction on registers alone, of the feature that this function asks for.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]", inout(vreg) sum, in(vreg) a, in(vreg) b,
            lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

impl Dot for Sdot {
    const NAME: &'static str = "neon-dotprod";
    const TOKENS: usize = TOKENS;

    #[inline(always)]
    fn nibbles<const T: usize>(self, codes: impl Codes, x: [Group; T], start: [i32; T]) -> [[I32x4; 4]; T] {
        self.sum(codes, x, start.map(|start| [splat_i32(start); 4]))
    }

    #[inline(always)]
    fn bytes<const T: usize>(self, codes: impl Codes, x: [Group; T]) -> [[I32x4; 4]; T] {
        self.sum(codes, x, [[splat_i32(0); 4]; T])
    }

    fn mat_mul<E: Tiles>(self, tiles: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        #[target_feature(enable = "dotprod")]
        fn with_dotprod<E: Tiles>(tiles: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
            tiles::mat_mul(tiles, w, x, y);
        }
        // SAFETY: `self` exists only where dotprod was detected.
        unsafe { with_dotprod(tiles, w, x, y) }
    }
}

/// Products widened to 16 bits, on any core.
#[derive(Clone, Copy)]
pub struct Smull;

/// 16-bit sums of four rows, four a row: two rows, then the other two.
type Wide = [I16x8; 2];

#[inline(always)]
fn multiply(codes: I8x16, x: I8x16) -> Wide {
    [mul_low(codes, x), mul_high(codes, x)]
}

#[inline(always)]
fn multiply_add(sums: Wide, codes: I8x16, x: I8x16) -> Wide {
    [mul_add_low(sums[0], codes, x), mul_add_high(sums[1], codes, x)]
}

/// The pairs of all 16 rows.
#[inline(always)]
fn pairs(codes: impl Codes, index: usize) -> [[I8x16; 2]; 4] {
    [0, 1, 2, 3].map(|q| codes.pair(index, q))
}

impl Smull {
    #[inline(always)]
    fn nibble_start<const T: usize>(codes: impl Codes, x: &[Group; T]) -> [[Wide; 4]; T] {
        let pairs = pairs(codes, 0);
        x.map(|x| {
            let x = x.map(repeat_four::<0>);
            let sums = pairs.map(|[first, _]| multiply(first, x[0]));
            std::array::from_fn(|q| multiply_add(sums[q], pairs[q][1], x[1]))
        })
    }

    #[inline(always)]
    fn nibble_step<const LANE: i32, const T: usize>(
        sums: &mut [[Wide; 4]; T],
        codes: impl Codes,
        x: &[Group; T],
    ) {
        let pairs = pairs(codes, LANE as usize);
        for (sums, x) in sums.iter_mut().zip(x) {
            for half in 0..2 {
                let x = repeat_four::<LANE>(x[half]);
                for (sums, pair) in sums.iter_mut().zip(pairs) {
                    *sums = multiply_add(*sums, pair[half], x);
                }
            }
        }
    }

    #[inline(always)]
    fn byte_step<const LANE: i32, const T: usize>(
        sums: &mut [[[I32x4; 2]; 4]; T],
        codes: impl Codes,
        x: &[Group; T],
    ) {
        let pairs = pairs(codes, LANE as usize);
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = x.map(repeat_four::<LANE>);
            let wide = pairs.map(|[first, second]| multiply_add(multiply(first, x[0]), second, x[1]));
            for (sums, [low, high]) in sums.iter_mut().zip(wide) {
                *sums = [add_pairs_to_i32(sums[0], low), add_pairs_to_i32(sums[1], high)];
            }
        }
    }
}

impl Dot for Smull {
    const NAME: &'static str = "neon";
    // The multiplier is the bottleneck: to share loads between tokens gains nothing.
    const TOKENS: usize = 1;

    #[inline(always)]
    fn nibbles<const T: usize>(self, codes: impl Codes, x: [Group; T], start: [i32; T]) -> [[I32x4; 4]; T] {
        let mut sums = Self::nibble_start(codes, &x);
        Self::nibble_step::<1, T>(&mut sums, codes, &x);
        Self::nibble_step::<2, T>(&mut sums, codes, &x);
        Self::nibble_step::<3, T>(&mut sums, codes, &x);
        std::array::from_fn(|token| {
            let start = splat_i32(start[token]);
            sums[token].map(|[low, high]| add_pairs_to_i32(start, add_pairs_i16(low, high)))
        })
    }

    #[inline(always)]
    fn bytes<const T: usize>(self, codes: impl Codes, x: [Group; T]) -> [[I32x4; 4]; T] {
        let mut sums = [[[splat_i32(0); 2]; 4]; T];
        Self::byte_step::<0, T>(&mut sums, codes, &x);
        Self::byte_step::<1, T>(&mut sums, codes, &x);
        Self::byte_step::<2, T>(&mut sums, codes, &x);
        Self::byte_step::<3, T>(&mut sums, codes, &x);
        sums.map(|sums| sums.map(|[low, high]| add_pairs_i32(low, high)))
    }

    fn mat_mul<E: Tiles>(self, tiles: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        tiles::mat_mul(tiles, w, x, y);
    }
}
