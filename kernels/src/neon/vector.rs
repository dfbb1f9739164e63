//! Operations on one vector: rounding to int8, softmax, activations.

use super::lanes::*;
use crate::activations::ACTIVATION_GROUP;
use pith_format::ActivationFunction;

/// See [`Kernels::quantize`](crate::Kernels::quantize); gives the same bits as the reference.
pub fn quantize(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    assert_eq!(x.len(), codes.len());
    assert_eq!((x.len(), x.len()), (scales.len() * ACTIVATION_GROUP, sums.len() * ACTIVATION_GROUP));
    let (groups, _) = x.as_chunks::<ACTIVATION_GROUP>();
    let (code_groups, _) = codes.as_chunks_mut::<ACTIVATION_GROUP>();
    for (((x, codes), scale), sum) in groups.iter().zip(code_groups).zip(scales).zip(sums) {
        let (quads, _) = x.as_chunks::<4>();
        let largest = quads.iter().fold(splat(0.0), |largest, x| max(largest, abs(load_f32(x))));
        *scale = max_across(largest) / 127.0;
        let mut inverse = 1.0 / *scale;
        if *scale < f32::MIN_POSITIVE {
            (*scale, inverse) = (0.0, 0.0);
        }
        let (halves, _) = codes.as_chunks_mut::<16>();
        *sum = 0;
        for (quads, codes) in quads.as_chunks::<4>().0.iter().zip(halves) {
            let rounded = narrow(quads.map(|x| round(mul_scalar(load_f32(&x), inverse))));
            store_i8(codes, rounded);
            *sum += i32::from(add_across_i8(rounded));
        }
    }
}

/// See [`Kernels::softmax`](crate::Kernels::softmax).
pub fn softmax(x: &mut [f32]) {
    let mut largest = splat(f32::NEG_INFINITY);
    map(x, f32::NEG_INFINITY, |x| {
        largest = max(largest, x);
        x
    });
    let largest = splat(max_across(largest));
    let mut sum = splat(0.0);
    map(x, f32::NEG_INFINITY, |x| {
        let power = exp(sub(x, largest));
        sum = add(sum, power);
        power
    });
    let factor = 1.0 / add_across(sum);
    map(x, 0.0, |x| mul_scalar(x, factor));
}

/// See [`Kernels::activate`](crate::Kernels::activate).
pub fn activate(function: ActivationFunction, x: &mut [f32]) {
    match function {
        ActivationFunction::Silu => map(x, 0.0, silu),
        ActivationFunction::Gelu => map(x, 0.0, gelu),
        ActivationFunction::GeluTanh => map(x, 0.0, gelu_tanh),
    }
}

#[inline(always)]
fn silu(x: F32x4) -> F32x4 {
    div(x, add(splat(1.0), exp(neg(x))))
}

/// `½(1 + tanh u) = 1 / (1 + e^(−2u))`, `u = √(2/π) · (x + 0.044715·x³)`.
#[inline(always)]
fn gelu_tanh(x: F32x4) -> F32x4 {
    const TWICE_ROOT: f32 = 1.595_769;
    let inner = mul_add_scalar(splat(TWICE_ROOT), mul(x, x), TWICE_ROOT * 0.044_715);
    div(x, add(splat(1.0), exp(neg(mul(x, inner)))))
}

/// `x · Φ(x) = max(x, 0) − |x| · Φ(−|x|)`, and `Φ(−z) = e^(−z²/2) · t · P(t)` with
/// `t = 1 / (1 + 0.3 z)`.
///
/// `P` is a minimax fit: relative error 3.5e-9 over z = 0 .. 14. Beyond that the power is 0.
#[inline(always)]
fn gelu(x: F32x4) -> F32x4 {
    const P: [f32; 10] = [
        -0.020_616_789,
        0.112_398_36,
        -0.228_123_41,
        0.191_660_27,
        -0.079_316_38,
        0.096_097_05,
        0.078_411_2,
        0.110_230_595,
        0.119_572_42,
        0.119_686_656,
    ];
    let z = abs(x);
    let t = div(splat(1.0), mul_add_scalar(splat(1.0), z, 0.3));
    let polynomial = P.iter().fold(splat(0.0), |sum, &p| mul_add(splat(p), sum, t));
    // Rounding error of the square, which the power would magnify: e^(−(s + r)/2) ≈ e^(−s/2) · (1 −
    // r/2). Where the square is bounded the power is 0, and the remainder, which means nothing
    // there, is bounded too.
    let square = min(mul(z, z), splat(1000.0));
    let remainder = min(neg(mul_sub(square, z, z)), splat(1.0));
    let power = exp(mul_scalar(square, -0.5));
    let tail = mul(mul(mul_add_scalar(power, mul(power, remainder), -0.5), t), polynomial);
    mul_sub(max(x, splat(0.0)), z, tail)
}

