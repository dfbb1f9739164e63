//! Assembled matrices of quantized checkpoints: an f32 scale and an i16 code for each value.

/// Bytes of a value of [`SourceType::Packed`].
pub(crate) const VALUE_BYTES: usize = 6;

/// The scale and the code of a value of `SourceType::Packed`; the value is their product.
pub(crate) fn scale_and_code(value: [u8; VALUE_BYTES]) -> (f32, i16) {
    let [a, b, c, d, low, high] = value;
    (f32::from_le_bytes([a, b, c, d]), i16::from_le_bytes([low, high]))
}

/// The decoder of `SourceType::Packed`.
pub(crate) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (&value, out) in bytes.as_chunks::<VALUE_BYTES>().0.iter().zip(out) {
        let (scale, code) = scale_and_code(value);
        *out = scale * f32::from(code);
    }
}
