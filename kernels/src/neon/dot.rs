//! Sums of int8 products: 16 rows × 32 columns of codes with one group of activations.
//!
//! A line holds 4 columns of 16 rows, four bytes per row, so four q-registers hold 4 rows each.
//! `sdot` multiplies and sums the four bytes of a row in one instruction;
//! [`Smull`](super::smull::Smull) is for cores without it.

use super::blocks::{Group, Rows, map};
use super::lanes::*;
use crate::activations::Operand;
use crate::tiles::Tiles;
use std::arch::asm;

/// An unrolled loop. The compiler may keep a short loop rolled, with the sums in memory.
macro_rules! written_out {
    ($n:ident: $($value:literal),*; $body:expr) => {
        $({
            const $n: usize = $value;
            $body
        })*
    };
}
pub(super) use written_out;

/// Codes of 16 rows × 32 columns.
pub trait Codes: Copy {
    /// Code minus the number it stands for.
    const OFFSET: i8;
    /// Largest absolute value of a code.
    const LARGEST: i32;
    /// Whether codes are −16 ..= 16.
    const ARE_NIBBLES: bool = Self::LARGEST <= 16;
    /// Whether codes are −64 ..= 64.
    const ARE_LEVELS: bool = Self::LARGEST <= 64;

    /// Rows `4·q..4·q + 4` of columns `4·index..4·index + 4`, and the same 16 columns further;
    /// `index, q < 4`.
    fn pair(self, index: usize, q: usize) -> [I8x16; 2];

    /// [`Codes::pair`] as the numbers the codes stand for.
    #[inline(always)]
    fn signed_pair(self, index: usize, q: usize) -> [I8x16; 2] {
        let codes = self.pair(index, q);
        if Self::OFFSET == 0 { codes } else { codes.map(|codes| sub_i8(codes, splat_i8(Self::OFFSET))) }
    }
}

