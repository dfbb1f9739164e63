//! Super-blocks of 256 values: f16 scales of integer scales of codes.
//!
//! Codes lie in runs: 32 bytes hold a run of 32 values in each of their bit fields. As in the
//! blocks of 32, a product of the three factors has at most 24 significant bits. So only the
//! subtraction of a minimum rounds, and it rounds the same way in any order, fused or not.

use super::blocks::{IQ4_LEVELS, each, scale};

/// `d·s·q − m·t`, groups of 16: 16 bytes of 4-bit (s, t), 64 bytes of 2-bit codes, d, m.
pub(crate) fn q2_k(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 84], y: &mut [f32; 256]| {
        let (scales, codes) = (&b[..16], &b[16..80]);
        let (d, m) = (scale(b, 80), scale(b, 82));
        for (group, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (step, low) = (d * f32::from(scales[group] & 15), m * f32::from(scales[group] >> 4));
            let (at, shift) = group_of_2_bits(group);
            for (y, &q) in y.iter_mut().zip(&codes[at..]) {
                *y = step * f32::from(q >> shift & 3) - low;
            }
        }
    });
}

/// `d·(s − 32)·(q − 4)`, groups of 16: 32 bytes of third bits, 64 bytes of low 2 bits, 16 scales of
/// 6 bits, d.
pub(crate) fn q3_k(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 110], y: &mut [f32; 256]| {
        let (high_bits, codes, scales) = (&b[..32], &b[32..96], &b[96..108]);
        let d = scale(b, 108);
        for (group, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let low = scales[group % 8] >> (4 * (group / 8)) & 15;
            let high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
            let step = d * (f32::from(low | high << 4) - 32.0);
            let (at, shift) = group_of_2_bits(group);
            let high_bits = &high_bits[at % 32..];
            for ((y, &q), &h) in y.iter_mut().zip(&codes[at..]).zip(high_bits) {
                let q = q >> shift & 3 | (h >> (group / 2) & 1) << 2;
                *y = step * (f32::from(q) - 4.0);
            }
        }
    });
}

/// Start of group `0..16` of 2-bit codes, and its shift: each 32 bytes hold four runs of two
/// groups.
fn group_of_2_bits(group: usize) -> (usize, usize) {
    (group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2)
}

/// `d·s·q − m·t`, groups of 32: d, m, eight (s, t) of 6 bits, 128 bytes of codes.
pub(crate) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 144], y: &mut [f32; 256]| {
        let (scales, codes) = (&b[4..16], &b[16..]);
        let (d, m) = (scale(b, 0), scale(b, 2));
        for (group, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (s, t) = scale_and_minimum(scales, group);
            let (step, low) = (d * s, m * t);
            for (y, &q) in y.iter_mut().zip(&codes[group / 2 * 32..]) {
                *y = step * f32::from(q >> (group % 2 * 4) & 15) - low;
            }
        }
    });
}

/// `d·s·q − m·t`, groups of 32: d, m, eight (s, t) of 6 bits, 32 bytes of fifth bits, 128 bytes of
/// low nibbles.
pub(crate) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 176], y: &mut [f32; 256]| {
        let (scales, high_bits, codes) = (&b[4..16], &b[16..48], &b[48..]);
        let (d, m) = (scale(b, 0), scale(b, 2));
        for (group, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (s, t) = scale_and_minimum(scales, group);
            let (step, low) = (d * s, m * t);
            for ((y, &q), &h) in y.iter_mut().zip(&codes[group / 2 * 32..]).zip(high_bits) {
                let q = q >> (group % 2 * 4) & 15 | (h >> group & 1) << 4;
                *y = step * f32::from(q) - low;
            }
        }
    });
}

/// Scale and minimum of group `0..8` from 12 bytes. The first four of each are the low 6 bits of
/// bytes 0–3 and 4–7. The others are nibbles of bytes 8–11, with their upper two bits above the
/// first ones.
fn scale_and_minimum(packed: &[u8], group: usize) -> (f32, f32) {
    let (s, t) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let nibbles = packed[group + 4];
        (nibbles & 15 | packed[group - 4] >> 6 << 4, nibbles >> 4 | packed[group] >> 6 << 4)
    };
    (f32::from(s), f32::from(t))
}

/// `d·s·(q − 32)`, groups of 16: 128 bytes of low nibbles, 64 bytes of upper 2 bits, 16 signed
/// bytes of scales, d.
pub(crate) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 210], y: &mut [f32; 256]| {
        let (low, high, scales) = (&b[..128], &b[128..192], &b[192..208]);
        let d = scale(b, 208);
        for (run, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            // Four runs share 64 bytes of low nibbles and 32 bytes of upper bits.
            let low = &low[run / 4 * 64 + run % 2 * 32..];
            let high = &high[run / 4 * 32..];
            for (j, y) in y.iter_mut().enumerate() {
                let q = low[j] >> (run % 4 / 2 * 4) & 15 | (high[j] >> (run % 4 * 2) & 3) << 4;
                let step = d * f32::from(scales[run * 2 + j / 16] as i8);
                *y = step * (f32::from(q) - 32.0);
            }
        }
    });
}

/// `d·(s − 32)·level[q]`, groups of 32: d, upper 2 bits of eight scales, their low nibbles, 128
/// bytes of codes.
pub(crate) fn iq4_xs(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 136], y: &mut [f32; 256]| {
        let (scales, codes) = (&b[4..8], &b[8..]);
        let (d, high_bits) = (scale(b, 0), u16::from_le_bytes([b[2], b[3]]));
        for (group, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = scales[group / 2] >> (group % 2 * 4) & 15;
            let high = (high_bits >> (2 * group) & 3) as u8;
            let step = d * (f32::from(low | high << 4) - 32.0);
            let (first, second) = y.split_at_mut(16);
            for ((&q, first), second) in codes[group * 16..].iter().zip(first).zip(second) {
                *first = step * IQ4_LEVELS[usize::from(q & 15)];
                *second = step * IQ4_LEVELS[usize::from(q >> 4)];
            }
        }
    });
}