/// `e^x` to 2 units in the last place; 0 below −104, ∞ above 88.73.
///
/// `x = n·ln 2 + r`, `e^x = 2^n · e^r`; the polynomial is fitted to relative error 3.1e-9 for |r| ≤
/// ln 2 / 2. `2^n` is applied as two factors, so that results below the smallest normal f32 are
/// right too.
#[inline(always)]
fn exp(x: F32x4) -> F32x4 {
    // ln 2 in two parts: a number of nine bits, whose multiples are exact, and the remainder.
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    const P: [f32; 5] = [0.001_381_439_6, 0.008_368_779, 0.041_668_395, 0.166_665_2, 0.499_999_93];
    let x = min(max(x, splat(-104.0)), splat(89.0));
    let n = round(mul_scalar(x, std::f32::consts::LOG2_E));
    let r = mul_add_scalar(x, to_f32(n), -LN_2[0]);
    let r = mul_add_scalar(r, to_f32(n), -LN_2[1]);
    let polynomial = P.iter().fold(splat(0.0), |sum, &p| mul_add(splat(p), sum, r));
    let power = add(splat(1.0), mul_add(r, mul(r, r), polynomial));
    let half = halve_i32(n);
    mul(mul(power, two_to_the(half)), two_to_the(sub_i32(n, half)))
}

/// `2^n`, n = −126 ..= 127.
#[inline(always)]
fn two_to_the(n: I32x4) -> F32x4 {
    float_of_bits(shift_to_exponent(add_i32(n, splat_i32(127))))
}

/// Applies `f` to four values at a time; the last ones are padded with `padding`.
#[inline(always)]
fn map(x: &mut [f32], padding: f32, mut f: impl FnMut(F32x4) -> F32x4) {
    let (quads, rest) = x.as_chunks_mut::<4>();
    for quad in quads {
        let result = f(load_f32(quad));
        store_f32(quad, result);
    }
    if !rest.is_empty() {
        let mut last = [padding; 4];
        last[..rest.len()].copy_from_slice(rest);
        let result = f(load_f32(&last));
        store_f32(&mut last, result);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    fn lanes(f: impl Fn(F32x4) -> F32x4, x: f32) -> f32 {
        let mut out = [0.0; 4];
        store_f32(&mut out, f(splat(x)));
        out[3]
    }

    #[test]
    fn exp_stays_within_two_units_in_the_last_place() {
        for step in -104_000..89_000 {
            let x = step as f32 * 1e-3 + 3e-5;
            let (found, exact) = (lanes(exp, x), f64::from(x).exp());
            if exact > f64::from(f32::MAX) {
                assert_eq!(found, f32::INFINITY, "{x}");
                continue;
            }
            let unit = (exact * f64::from(f32::EPSILON)).max(f64::from(f32::from_bits(1)));
            assert!((f64::from(found) - exact).abs() <= 2.0 * unit, "e^{x} = {exact}, found {found}");
        }
        assert_eq!([f32::NEG_INFINITY, f32::INFINITY].map(|x| lanes(exp, x)), [0.0, f32::INFINITY]);
        assert_eq!(lanes(exp, 0.0), 1.0);
    }

    #[test]
    fn gelu_stays_within_its_error() {
        for step in -15_000..15_000 {
            let x = step as f32 * 1e-3 + 3e-5;
            let (found, exact) =
                (f64::from(lanes(gelu, x)), reference::activation(ActivationFunction::Gelu, f64::from(x)));
            let bound = 8.0 * f64::from(f32::EPSILON) * exact.abs() + f64::from(f32::MIN_POSITIVE);
            assert!((found - exact).abs() <= bound, "gelu({x}) = {exact}, found {found}");
        }
        assert_eq!([1e20, -1e20, 0.0].map(|x| lanes(gelu, x)), [1e20, 0.0, 0.0]);
    }
}
