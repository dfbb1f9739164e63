//! Norms and rope: a few passes over one vector.

use super::memory::{load_floats, padded, store_floats, sum_lanes};
use std::arch::x86_64::*;

/// See [`Kernels::rms_norm`](crate::Kernels::rms_norm).
#[target_feature(enable = "avx2,fma,f16c")]
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (weight.len(), out.len()));
    let factor = 1.0 / (sum_squares(x, 0.0) / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * factor * weight;
    }
}

/// See [`Kernels::layer_norm`](crate::Kernels::layer_norm).
#[target_feature(enable = "avx2,fma,f16c")]
pub fn layer_norm(x: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32, out: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (weight.len(), out.len()));
    let len = x.len() as f32;
    let mean = sum(x) / len;
    let factor = 1.0 / (sum_squares(x, mean) / len + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = (x - mean) * factor * weight;
    }
    if let Some(bias) = bias {
        assert_eq!(bias.len(), out.len());
        for (out, bias) in out.iter_mut().zip(bias) {
            *out += bias;
        }
    }
}

/// See [`Kernels::rope`](crate::Kernels::rope).
#[target_feature(enable = "avx2,fma,f16c")]
pub fn rope(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    assert!(sin.len() == half && 2 * half <= head_dim && x.len().is_multiple_of(head_dim));
    let (cos, cos_rest) = cos.as_chunks::<8>();
    let (sin, sin_rest) = sin.as_chunks::<8>();
    for head in x.chunks_exact_mut(head_dim) {
        let (first, second) = head.split_at_mut(half);
        let (first, first_rest) = first.as_chunks_mut::<8>();
        let (second, second_rest) = second[..half].as_chunks_mut::<8>();
        for (((first, second), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            let (a, b) = (load_floats(first), load_floats(second));
            let (cos, sin) = (load_floats(cos), load_floats(sin));
            store_floats(_mm256_fmsub_ps(a, cos, _mm256_mul_ps(b, sin)), first);
            store_floats(_mm256_fmadd_ps(b, cos, _mm256_mul_ps(a, sin)), second);
        }
        let rest = first_rest.iter_mut().zip(second_rest).zip(cos_rest).zip(sin_rest);
        for (((a, b), cos), sin) in rest {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

/// `Σ x`
#[target_feature(enable = "avx2,fma,f16c")]
fn sum(x: &[f32]) -> f32 {
    let (eights, rest) = x.as_chunks::<8>();
    let mut sums = [load_floats(&padded(rest, 0.0)), _mm256_setzero_ps()];
    for (index, x) in eights.iter().enumerate() {
        sums[index % 2] = _mm256_add_ps(sums[index % 2], load_floats(x));
    }
    sum_lanes(_mm256_add_ps(sums[0], sums[1]))
}

/// `Σ (x − mean)²`
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_squares(x: &[f32], mean: f32) -> f32 {
    let (eights, rest) = x.as_chunks::<8>();
    let center = _mm256_set1_ps(mean);
    let last = _mm256_sub_ps(load_floats(&padded(rest, mean)), center);
    let mut sums = [_mm256_mul_ps(last, last), _mm256_setzero_ps()];
    for (index, x) in eights.iter().enumerate() {
        let distance = _mm256_sub_ps(load_floats(x), center);
        sums[index % 2] = _mm256_fmadd_ps(distance, distance, sums[index % 2]);
    }
    sum_lanes(_mm256_add_ps(sums[0], sums[1]))
}
