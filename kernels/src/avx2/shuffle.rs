//! Rearrangements of values among registers.

use std::arch::x86_64::*;

/// Transposes 8 × 8.
#[inline]
#[target_feature(enable = "avx2")]
pub fn transposed(rows: [__m256; 8]) -> [__m256; 8] {
    let (mut pairs, mut quads, mut out) = (rows, rows, rows);
    for i in (0..8).step_by(2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    // quads[4i + c]: column c of each half, of rows 4i … 4i + 3.
    for i in (0..8).step_by(4) {
        quads[i] = _mm256_shuffle_ps::<0x44>(pairs[i], pairs[i + 2]);
        quads[i + 1] = _mm256_shuffle_ps::<0xee>(pairs[i], pairs[i + 2]);
        quads[i + 2] = _mm256_shuffle_ps::<0x44>(pairs[i + 1], pairs[i + 3]);
        quads[i + 3] = _mm256_shuffle_ps::<0xee>(pairs[i + 1], pairs[i + 3]);
    }
    for c in 0..4 {
        out[c] = _mm256_permute2f128_ps::<0x20>(quads[c], quads[c + 4]);
        out[c + 4] = _mm256_permute2f128_ps::<0x31>(quads[c], quads[c + 4]);
    }
    out
}
