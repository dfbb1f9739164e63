//! The exponential, and softmax and the non-linearities built on it.

use super::memory::{load_floats, max_lanes, padded, store_floats, sum_lanes};
use pith_format::ActivationFunction;
use std::arch::x86_64::*;

/// See [`Kernels::softmax`](crate::Kernels::softmax).
#[target_feature(enable = "avx2,fma,f16c")]
pub fn softmax(x: &mut [f32]) {
    let (eights, rest) = x.as_chunks_mut::<8>();
    let last = load_floats(&padded(rest, f32::NEG_INFINITY));
    let mut largest = last;
    for x in eights.iter() {
        largest = _mm256_max_ps(largest, load_floats(x));
    }
    let largest = _mm256_set1_ps(max_lanes(largest));
    let last = exp(_mm256_sub_ps(last, largest));
    let mut sum = last;
    for x in eights.iter_mut() {
        let power = exp(_mm256_sub_ps(load_floats(x), largest));
        sum = _mm256_add_ps(sum, power);
        store_floats(power, x);
    }
    store_rest(last, rest);
    let factor = 1.0 / sum_lanes(sum);
    for x in x {
        *x *= factor;
    }
}

/// See [`Kernels::activate`](crate::Kernels::activate).
#[target_feature(enable = "avx2,fma,f16c")]
pub fn activate(function: ActivationFunction, x: &mut [f32]) {
    let (eights, rest) = x.as_chunks_mut::<8>();
    for x in eights {
        store_floats(apply(function, load_floats(x)), x);
    }
    store_rest(apply(function, load_floats(&padded(rest, 0.0))), rest);
}

/// See [`Kernels::activate_gated`](crate::Kernels::activate_gated).
#[target_feature(enable = "avx2,fma,f16c")]
pub fn activate_gated(function: ActivationFunction, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    let (eights, rest) = gate.as_chunks_mut::<8>();
    let (up_eights, up_rest) = up.as_chunks::<8>();
    for (gate, up) in eights.iter_mut().zip(up_eights) {
        store_floats(_mm256_mul_ps(apply(function, load_floats(gate)), load_floats(up)), gate);
    }
    let last = apply(function, load_floats(&padded(rest, 0.0)));
    store_rest(_mm256_mul_ps(last, load_floats(&padded(up_rest, 0.0))), rest);
}

/// Stores the first values, as many as `to` holds.
#[inline]
#[target_feature(enable = "avx2")]
fn store_rest(from: __m256, to: &mut [f32]) {
    let mut all = [0.0; 8];
    store_floats(from, &mut all);
    to.copy_from_slice(&all[..to.len()]);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn apply(function: ActivationFunction, x: __m256) -> __m256 {
    let negated = |x| _mm256_xor_ps(x, _mm256_set1_ps(-0.0));
    match function {
        ActivationFunction::Silu => quotient(x, negated(x)),
        ActivationFunction::GeluTanh => {
            // ½(1 + tanh u) = 1 / (1 + e^(−2u)), u = √(2/π) · x · (1 + 0.044715·x²)
            let cubic = _mm256_fmadd_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(0.044_715), _mm256_set1_ps(1.0));
            let u = _mm256_mul_ps(_mm256_mul_ps(x, _mm256_set1_ps(0.797_884_6)), cubic);
            quotient(x, negated(_mm256_add_ps(u, u)))
        }
        ActivationFunction::Gelu => {
            // x · Φ(x): Φ(−|x|) = ½·erfc(|x|/√2), Φ(|x|) = 1 − that.
            let tail = lower_tail(_mm256_andnot_ps(_mm256_set1_ps(-0.0), x));
            let body = _mm256_sub_ps(_mm256_set1_ps(1.0), tail);
            // Selects by the sign bit of x.
            _mm256_mul_ps(x, _mm256_blendv_ps(body, tail, x))
        }
    }
}

/// `x / (1 + e^power)`
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn quotient(x: __m256, power: __m256) -> __m256 {
    _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0), exp(power)))
}

/// `½·erfc(z/√2)` for `z ≥ 0`, to one ε even where it is tiny: `t·exp(−z²/2 + p(t))`,
/// `t = 1/(1 + z/√8)`, with the polynomial of Numerical Recipes' `erfcc`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn lower_tail(z: __m256) -> __m256 {
    let one = _mm256_set1_ps(1.0);
    let t = _mm256_div_ps(one, _mm256_fmadd_ps(z, _mm256_set1_ps(0.353_553_4), one));
    let mut p = _mm256_set1_ps(crate::portable::ERFC_COEFFICIENTS[0]);
    for &coefficient in &crate::portable::ERFC_COEFFICIENTS[1..] {
        p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(coefficient));
    }
    let power = _mm256_fmadd_ps(_mm256_mul_ps(z, z), _mm256_set1_ps(-0.5), p);
    _mm256_mul_ps(_mm256_mul_ps(t, _mm256_set1_ps(0.5)), exp(power))
}

/// `e^x` to about 1.5 ε: `x = n·ln 2 + r`, a polynomial in `r`, and `2^n` in two halves, so that
/// results above f32 become ∞ and those below it round to subnormals. NaN stays NaN.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn exp(x: __m256) -> __m256 {
    // Beyond these bounds the result is 0 or ∞ anyway. The bound is the first operand, so that NaN
    // passes.
    let x = _mm256_min_ps(_mm256_set1_ps(89.0), _mm256_max_ps(_mm256_set1_ps(-105.0), x));
    let n = _mm256_mul_ps(x, _mm256_set1_ps(std::f32::consts::LOG2_E));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(n);
    // ln 2 in two parts. The first is short enough for n times it to be exact.
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693_359_4), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.121_944_4e-4), r);
    // Taylor series: |r| ≤ ½·ln 2, so the first omitted term is below 2⁻²⁷.
    let mut p = _mm256_set1_ps(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(coefficient));
    }
    let n = _mm256_cvtps_epi32(n);
    let first = _mm256_srai_epi32::<1>(n);
    let power_of_two =
        |n| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))));
    _mm256_mul_ps(_mm256_mul_ps(p, power_of_two(first)), power_of_two(_mm256_sub_epi32(n, first)))
}
