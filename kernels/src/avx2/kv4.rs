//! Keys and values in 4 bits: codes are looked up in a table of byte levels, which fits a register.

use super::memory::{load_kv4, load_levels, store_floats, widen_half};
use super::shuffle::transposed;
use crate::attention::STEP;
use crate::{KV4_BYTES, KV4_GROUP, KV4_LEVELS};
use half::f16;
use std::arch::x86_64::*;

/// Transposes up to 8 rows to 8 lanes per dimension.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn transpose(codes: &[u8], scales: &[f16], start: usize, out: &mut [[f32; STEP]]) {
    let groups = out.len().div_ceil(KV4_GROUP);
    let rows = || codes.chunks_exact(KV4_BYTES * groups).zip(scales.chunks_exact(groups));
    for (index, out) in out.chunks_mut(KV4_GROUP).enumerate() {
        let mut lines = [[_mm256_setzero_ps(); 8]; 4];
        for (row, (codes, scales)) in rows().enumerate() {
            let values = group(&codes.as_chunks().0[index], widen_half(scales[index]));
            for (lines, values) in lines.iter_mut().zip(values) {
                lines[row] = values;
            }
        }
        for (lines, out) in lines.into_iter().zip(out.chunks_mut(8)) {
            for (line, out) in transposed(lines).into_iter().zip(out) {
                store_floats(line, &mut out.as_chunks_mut().0[start / 8]);
            }
        }
    }
}

/// Widens a row to a padded one.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn widen(codes: &[u8], scales: &[f16], out: &mut [f32]) {
    let groups = codes.as_chunks().0.iter().zip(scales);
    for ((codes, &scale), out) in groups.zip(out.chunks_mut(KV4_GROUP)) {
        let lines = out.as_chunks_mut().0;
        for (values, out) in group(codes, widen_half(scale)).into_iter().zip(lines) {
            store_floats(values, out);
        }
    }
}

/// Values of a group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn group(codes: &[u8; KV4_BYTES], scale: f32) -> [__m256; 4] {
    let (codes, levels) = (load_kv4(codes), load_levels(&KV4_LEVELS));
    let (mask, scale) = (_mm_set1_epi8(15), _mm256_set1_ps(scale));
    let low = _mm_shuffle_epi8(levels, _mm_and_si128(codes, mask));
    let high = _mm_shuffle_epi8(levels, _mm_and_si128(_mm_srli_epi16::<4>(codes), mask));
    let eight = |bytes| _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), scale);
    [eight(low), eight(_mm_srli_si128::<8>(low)), eight(high), eight(_mm_srli_si128::<8>(high))]
}
