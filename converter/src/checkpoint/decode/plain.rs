//! Plain little-endian numbers: every bit pattern has one value in f32.

use half::{bf16, f16};

pub(crate) fn f32(bytes: &[u8], out: &mut [f32]) {
    for (&b, y) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *y = f32::from_le_bytes(b);
    }
}

pub(crate) fn f16(bytes: &[u8], out: &mut [f32]) {
    for (&b, y) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *y = f16::from_le_bytes(b).to_f32();
    }
}

pub(crate) fn bf16(bytes: &[u8], out: &mut [f32]) {
    for (&b, y) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *y = bf16::from_le_bytes(b).to_f32();
    }
}
