//! Rearrangements of values among registers, and the sums that need them.

use std::arch::x86_64::*;

/// Transposes 16 × 16.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn transposed(rows: [__m512; 16]) -> [__m512; 16] {
    let (mut pairs, mut quads, mut out) = (rows, rows, rows);
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    // quads[4i + c]: column c of each quarter, of rows 4i … 4i + 3.
    for i in (0..16).step_by(4) {
        let (a, b) = (_mm512_castps_pd(pairs[i]), _mm512_castps_pd(pairs[i + 2]));
        quads[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
        quads[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        let (a, b) = (_mm512_castps_pd(pairs[i + 1]), _mm512_castps_pd(pairs[i + 3]));
        quads[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
        quads[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
    for c in 0..4 {
        // Quarters 0 and 2, quarters 1 and 3, of rows 0 … 7 and of rows 8 … 15.
        let even = _mm512_shuffle_f32x4::<0x88>(quads[c], quads[c + 4]);
        let odd = _mm512_shuffle_f32x4::<0xdd>(quads[c], quads[c + 4]);
        let even_below = _mm512_shuffle_f32x4::<0x88>(quads[c + 8], quads[c + 12]);
        let odd_below = _mm512_shuffle_f32x4::<0xdd>(quads[c + 8], quads[c + 12]);
        out[c] = _mm512_shuffle_f32x4::<0x88>(even, even_below);
        out[c + 4] = _mm512_shuffle_f32x4::<0x88>(odd, odd_below);
        out[c + 8] = _mm512_shuffle_f32x4::<0xdd>(even, even_below);
        out[c + 12] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_below);
    }
    out
}

/// Quarter `i` of the result: the sums of quarter `i` of each of the four registers.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn quarter_sums(rows: [__m512; 4]) -> __m512 {
    let pair = |a: __m512, b: __m512| {
        _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)))
    };
    let (a, b) = (pair(rows[0], rows[1]), pair(rows[2], rows[3]));
    let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
    _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
}

/// Sums over the quarters of each register, register after register.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn row_sums(quads: [__m512; 4]) -> __m512 {
    let halves = |a: __m512, b: __m512| {
        _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b))
    };
    halves(halves(quads[0], quads[1]), halves(quads[2], quads[3]))
}
