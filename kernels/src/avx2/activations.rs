//! Rounding activations to int8, a group of 32 in four registers.

use super::memory::{load_floats, max_lanes, store_codes};
use crate::activations::ACTIVATION_GROUP;
use std::arch::x86_64::*;

/// See [`Kernels::quantize`](crate::Kernels::quantize). `vcvtps2dq` rounds ties to even, as
/// required.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn quantize(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    assert_eq!(x.len(), codes.len());
    assert_eq!((x.len(), x.len()), (scales.len() * ACTIVATION_GROUP, sums.len() * ACTIVATION_GROUP));
    let groups = x.as_chunks::<ACTIVATION_GROUP>().0.iter().zip(codes.as_chunks_mut::<ACTIVATION_GROUP>().0);
    for ((x, codes), (scale, sum)) in groups.zip(scales.iter_mut().zip(sums)) {
        (*scale, *sum) = quantize_group(x, codes);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn quantize_group(x: &[f32; ACTIVATION_GROUP], codes: &mut [i8; ACTIVATION_GROUP]) -> (f32, i32) {
    let quarters = x.as_chunks::<8>().0;
    let sign = _mm256_set1_ps(-0.0);
    let mut largest = _mm256_setzero_ps();
    for quarter in quarters {
        largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, load_floats(quarter)));
    }
    let scale = max_lanes(largest) / 127.0;
    if scale < f32::MIN_POSITIVE {
        codes.fill(0);
        return (0.0, 0);
    }
    let inverse = _mm256_set1_ps(1.0 / scale);
    let mut whole = [_mm256_setzero_si256(); 4];
    for (whole, quarter) in whole.iter_mut().zip(quarters) {
        *whole = _mm256_cvtps_epi32(_mm256_mul_ps(load_floats(quarter), inverse));
    }
    let [a, b, c, d] = whole;
    // Packing works within 128-bit lanes; the last step restores the order of the blocks of four.
    let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    store_codes(_mm256_permutevar8x32_epi32(packed, order), codes);
    let eight = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
    let four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    (scale, _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two))))
}
