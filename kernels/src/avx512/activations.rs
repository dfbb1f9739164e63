//! Rounding activations to int8, a group of 32 in two registers.

use super::memory::load;
use crate::activations::ACTIVATION_GROUP;
use std::arch::x86_64::*;

/// See [`Kernels::quantize`](crate::Kernels::quantize). `vcvtps2dq` rounds ties to even, as
/// required.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn quantize(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    assert_eq!(x.len(), codes.len());
    assert_eq!((x.len(), x.len()), (scales.len() * ACTIVATION_GROUP, sums.len() * ACTIVATION_GROUP));
    let groups = x.as_chunks::<ACTIVATION_GROUP>().0.iter().zip(codes.as_chunks_mut::<ACTIVATION_GROUP>().0);
    for ((x, codes), (scale, sum)) in groups.zip(scales.iter_mut().zip(sums)) {
        let halves = x.as_chunks::<16>().0;
        let (first, second) = (load(&halves[0]), load(&halves[1]));
        let largest = _mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(second));
        *scale = _mm512_reduce_max_ps(largest) / 127.0;
        if *scale < f32::MIN_POSITIVE {
            codes.fill(0);
            (*scale, *sum) = (0.0, 0);
            continue;
        }
        let inverse = _mm512_set1_ps(1.0 / *scale);
        let first = _mm512_cvtps_epi32(_mm512_mul_ps(first, inverse));
        let second = _mm512_cvtps_epi32(_mm512_mul_ps(second, inverse));
        *sum = _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
        let halves = codes.as_chunks_mut::<16>().0;
        store_codes(_mm512_cvtsepi32_epi8(first), &mut halves[0]);
        store_codes(_mm512_cvtsepi32_epi8(second), &mut halves[1]);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_codes(from: __m128i, to: &mut [i8; 16]) {
    // SAFETY: the reference covers the 16 bytes written; no alignment is asked for.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), from) }
}
