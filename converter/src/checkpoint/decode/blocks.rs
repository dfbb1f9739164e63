//! Blocks of 32 values: one f16 scale (and minimum) and 4, 5 or 8-bit codes.
//!
//! Code `j` of the first half is the low nibble of byte `j`, code `j` of the second half its high
//! nibble. Every product of code and scale has at most 19 significant bits, so it is exact in f32:
//! neither the order of operations nor a fused multiply-add changes a bit of the result.

use half::f16;

/// The 16 levels of `IQ4_NL` and `IQ4_XS`.
pub(super) const IQ4_LEVELS: [f32; 16] =
    [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];

/// Runs `block` over whole blocks of `BYTES` bytes and `LEN` values.
pub(super) fn each<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (b, y) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
        block(b, y);
    }
}

/// The f16 at `at`.
pub(super) fn scale(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// `value(code)` for the 32 nibbles of 16 bytes.
fn nibbles(codes: &[u8], out: &mut [f32; 32], value: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(16);
    for ((&q, low), high) in codes.iter().zip(low).zip(high) {
        *low = value(q & 15);
        *high = value(q >> 4);
    }
}

/// `value(code)` for 32 codes of five bits, the fifth ones in `high_bits`.
fn fives(high_bits: &[u8], codes: &[u8], out: &mut [f32; 32], value: impl Fn(u8) -> f32) {
    let high = u32::from_le_bytes([high_bits[0], high_bits[1], high_bits[2], high_bits[3]]);
    let bit = |j: usize| ((high >> j) as u8 & 1) << 4;
    for (j, &q) in codes.iter().enumerate() {
        out[j] = value(q & 15 | bit(j));
        out[j + 16] = value(q >> 4 | bit(j + 16));
    }
}

/// `d · (q − 8)`: d, 16 bytes of codes.
pub(crate) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 18], y: &mut [f32; 32]| {
        let d = scale(b, 0);
        nibbles(&b[2..], y, |q| (f32::from(q) - 8.0) * d);
    });
}

/// `d · q + m`: d, m, 16 bytes of codes.
pub(crate) fn q4_1(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 20], y: &mut [f32; 32]| {
        let (d, m) = (scale(b, 0), scale(b, 2));
        nibbles(&b[4..], y, |q| f32::from(q) * d + m);
    });
}

/// `d · (q − 16)`: d, 32 fifth bits, 16 bytes of low nibbles.
pub(crate) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 22], y: &mut [f32; 32]| {
        let d = scale(b, 0);
        fives(&b[2..6], &b[6..], y, |q| (f32::from(q) - 16.0) * d);
    });
}

/// `d · q + m`: d, m, 32 fifth bits, 16 bytes of low nibbles.
pub(crate) fn q5_1(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 24], y: &mut [f32; 32]| {
        let (d, m) = (scale(b, 0), scale(b, 2));
        fives(&b[4..8], &b[8..], y, |q| f32::from(q) * d + m);
    });
}

/// `d · q`: d, 32 signed bytes.
pub(crate) fn q8_0(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 34], y: &mut [f32; 32]| {
        let d = scale(b, 0);
        for (y, &q) in y.iter_mut().zip(&b[2..]) {
            *y = f32::from(q as i8) * d;
        }
    });
}

/// `d · level[q]`: d, 16 bytes of codes.
pub(crate) fn iq4_nl(bytes: &[u8], out: &mut [f32]) {
    each(bytes, out, |b: &[u8; 18], y: &mut [f32; 32]| {
        let d = scale(b, 0);
        nibbles(&b[2..], y, |q| d * IQ4_LEVELS[usize::from(q)]);
    });
}
