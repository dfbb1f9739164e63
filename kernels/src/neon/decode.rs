//! One row block times one token, where decode spends its time. Each integer encoding and set has
//! its own function, which the assembly names by the encoding's tile. Those of floats, the same in
//! every set, are in [`float`](super::float).
//!
//! No software prefetch: a band is one or two streams of lines in order, which the hardware
//! prefetchers follow.

use super::blocks::{Block, Rows};
use super::coded::Lines;
use super::dot::{One, Sdot};
use super::planes::Planes;
use super::smull::Smull;
use crate::activations::Operand;

/// For every aarch64 core.
#[inline(never)]
fn plain<E: Lines>(bytes: E::Bytes<'_>, x: Operand<'_>) -> Rows {
    let [rows] = Planes::<E, _>::new(Smull).multiply(bytes, [x]);
    rows
}

/// With `sdot`.
#[inline(never)]
#[target_feature(enable = "dotprod")]
fn dotprod<E: Lines>(sdot: Sdot, bytes: E::Bytes<'_>, x: Operand<'_>) -> Rows {
    let [rows] = Planes::<E, _>::new(sdot).multiply(bytes, [x]);
    rows
}

impl<E: Lines, D> One for Planes<E, D> {
    type Bytes<'a> = E::Bytes<'a>;

    #[inline(always)]
    fn plain(bytes: E::Bytes<'_>, x: Operand<'_>) -> Rows {
        plain::<E>(bytes, x)
    }

    #[inline(always)]
    fn dotprod(sdot: Sdot, bytes: E::Bytes<'_>, x: Operand<'_>) -> Rows {
        // SAFETY: a value of `Sdot` exists only where dotprod was detected.
        unsafe { dotprod::<E>(sdot, bytes, x) }
    }
}
