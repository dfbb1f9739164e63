//! Super-blocks of 256 values: f16 scales of integer scales of codes, and ternary codes.
//!
//! Codes lie in runs: 32 bytes hold a run of 32 values in each of their bit fields. As in the
//! blocks of 32, a product of the three factors has at most 24 significant bits. So only the
//! subtraction of a minimum rounds, and it rounds the same way in any order, fused or not.

use super::blocks::{IQ4_LEVELS, nibbles, scale};
use pith_format::encoding::rounding::{Shared, Stored};

/// Factors of a group's scale and of its minimum, which is subtracted.
fn factors(scale: u8, minimum: u8) -> Stored {
    Stored { factor: scale as i8, min_factor: -(minimum as i8), ..Stored::default() }
}

/// `d·s·q − m·t`, groups of 16: 16 bytes of 4-bit (s, t), 64 bytes of 2-bit codes, d, m.
pub(crate) fn q2_k(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    let (scales, codes) = (&b[..16], &b[16..80]);
    for (group, (levels, stored)) in levels.chunks_exact_mut(16).zip(groups).enumerate() {
        *stored = factors(scales[group] & 15, scales[group] >> 4);
        let (at, shift) = group_of_2_bits(group);
        levels.iter_mut().zip(&codes[at..]).for_each(|(level, &q)| *level = (q >> shift & 3) as i8);
    }
    Shared { scale: scale(b, 80), minimum: scale(b, 82) }
}

/// `d·(s − 32)·(q − 4)`, groups of 16: 32 bytes of third bits, 64 bytes of low 2 bits, 16 scales of
/// 6 bits, d.
pub(crate) fn q3_k(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    let (high_bits, codes, scales) = (&b[..32], &b[32..96], &b[96..108]);
    for (group, (levels, stored)) in levels.chunks_exact_mut(16).zip(groups).enumerate() {
        let low = scales[group % 8] >> (4 * (group / 8)) & 15;
        let high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        stored.factor = (low | high << 4) as i8 - 32;
        let (at, shift) = group_of_2_bits(group);
        let high_bits = &high_bits[at % 32..];
        for ((level, &q), &h) in levels.iter_mut().zip(&codes[at..]).zip(high_bits) {
            *level = (q >> shift & 3 | (h >> (group / 2) & 1) << 2) as i8 - 4;
        }
    }
    Shared { scale: scale(b, 108), minimum: 0.0 }
}

/// Start of group `0..16` of 2-bit codes, and its shift: each 32 bytes hold four runs of two
/// groups.
fn group_of_2_bits(group: usize) -> (usize, usize) {
    (group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2)
}

/// `d·s·q − m·t`, groups of 32: d, m, eight (s, t) of 6 bits, 128 bytes of codes.
pub(crate) fn q4_k(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    let (scales, codes) = (&b[4..16], &b[16..]);
    for (group, (levels, stored)) in levels.chunks_exact_mut(32).zip(groups).enumerate() {
        *stored = scale_and_minimum(scales, group);
        let codes = &codes[group / 2 * 32..];
        let shift = group % 2 * 4;
        levels.iter_mut().zip(codes).for_each(|(level, &q)| *level = (q >> shift & 15) as i8);
    }
    Shared { scale: scale(b, 0), minimum: scale(b, 2) }
}

/// `d·s·q − m·t`, groups of 32: d, m, eight (s, t) of 6 bits, 32 bytes of fifth bits, 128 bytes of
/// low nibbles.
pub(crate) fn q5_k(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    let (scales, high_bits, codes) = (&b[4..16], &b[16..48], &b[48..]);
    for (group, (levels, stored)) in levels.chunks_exact_mut(32).zip(groups).enumerate() {
        *stored = scale_and_minimum(scales, group);
        let codes = codes[group / 2 * 32..].iter().zip(high_bits);
        for (level, (&q, &h)) in levels.iter_mut().zip(codes) {
            *level = (q >> (group % 2 * 4) & 15 | (h >> group & 1) << 4) as i8;
        }
    }
    Shared { scale: scale(b, 0), minimum: scale(b, 2) }
}

