//! Blocks of 32 values, some of 64 or 128: one scale (and minimum) and codes of 1 to 8 bits.
//!
//! Code `j` of the first half is the low nibble of byte `j`, code `j` of the second half its high
//! nibble. Codes of 1 and 2 bits are in order, the first one lowest.

use half::f16;
use pith_format::encoding::rounding::{Shared, Stored};

/// Levels of the sixteen codes of `IQ4_NL` and `IQ4_XS`.
pub(super) const IQ4_LEVELS: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Levels of the sixteen codes of `MXFP4`: twice its numbers. Code 8, minus zero, is zero.
const FP4_LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The f16 at `at`.
pub(super) fn scale(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// `level(code)` for the 32 nibbles of 16 bytes.
pub(super) fn nibbles(codes: &[u8], levels: &mut [i8], level: impl Fn(u8) -> i8) {
    let (low, high) = levels.split_at_mut(16);
    for ((&q, low), high) in codes.iter().zip(low).zip(high) {
        *low = level(q & 15);
        *high = level(q >> 4);
    }
}

/// `code − offset` for 32 codes of five bits, the fifth ones in `high_bits`.
fn fives(high_bits: &[u8], codes: &[u8], levels: &mut [i8], offset: i8) {
    let high = u32::from_le_bytes([high_bits[0], high_bits[1], high_bits[2], high_bits[3]]);
    let bit = |j: usize| ((high >> j) as u8 & 1) << 4;
    for (j, &q) in codes.iter().enumerate() {
        levels[j] = (q & 15 | bit(j)) as i8 - offset;
        levels[j + 16] = (q >> 4 | bit(j + 16)) as i8 - offset;
    }
}

/// Stores the parameters of the one group of a block.
fn one_group(groups: &mut [Stored], scale: f32, minimum: f32) -> Shared {
    groups[0] = Stored { scale, minimum, ..Stored::default() };
    Shared::default()
}

/// `d · (q − 8)`: d, 16 bytes of codes.
pub(crate) fn q4_0(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    nibbles(&b[2..], levels, |q| q as i8 - 8);
    one_group(groups, scale(b, 0), 0.0)
}

/// `d · q + m`: d, m, 16 bytes of codes.
pub(crate) fn q4_1(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    nibbles(&b[4..], levels, |q| q as i8);
    one_group(groups, scale(b, 0), scale(b, 2))
}

/// `d · (q − 16)`: d, 32 fifth bits, 16 bytes of low nibbles.
pub(crate) fn q5_0(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    fives(&b[2..6], &b[6..], levels, 16);
    one_group(groups, scale(b, 0), 0.0)
}

/// `d · q + m`: d, m, 32 fifth bits, 16 bytes of low nibbles.
pub(crate) fn q5_1(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    fives(&b[4..8], &b[8..], levels, 0);
    one_group(groups, scale(b, 0), scale(b, 2))
}

/// `d · q`: d, 32 signed bytes.
pub(crate) fn q8_0(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    levels.iter_mut().zip(&b[2..]).for_each(|(level, &q)| *level = q as i8);
    one_group(groups, scale(b, 0), 0.0)
}

/// `d · level[q]`: d, 16 bytes of codes.
pub(crate) fn iq4_nl(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    nibbles(&b[2..], levels, |q| IQ4_LEVELS[usize::from(q)]);
    one_group(groups, scale(b, 0), 0.0)
}

/// `2^(e − 128) · level[q]`: e, 16 bytes of codes.
pub(crate) fn mxfp4(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    nibbles(&b[1..], levels, |q| FP4_LEVELS[usize::from(q)]);
    // The smallest two are subnormal.
    let bits = if b[0] < 2 { 0x0020_0000 << b[0] } else { u32::from(b[0] - 1) << 23 };
    one_group(groups, f32::from_bits(bits), 0.0)
}

/// `d · (2q − 1)`, 128 values: d, 16 bytes of bits.
pub(crate) fn q1_0(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    for (levels, &bits) in levels.chunks_exact_mut(8).zip(&b[2..]) {
        levels.iter_mut().enumerate().for_each(|(j, level)| *level = (bits >> j & 1) as i8 * 2 - 1);
    }
    one_group(groups, scale(b, 0), 0.0)
}

/// `d · (q − 1)`, 64 values: d, 16 bytes of 2-bit codes.
pub(crate) fn q2_0(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    for (levels, &codes) in levels.chunks_exact_mut(4).zip(&b[2..]) {
        levels.iter_mut().enumerate().for_each(|(j, level)| *level = (codes >> (2 * j) & 3) as i8 - 1);
    }
    one_group(groups, scale(b, 0), 0.0)
}

/// `d · level[q] / 2`, four groups of 16: four bytes of d as unsigned E4M3, 32 bytes of codes.
pub(crate) fn nvfp4(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in bytes.chunks_exact(36).zip(out.chunks_exact_mut(64)) {
        let groups = out.chunks_exact_mut(16).zip(b[4..].chunks_exact(8));
        for ((out, codes), &scale) in groups.zip(&b[..4]) {
            let (low, high) = out.split_at_mut(8);
            let value = |q: u8| e4m3(scale) / 2.0 * f32::from(FP4_LEVELS[usize::from(q)]);
            for ((&q, low), high) in codes.iter().zip(low).zip(high) {
                *low = value(q & 15);
                *high = value(q >> 4);
            }
        }
    }
}

/// The number of an unsigned E4M3. As in ggml, 0x7F is zero and the eighth bit counts nowhere else.
fn e4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (u32::from(byte >> 3 & 15), f32::from(byte & 7));
    match exponent {
        _ if byte == 0x7F => 0.0,
        0 => fraction / 512.0,
        _ => (1.0 + fraction / 8.0) * f32::from_bits((exponent + 120) << 23),
    }
}
