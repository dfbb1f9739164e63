//! One row block times one token, where decode spends its time. Each integer encoding and set
//! has its own function, so that it can be found in the assembly. Those of floats, the same in every
//! set, are in [`float`](super::float).
//!
//! No software prefetch: a band is one stream of lines in order, which the hardware prefetchers
//! follow.

use super::blocks::Rows;
use super::coded::{Q2, Q3, Q4NL, Q5, Q6, Ternary};
use super::dot::{One, Sdot};
use super::planes::Planes;
use super::q4::{Q4, Q4G64};
use super::q8::Q8;
use crate::activations::Operand;

/// Declares both functions of each encoding from their name, the encoding's type and a value of it.
macro_rules! functions {
    ($($name:ident: $type:ty = |$dot:ident| $value:expr;)*) => {
        /// For every aarch64 core.
        pub mod plain {
            use super::super::{smull::Smull, blocks::Block};
            use super::*;

            $(
                /// See [`Block::one`].
                #[inline(never)]
                pub fn $name(bytes: &[u8], x: Operand<'_>) -> Rows {
                    let $dot = Smull;
                    let [rows] = $value.multiply(bytes, [x]);
                    rows
                }
            )*
        }

        /// With `sdot`.
        pub mod dotprod {
            use super::super::blocks::Block;
            use super::*;

            $(
                /// See [`Block::one`].
                #[inline(never)]
                #[target_feature(enable = "dotprod")]
                pub fn $name($dot: Sdot, bytes: &[u8], x: Operand<'_>) -> Rows {
                    let [rows] = $value.multiply(bytes, [x]);
                    rows
                }
            )*
        }

        $(
            impl<D> One for $type {
                #[inline(always)]
                fn plain(bytes: &[u8], x: Operand<'_>) -> Rows {
                    plain::$name(bytes, x)
                }

                #[inline(always)]
                fn dotprod(sdot: Sdot, bytes: &[u8], x: Operand<'_>) -> Rows {
                    // SAFETY: a value of `Sdot` exists only where dotprod was detected.
                    unsafe { dotprod::$name(sdot, bytes, x) }
                }
            }
        )*
    };
}

functions! {
    q8: Q8<D> = |dot| Q8(dot);
    q4: Q4<D> = |dot| Q4(dot);
    q4_g64: Q4G64<D> = |dot| Q4G64(dot);
    q6: Planes<Q6, D> = |dot| Planes(Q6, dot);
    q5: Planes<Q5, D> = |dot| Planes(Q5, dot);
    q4_nl: Planes<Q4NL, D> = |dot| Planes(Q4NL, dot);
    q3: Planes<Q3, D> = |dot| Planes(Q3, dot);
    q2: Planes<Q2, D> = |dot| Planes(Q2, dot);
    ternary: Planes<Ternary, D> = |dot| Planes(Ternary, dot);
}
