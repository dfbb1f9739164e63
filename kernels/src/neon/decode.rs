//! One row block times one token: what decode spends its time in. One function for each encoding and set, so that
//! each can be found in the assembly.
//!
//! Nothing is prefetched: a band is one stream of lines in order, which the cores' own prefetchers follow.

/// For every aarch64 core.
pub mod plain {
    use super::super::{
        dot::Smull,
        q4, q8,
        tiles::{Rows, Tiles},
    };
    use crate::activations::Operand;

    /// Q8.
    #[inline(never)]
    pub fn q8(bytes: &[u8], x: Operand<'_>) -> Rows {
        let [rows] = q8::Q8(Smull).block(bytes, [x]);
        rows
    }

    /// Q4.
    #[inline(never)]
    pub fn q4(bytes: &[u8], x: Operand<'_>) -> Rows {
        let [rows] = q4::Q4(Smull).block(bytes, [x]);
        rows
    }

    /// Q4G64.
    #[inline(never)]
    pub fn q4_g64(bytes: &[u8], x: Operand<'_>) -> Rows {
        let [rows] = q4::Q4G64(Smull).block(bytes, [x]);
        rows
    }
}

/// With `sdot`.
pub mod dotprod {
    use super::super::{
        dot::Sdot,
        q4, q8,
        tiles::{Rows, Tiles},
    };
    use crate::activations::Operand;

    /// Q8.
    #[inline(never)]
    #[target_feature(enable = "dotprod")]
    pub fn q8(sdot: Sdot, bytes: &[u8], x: Operand<'_>) -> Rows {
        let [rows] = q8::Q8(sdot).block(bytes, [x]);
        rows
    }

    /// Q4.
    #[inline(never)]
    #[target_feature(enable = "dotprod")]
    pub fn q4(sdot: Sdot, bytes: &[u8], x: Operand<'_>) -> Rows {
        let [rows] = q4::Q4(sdot).block(bytes, [x]);
        rows
    }

    /// Q4G64.
    #[inline(never)]
    #[target_feature(enable = "dotprod")]
    pub fn q4_g64(sdot: Sdot, bytes: &[u8], x: Operand<'_>) -> Rows {
        let [rows] = q4::Q4G64(sdot).block(bytes, [x]);
        rows
    }
}

/// Floats, in every set.
pub mod float {
    use super::super::{
        float,
        tiles::{Rows, Tiles},
    };
    use crate::activations::Operand;

    /// F32.
    #[inline(never)]
    pub fn f32(bytes: &[u8], x: Operand<'_>) -> Rows {
        let [rows] = float::F32.block(bytes, [x]);
        rows
    }

    /// F16.
    #[inline(never)]
    pub fn f16(bytes: &[u8], x: Operand<'_>) -> Rows {
        let [rows] = float::F16.block(bytes, [x]);
        rows
    }
}
