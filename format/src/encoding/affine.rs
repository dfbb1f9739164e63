//! Encodings for weights that are rounded here: a scale and a zero point for 32 columns, in one word
//! of 16 bits.
//!
//! ```text
//!       planes   tile of 64 columns  unit of zero points
//! Q6A   4 + 2    832 bytes           1/2 level
//! Q5A   4 + 1    704 bytes           1/4 level
//! Q4A   4        576 bytes           1/8 level
//! Q3A   2 + 1    448 bytes           1/16 level
//! ```
//! `weight = scale · (level − zero)`. In the unit of the zero points, `level − zero` fits a signed
//! byte. Small models have rows of 576, 640, 896 or 960 columns: 64 divides them all, so that no
//! row is padded.

use super::layout::{tiles, uniform};
use super::multiplier::Multiplier::{Float9, Zero};

tiles! {
    /// 6-bit codes: 832 bytes.
    Q6ATile, 64 columns, 4 + 2 bits, groups of 32, Float9, Some(Zero { shift: 1 }), 64 of uniform::<64>(0);
    /// 5-bit codes: 704 bytes.
    Q5ATile, 64 columns, 4 + 1 bits, groups of 32, Float9, Some(Zero { shift: 2 }), 32 of uniform::<32>(0);
    /// 4-bit codes: 576 bytes.
    Q4ATile, 64 columns, 4 + 0 bits, groups of 32, Float9, Some(Zero { shift: 3 }), 16 of uniform::<16>(0);
    /// 3-bit codes: 448 bytes.
    Q3ATile, 64 columns, 2 + 1 bits, groups of 32, Float9, Some(Zero { shift: 4 }), 8 of uniform::<8>(0);
}