/// A way to sum int8 products; a value of it proves that the CPU has the instructions.
pub trait Dot: Copy + Send + Sync + 'static {
    /// Whether several tokens share one load of a line.
    const SHARES: bool;
    /// Most tokens for which the sums of 16 rows fit the registers.
    const WHOLE_TOKENS: usize;

    /// Calls `add(t, n, sums)` with `start[t] + Σ codes · x[t]` of rows `4·q..4·q + 4`, for each
    /// `q = quads[n]`.
    fn sums<C: Codes, const N: usize, const T: usize>(
        self,
        quads: [usize; N],
        codes: C,
        x: [Group<'_>; T],
        start: [i32; T],
        add: impl FnMut(usize, usize, F32x4),
    );

    /// Like [`Dot::sums`], with the sums of the first and of the last 16 columns apart.
    fn split_sums<C: Codes, const N: usize, const T: usize>(
        self,
        quads: [usize; N],
        codes: C,
        x: [Group<'_>; T],
        start: [[i32; 2]; T],
        add: impl FnMut(usize, usize, [F32x4; 2]),
    );

    /// [`Block::one`](super::blocks::Block::one) of an encoding.
    fn one<E: One>(self, bytes: E::Bytes<'_>, x: Operand<'_>) -> Rows;
}

/// The functions of one encoding for one row block and one token.
pub trait One {
    /// One block.
    type Bytes<'a>: Tiles<'a>;

    /// For every aarch64 core.
    fn plain(bytes: Self::Bytes<'_>, x: Operand<'_>) -> Rows;

    /// With `sdot`.
    fn dotprod(sdot: Sdot, bytes: Self::Bytes<'_>, x: Operand<'_>) -> Rows;
}

/// The instruction `sdot`; made only by [`Sdot::detect`].
///
/// Its integer sums start from the bits of 1.5 · 2²³, an f32 whose last bit has the value 1. Adding
/// a sum below 2²² to these bits adds the same to the float, and [`exact`] subtracts the start
/// again. That costs half of a conversion.
#[derive(Clone, Copy)]
pub struct Sdot(());

const BASE: f32 = 12_582_912.0;
const BASE_BITS: i32 = BASE.to_bits() as i32;

/// Sum of products as floats, for sums that started from [`start_of`].
#[inline(always)]
pub fn exact(sum: I32x4) -> F32x4 {
    sub(float_of_bits(sum), splat(BASE))
}

/// Empty sums. They are loaded from memory, since the load ports have spare time and the arithmetic
/// ports have none.
#[inline(always)]
pub fn start_of<const N: usize>() -> [I32x4; N] {
    again(&const { [[BASE_BITS; 4]; N] }).each_ref().map(load_i32)
}

impl Sdot {
    /// Detects the feature.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }

    /// Takes the lanes in order; with `CROSSWISE` in the order 0, 2, 1, 3.
    #[inline(always)]
    fn sum<const CROSSWISE: bool, const N: usize, const T: usize>(
        self,
        quads: [usize; N],
        codes: impl Codes,
        x: [Group<'_>; T],
        start: [I32x4; T],
        mut add: impl FnMut(usize, usize, F32x4),
    ) {
        let x = map(x, halves);
        let mut sums = [start; N];
        self.step::<0, N, T>(&mut sums, quads, codes, &x);
        if CROSSWISE {
            self.step::<2, N, T>(&mut sums, quads, codes, &x);
            self.step::<1, N, T>(&mut sums, quads, codes, &x);
        } else {
            self.step::<1, N, T>(&mut sums, quads, codes, &x);
            self.step::<2, N, T>(&mut sums, quads, codes, &x);
        }
        self.step::<3, N, T>(&mut sums, quads, codes, &x);
        written_out!(Q: 0, 1, 2, 3; if const { Q < N } {
            for (token, sum) in sums[Q].iter().enumerate() {
                add(token, Q, exact(*sum));
            }
        });
    }

    #[inline(always)]
    fn step<const LANE: i32, const N: usize, const T: usize>(
        self,
        sums: &mut [[I32x4; T]; N],
        quads: [usize; N],
        codes: impl Codes,
        x: &[Halves; T],
    ) {
        for (sums, q) in sums.iter_mut().zip(quads) {
            let codes = codes.pair(LANE as usize, q);
            for (half, codes) in codes.into_iter().enumerate() {
                for (sum, x) in sums.iter_mut().zip(x) {
                    // Many sums leave no registers for reordering by the compiler.
                    *sum = match N * T {
                        // SAFETY: `self` exists only where dotprod was detected.
                        6.. => unsafe { sdot_in_turn::<LANE>(*sum, codes, x[half]) },
                        // SAFETY: as above.
                        _ => unsafe { sdot::<LANE>(*sum, codes, x[half]) },
                    };
                }
            }
        }
    }

    #[inline(always)]
    fn split_step<const LANE: i32, const N: usize, const T: usize>(
        self,
        sums: &mut [[[I32x4; 2]; T]; N],
        quads: [usize; N],
        codes: impl Codes,
        x: &[Halves; T],
    ) {
        for (sums, q) in sums.iter_mut().zip(quads) {
            let codes = codes.pair(LANE as usize, q);
            for (sums, x) in sums.iter_mut().zip(x) {
                for half in 0..2 {
                    // SAFETY: `self` exists only where dotprod was detected.
                    sums[half] = unsafe { sdot::<LANE>(sums[half], codes[half], x[half]) };
                }
            }
        }
    }
}

/// Each `sum[i] + Σ a[4i..4i+4] · b[4·LANE..4·LANE+4]`.
#[inline]
#[target_feature(enable = "dotprod")]
pub fn sdot<const LANE: i32>(mut sum: I32x4, a: I8x16, b: I8x16) -> I32x4 {
    // SAFETY: an instruction on registers alone, of the feature that this function asks for.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]", inout(vreg) sum, in(vreg) a, in(vreg) b,
            lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// [`sdot`] in source order. The compiler does not know its latency and would put dependent
/// products side by side.
#[inline]
#[target_feature(enable = "dotprod")]
pub fn sdot_in_turn<const LANE: i32>(mut sum: I32x4, a: I8x16, b: I8x16) -> I32x4 {
    // SAFETY: an instruction on registers alone, of the feature that this function asks for; not
    // `pure`, so that it stays in its place.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]", inout(vreg) sum, in(vreg) a, in(vreg) b,
            lane = const LANE, options(nomem, nostack, preserves_flags));
    }
    sum
}

impl Dot for Sdot {
    const SHARES: bool = true;
    const WHOLE_TOKENS: usize = 2;

    #[inline(always)]
    fn sums<C: Codes, const N: usize, const T: usize>(
        self,
        quads: [usize; N],
        codes: C,
        x: [Group<'_>; T],
        start: [i32; T],
        add: impl FnMut(usize, usize, F32x4),
    ) {
        let start = map(start, |start| splat_i32(BASE_BITS + start));
        // One line of single bits serves lanes 0 and 2, another lanes 1 and 3.
        if C::ARE_NIBBLES || !C::ARE_LEVELS {
            self.sum::<false, N, T>(quads, codes, x, start, add)
        } else {
            self.sum::<true, N, T>(quads, codes, x, start, add)
        }
    }

    #[inline(always)]
    fn split_sums<C: Codes, const N: usize, const T: usize>(
        self,
        quads: [usize; N],
        codes: C,
        x: [Group<'_>; T],
        start: [[i32; 2]; T],
        mut add: impl FnMut(usize, usize, [F32x4; 2]),
    ) {
        let x = map(x, halves);
        let mut sums = [map(start, |start| map(start, |start| splat_i32(BASE_BITS + start))); N];
        self.split_step::<0, N, T>(&mut sums, quads, codes, &x);
        self.split_step::<2, N, T>(&mut sums, quads, codes, &x);
        self.split_step::<1, N, T>(&mut sums, quads, codes, &x);
        self.split_step::<3, N, T>(&mut sums, quads, codes, &x);
        written_out!(Q: 0, 1, 2, 3; if const { Q < N } {
            for (token, sums) in sums[Q].iter().enumerate() {
                add(token, Q, map(*sums, exact));
            }
        });
    }

    #[inline(always)]
    fn one<E: One>(self, bytes: E::Bytes<'_>, x: Operand<'_>) -> Rows {
        E::dotprod(self, bytes, x)
    }
}

/// 32 activations in two registers.
pub type Halves = [I8x16; 2];

/// Activations of a group.
#[inline(always)]
pub fn halves(x: Group<'_>) -> Halves {
    let (halves, _) = x.as_chunks::<16>();
    [load_i8(&halves[0]), load_i8(&halves[1])]
}
