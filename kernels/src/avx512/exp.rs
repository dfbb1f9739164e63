//! The gated activation `x · sigmoid(x) · y`, 16 values at a time.

use super::memory::{load, store};
use std::arch::x86_64::*;

/// See [`Kernels::activate_gated`](crate::Kernels::activate_gated) with
/// [`Silu`](pith_format::ActivationFunction::Silu). Returns the values left over behind the last
/// whole 16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn silu_gated<'a>(gate: &'a mut [f32], up: &'a [f32]) -> (&'a mut [f32], &'a [f32]) {
    assert_eq!(gate.len(), up.len());
    let (lines, rest) = gate.as_chunks_mut::<16>();
    let (up_lines, up_rest) = up.as_chunks::<16>();
    for (gate, up) in lines.iter_mut().zip(up_lines) {
        let x = load(gate);
        let power = exp(_mm512_xor_ps(x, _mm512_set1_ps(-0.0)));
        let silu = _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0), power));
        store(_mm512_mul_ps(silu, load(up)), gate);
    }
    (rest, up_rest)
}

/// `e^x` to about 1.5 ε: `x = n·ln 2 + r`, a polynomial in `r`, times `2^n`. NaN stays NaN.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,fma")]
fn exp(x: __m512) -> __m512 {
    // Beyond these bounds the result is 0 or ∞ anyway. The bound is the first operand, so that NaN
    // passes.
    let x = _mm512_min_ps(_mm512_set1_ps(89.0), _mm512_max_ps(_mm512_set1_ps(-105.0), x));
    let n = _mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E));
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(n);
    // ln 2 in two parts. The first is short enough for n times it to be exact.
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), r);
    // Taylor series: |r| ≤ ½·ln 2, so the first omitted term is below 2⁻²⁷.
    let mut p = _mm512_set1_ps(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
    }
    _mm512_scalef_ps(p, n)
}