/// Scale and minimum of group `0..8` from 12 bytes. The first four of each are the low 6 bits of
/// bytes 0–3 and 4–7. The others are nibbles of bytes 8–11, with their upper two bits above the
/// first ones.
fn scale_and_minimum(packed: &[u8], group: usize) -> Stored {
    if group < 4 {
        return factors(packed[group] & 63, packed[group + 4] & 63);
    }
    let nibbles = packed[group + 4];
    factors(nibbles & 15 | packed[group - 4] >> 6 << 4, nibbles >> 4 | packed[group] >> 6 << 4)
}

/// `d·s·(q − 32)`, groups of 16: 128 bytes of low nibbles, 64 bytes of upper 2 bits, 16 signed
/// bytes of scales, d.
pub(crate) fn q6_k(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    let (low, high, scales) = (&b[..128], &b[128..192], &b[192..208]);
    for (run, levels) in levels.chunks_exact_mut(32).enumerate() {
        // Four runs share 64 bytes of low nibbles and 32 bytes of upper bits.
        let low = &low[run / 4 * 64 + run % 2 * 32..];
        let high = &high[run / 4 * 32..];
        for (level, (&low, &high)) in levels.iter_mut().zip(low.iter().zip(high)) {
            let q = low >> (run % 4 / 2 * 4) & 15 | (high >> (run % 4 * 2) & 3) << 4;
            *level = q as i8 - 32;
        }
    }
    groups.iter_mut().zip(scales).for_each(|(stored, &scale)| stored.factor = scale as i8);
    Shared { scale: scale(b, 208), minimum: 0.0 }
}

/// `d·(s − 32)·level[q]`, groups of 32: d, upper 2 bits of eight scales, their low nibbles, 128
/// bytes of codes.
pub(crate) fn iq4_xs(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    let (scales, codes) = (&b[4..8], &b[8..]);
    let high_bits = u16::from_le_bytes([b[2], b[3]]);
    for (group, (levels, stored)) in levels.chunks_exact_mut(32).zip(groups).enumerate() {
        let low = scales[group / 2] >> (group % 2 * 4) & 15;
        let high = (high_bits >> (2 * group) & 3) as u8;
        stored.factor = (low | high << 4) as i8 - 32;
        nibbles(&codes[group * 16..][..16], levels, |q| IQ4_LEVELS[usize::from(q)]);
    }
    Shared { scale: scale(b, 0), minimum: 0.0 }
}

/// `d·(q − 1)`: five digits of base 3 in each of 48 bytes, four in each of 4 bytes, d. The first 32
/// bytes hold five runs of 32 values, the next 16 five runs of 16, the last four runs of 4.
pub(crate) fn tq1_0(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    let (wide, rest) = levels.split_at_mut(160);
    let (narrow, last) = rest.split_at_mut(80);
    for (bytes, levels) in [(&b[..32], wide), (&b[32..48], narrow), (&b[48..52], last)] {
        let mut power = 1u8;
        for levels in levels.chunks_exact_mut(bytes.len()) {
            for (level, byte) in levels.iter_mut().zip(bytes) {
                *level = ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as i8 - 1;
            }
            power = power.wrapping_mul(3);
        }
    }
    groups[0].scale = scale(b, 52);
    Shared::default()
}

/// `d·(q − 1)`: 64 bytes of 2-bit codes, d. Each 32 bytes hold four runs.
pub(crate) fn tq2_0(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    for (run, levels) in levels.chunks_exact_mut(32).enumerate() {
        let bytes = &b[run / 4 * 32..][..32];
        let shift = run % 4 * 2;
        levels.iter_mut().zip(bytes).for_each(|(level, &q)| *level = (q >> shift & 3) as i8 - 1);
    }
    groups[0].scale = scale(b, 64);
    Shared::default()
}
