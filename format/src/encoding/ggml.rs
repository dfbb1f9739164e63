//! Encodings that hold the codes, scales and minima of ggml's types to the bit, in as many bytes.
//!
//! ```text
//!            columns  planes  groups  scales                    minima
//! Q4_1       64       4       32      f16                       f16
//! Q5_0       64       4 + 1   32      f16
//! Q5_1       64       4 + 1   32      f16                       f16
//! IQ4_NL     64       4       32      f16
//! MXFP4      64       4       32      power of two
//! Q2_K       256      2       16      f16, 4 bits a group       f16, 4 bits a group
//! Q3_K       256      2 + 1   16      f16, 6 bits a group
//! Q4_K       256      4       32      f16, 6 bits a group       f16, 6 bits a group
//! Q5_K       256      4 + 1   32      f16, 6 bits a group       f16, 6 bits a group
//! Q6_K       256      4 + 2   16      f16, 8 bits a group
//! IQ4_XS     256      4       32      f16, 6 bits a group
//! TQ2_0      256      2       256     f16
//! ```
//! `weight = scale · level + minimum`. Minima of integers are subtracted: `−minimum · integer`.
//! ggml's Q4_0 and Q8_0 are [Q4](super::Q4Tile) and [Q8](super::Q8Tile), its TQ1_0 is
//! [TQ1](super::Tq1Tile).

use super::layout::{tiles, uniform};
use super::multiplier::Multiplier::{Exponent, Half};
use super::multiplier::{BYTE, MINUS_NIBBLE, MINUS_SIX_BITS, NIBBLE, SIGNED_SIX_BITS, SIX_BITS};

/// The levels of ggml's IQ4_NL and IQ4_XS.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

tiles! {
    /// ggml's Q4_1: 640 bytes.
    Q41Tile, 64 columns, 4 + 0 bits, groups of 32, Half, Some(Half), 16 of uniform::<16>(0);
    /// ggml's Q5_0: 704 bytes.
    Q50Tile, 64 columns, 4 + 1 bits, groups of 32, Half, None, 32 of uniform::<32>(-16);
    /// ggml's Q5_1: 768 bytes.
    Q51Tile, 64 columns, 4 + 1 bits, groups of 32, Half, Some(Half), 32 of uniform::<32>(0);
    /// ggml's IQ4_NL: 576 bytes.
    Iq4NlTile, 64 columns, 4 + 0 bits, groups of 32, Half, None, 16 of IQ4;
    /// MXFP4 of the OCP Microscaling specification, its levels doubled: 544 bytes. The last code,
    /// which is never written, is 0.
    Mxfp4Tile, 64 columns, 4 + 0 bits, groups of 32, Exponent, None, 15 of [-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12, 0];
    /// ggml's Q2_K: 1344 bytes.
    Q2KTile, 256 columns, 2 + 0 bits, groups of 16, NIBBLE, Some(MINUS_NIBBLE), 4 of uniform::<4>(0);
    /// ggml's Q3_K: 1760 bytes.
    Q3KTile, 256 columns, 2 + 1 bits, groups of 16, SIGNED_SIX_BITS, None, 8 of uniform::<8>(-4);
    /// ggml's Q4_K: 2304 bytes.
    Q4KTile, 256 columns, 4 + 0 bits, groups of 32, SIX_BITS, Some(MINUS_SIX_BITS), 16 of uniform::<16>(0);
    /// ggml's Q5_K: 2816 bytes.
    Q5KTile, 256 columns, 4 + 1 bits, groups of 32, SIX_BITS, Some(MINUS_SIX_BITS), 32 of uniform::<32>(0);
    /// ggml's Q6_K: 3360 bytes.
    Q6KTile, 256 columns, 4 + 2 bits, groups of 16, BYTE, None, 64 of uniform::<64>(-32);
    /// ggml's IQ4_XS: 2176 bytes.
    Iq4XsTile, 256 columns, 4 + 0 bits, groups of 32, SIGNED_SIX_BITS, None, 16 of IQ4;
    /// ggml's TQ2_0: 1056 bytes. The last code, which rounding never chooses, is 2.
    Tq2Tile, 256 columns, 2 + 0 bits, groups of 256, Half, None, 3 of [-1, 0, 1, 2];
}
