//! NEON's instructions as safe functions.
//!
//! The module is compiled only where NEON belongs to the target, so register instructions are
//! always sound; loads and stores take arrays of the width they access.

use half::f16;
use std::arch::aarch64::*;
use std::arch::asm;

pub use std::arch::aarch64::{
    float32x4_t as F32x4, int8x16_t as I8x16, int16x8_t as I16x8, int32x4_t as I32x4, uint8x16_t as U8x16,
};

macro_rules! instructions {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        pub fn $name($($arg: $type),*) -> $out {
            // SAFETY: NEON is a feature of the target: see the `cfg` on this folder's `mod` line.
            unsafe { $intrinsic($($arg),*) }
        }
    )*};
}

instructions! {
    splat(value: f32) -> F32x4 = vdupq_n_f32;
    add(a: F32x4, b: F32x4) -> F32x4 = vaddq_f32;
    sub(a: F32x4, b: F32x4) -> F32x4 = vsubq_f32;
    mul(a: F32x4, b: F32x4) -> F32x4 = vmulq_f32;
    div(a: F32x4, b: F32x4) -> F32x4 = vdivq_f32;
    neg(a: F32x4) -> F32x4 = vnegq_f32;
    abs(a: F32x4) -> F32x4 = vabsq_f32;
    // NaN where either is NaN.
    min(a: F32x4, b: F32x4) -> F32x4 = vminq_f32;
    max(a: F32x4, b: F32x4) -> F32x4 = vmaxq_f32;
    // sum + a · b and sum − a · b with one rounding.
    mul_add(sum: F32x4, a: F32x4, b: F32x4) -> F32x4 = vfmaq_f32;
    mul_sub(sum: F32x4, a: F32x4, b: F32x4) -> F32x4 = vfmsq_f32;
    mul_add_scalar(sum: F32x4, a: F32x4, b: f32) -> F32x4 = vfmaq_n_f32;
    mul_scalar(a: F32x4, b: f32) -> F32x4 = vmulq_n_f32;
    add_across(a: F32x4) -> f32 = vaddvq_f32;
    max_across(a: F32x4) -> f32 = vmaxvq_f32;
    // To nearest, ties to even, saturating; NaN becomes 0.
    round(a: F32x4) -> I32x4 = vcvtnq_s32_f32;
    to_f32(a: I32x4) -> F32x4 = vcvtq_f32_s32;
    float_of_bits(a: I32x4) -> F32x4 = vreinterpretq_f32_s32;

    splat_i32(value: i32) -> I32x4 = vdupq_n_s32;
    splat_i8(value: i8) -> I8x16 = vdupq_n_s8;
    splat_u8(value: u8) -> U8x16 = vdupq_n_u8;
    sub_i8(a: I8x16, b: I8x16) -> I8x16 = vsubq_s8;
    sub_saturating(a: I8x16, b: I8x16) -> I8x16 = vqsubq_s8;
    add_i8(a: I8x16, b: I8x16) -> I8x16 = vaddq_s8;
    add_i32(a: I32x4, b: I32x4) -> I32x4 = vaddq_s32;
    and_i32(a: I32x4, b: I32x4) -> I32x4 = vandq_s32;
    left_by_12(a: I32x4) -> I32x4 = vshlq_n_s32::<12>;
    sub_i32(a: I32x4, b: I32x4) -> I32x4 = vsubq_s32;
    mul_i32(a: I32x4, b: I32x4) -> I32x4 = vmulq_s32;
    // Each by as many bits, within its byte.
    left(a: I8x16, bits: I8x16) -> I8x16 = vshlq_s8;
    halve_i32(a: I32x4) -> I32x4 = vshrq_n_s32::<1>;
    shift_to_exponent(a: I32x4) -> I32x4 = vshlq_n_s32::<23>;
    // Sums of neighbours: those of a, then those of b.
    add_pairs_i32(a: I32x4, b: I32x4) -> I32x4 = vpaddq_s32;
    add_pairs_i16(a: I16x8, b: I16x8) -> I16x8 = vpaddq_s16;
    // Sums of neighbours; the same added to `sum`.
    pairs_to_i32(a: I16x8) -> I32x4 = vpaddlq_s16;
    add_pairs_to_i32(sum: I32x4, a: I16x8) -> I32x4 = vpadalq_s16;
    add_across_i8(a: I8x16) -> i16 = vaddlvq_s8;

    low_nibbles(a: U8x16) -> I8x16 = |a| vreinterpretq_s8_u8(vandq_u8(a, vdupq_n_u8(15)));
    high_nibbles(a: U8x16) -> I8x16 = |a| vreinterpretq_s8_u8(vshrq_n_u8::<4>(a));
    and(a: U8x16, b: U8x16) -> U8x16 = vandq_u8;
    or(a: U8x16, b: U8x16) -> U8x16 = vorrq_u8;
    mul_u8(a: U8x16, b: U8x16) -> U8x16 = vmulq_u8;
    // a less b, at least 0.
    sub_to_zero(a: U8x16, b: U8x16) -> U8x16 = vqsubq_u8;
    // −1 where a ≥ b, else 0.
    at_least(a: U8x16, b: U8x16) -> I8x16 = |a, b| vreinterpretq_s8_u8(vcgeq_u8(a, b));
    left_by_7(a: U8x16) -> U8x16 = vshlq_n_u8::<7>;
    right_by_1(a: U8x16) -> U8x16 = vshrq_n_u8::<1>;
    right_by_2(a: U8x16) -> U8x16 = vshrq_n_u8::<2>;
    right_by_3(a: U8x16) -> U8x16 = vshrq_n_u8::<3>;
    right_by_4(a: U8x16) -> U8x16 = vshrq_n_u8::<4>;
    right_by_5(a: U8x16) -> U8x16 = vshrq_n_u8::<5>;
    right_by_6(a: U8x16) -> U8x16 = vshrq_n_u8::<6>;
    right_by_7(a: U8x16) -> U8x16 = vshrq_n_u8::<7>;
    // Low four bits of a, with those of b above them.
    put_above(a: U8x16, b: U8x16) -> U8x16 = vsliq_n_u8::<4>;
    // Low five bits of a, with those of b above them.
    put_above_five(a: U8x16, b: U8x16) -> U8x16 = vsliq_n_u8::<5>;
    // Low two bits of a, with those of b above them.
    put_above_two(a: U8x16, b: U8x16) -> U8x16 = vsliq_n_u8::<2>;
    // High four bits of a, with the high four of b below them.
    put_below(a: U8x16, b: U8x16) -> U8x16 = vsriq_n_u8::<4>;
    // table[index], 0 beyond its end.
    lookup(table: I8x16, index: U8x16) -> I8x16 = vqtbl1q_s8;
    signed(a: U8x16) -> I8x16 = vreinterpretq_s8_u8;
    unsigned(a: I8x16) -> U8x16 = vreinterpretq_u8_s8;
    float(a: U8x16) -> F32x4 = vreinterpretq_f32_u8;
    words_of(a: I8x16) -> I32x4 = vreinterpretq_s32_s8;
    bytes_of(a: I32x4) -> I8x16 = vreinterpretq_s8_s32;

    // The first halves of a and b; the last ones.
    low_halves(a: F32x4, b: F32x4) -> F32x4 =
        |a, b| vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
    high_halves(a: F32x4, b: F32x4) -> F32x4 =
        |a, b| vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
    low_eight(a: I8x16, b: I8x16) -> I8x16 =
        |a, b| vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
    high_eight(a: I8x16, b: I8x16) -> I8x16 =
        |a, b| vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
    // Four bytes of a and four of b, alternating: from their first halves; from their last halves.
    zip_low_words(a: I8x16, b: I8x16) -> I8x16 = |a, b| bytes_of(vzip1q_s32(words_of(a), words_of(b)));
    zip_high_words(a: I8x16, b: I8x16) -> I8x16 = |a, b| bytes_of(vzip2q_s32(words_of(a), words_of(b)));

    load_f32(from: &[f32; 4]) -> F32x4 = |from: &[f32; 4]| vld1q_f32(from.as_ptr());
    load_i32(from: &[i32; 4]) -> I32x4 = |from: &[i32; 4]| vld1q_s32(from.as_ptr());
    load_u8(from: &[u8; 16]) -> U8x16 = |from: &[u8; 16]| vld1q_u8(from.as_ptr());
    load_i8(from: &[i8; 16]) -> I8x16 = |from: &[i8; 16]| vld1q_s8(from.as_ptr());
    store_f32(to: &mut [f32; 4], value: F32x4) -> () = |to: &mut [f32; 4], value| vst1q_f32(to.as_mut_ptr(), value);
    store_i8(to: &mut [i8; 16], value: I8x16) -> () = |to: &mut [i8; 16], value| vst1q_s8(to.as_mut_ptr(), value);

    // Eight values widened to two vectors; one value.
    widen_f16_bytes(from: &[u8; 16]) -> [F32x4; 2] = |from: &[u8; 16]| widen_u16(vld1q_u16(from.as_ptr().cast()));
    widen_f16(from: &[f16; 8]) -> [F32x4; 2] = |from: &[f16; 8]| widen_u16(vld1q_u16(from.as_ptr().cast()));
    widen_one(from: f16) -> f32 =
        |from: f16| vgetq_lane_f32::<0>(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(from.to_bits()))));
    widen_i8(from: &[i8; 8]) -> [F32x4; 2] = |from: &[i8; 8]| {
        let wide = vmovl_s8(vld1_s8(from.as_ptr()));
        [vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))]
    };

    // 16 words of 16 bits, without a sign.
    widen_words(from: &[u8; 32]) -> [I32x4; 4] = |from: &[u8; 32]| {
        let [a, b] = [0, 8].map(|at| vld1q_u16(from.as_ptr().cast::<u16>().add(at)));
        [vmovl_u16(vget_low_u16(a)), vmovl_high_u16(a), vmovl_u16(vget_low_u16(b)), vmovl_high_u16(b)]
            .map(|a| vreinterpretq_s32_u32(a))
    };

    // 16 bytes as numbers.
    widen_bytes(a: I8x16) -> [F32x4; 4] = |a| {
        let (low, high) = (vmovl_s8(vget_low_s8(a)), vmovl_high_s8(a));
        [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
            .map(|a| vcvtq_f32_s32(a))
    };

    // 16 floats from the two highest bytes of each; the others are 0.
    floats_of_bytes(high: U8x16, low: U8x16) -> [F32x4; 4] = |high, low| {
        let halves = [vzip1q_u8(low, high), vzip2q_u8(low, high)].map(|a| vreinterpretq_u16_u8(a));
        let zero = vdupq_n_u16(0);
        [vzip1q_u16(zero, halves[0]), vzip2q_u16(zero, halves[0]), vzip1q_u16(zero, halves[1]), vzip2q_u16(zero, halves[1])]
            .map(|a| vreinterpretq_f32_u16(a))
    };

    // 16 numbers to bytes, saturating.
    narrow(a: [I32x4; 4]) -> I8x16 = |a: [I32x4; 4]| {
        let low = vqmovn_high_s32(vqmovn_s32(a[0]), a[1]);
        let high = vqmovn_high_s32(vqmovn_s32(a[2]), a[3]);
        vqmovn_high_s16(vqmovn_s16(low), high)
    };

    // Products of the first and of the last eight bytes.
    mul_low(a: I8x16, b: I8x16) -> I16x8 = |a, b| vmull_s8(vget_low_s8(a), vget_low_s8(b));
    mul_add_low(sum: I16x8, a: I8x16, b: I8x16) -> I16x8 =
        |sum, a, b| vmlal_s8(sum, vget_low_s8(a), vget_low_s8(b));
}

#[inline]
#[target_feature(enable = "neon")]
fn widen_u16(bits: uint16x8_t) -> [F32x4; 2] {
    let halves = vreinterpretq_f16_u16(bits);
    [vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)]
}

/// Shifts each byte right by 0 ..= 7, a number known at compile time.
#[inline(always)]
pub fn shift_right(a: U8x16, bits: usize) -> U8x16 {
    match bits {
        0 => a,
        1 => right_by_1(a),
        2 => right_by_2(a),
        3 => right_by_3(a),
        4 => right_by_4(a),
        5 => right_by_5(a),
        6 => right_by_6(a),
        _ => right_by_7(a),
    }
}

/// Products of the last eight bytes. `vmull_high_s8` would compile to two instructions.
#[inline(always)]
pub fn mul_high(a: I8x16, b: I8x16) -> I16x8 {
    let product: I16x8;
    // SAFETY: an instruction on registers alone, of every aarch64 core.
    unsafe {
        asm!("smull2 {0:v}.8h, {1:v}.16b, {2:v}.16b", out(vreg) product, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    product
}

/// `sum` + products of the last eight bytes.
#[inline(always)]
pub fn mul_add_high(mut sum: I16x8, a: I8x16, b: I8x16) -> I16x8 {
    // SAFETY: an instruction on registers alone, of every aarch64 core.
    unsafe {
        asm!("smlal2 {0:v}.8h, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Bytes `4·LANE .. 4·LANE + 4`, four times.
#[inline(always)]
pub fn repeat_four<const LANE: i32>(a: I8x16) -> I8x16 {
    let words = words_of(a);
    // SAFETY: NEON is a feature of the target: see the `cfg` on this folder's `mod` line.
    bytes_of(unsafe { vdupq_laneq_s32::<LANE>(words) })
}

/// `sum + a · b[LANE]`.
#[inline(always)]
pub fn mul_add_lane<const LANE: i32>(sum: F32x4, a: F32x4, b: F32x4) -> F32x4 {
    // SAFETY: NEON is a feature of the target: see the `cfg` on this folder's `mod` line.
    unsafe { vfmaq_laneq_f32::<LANE>(sum, a, b) }
}

/// The same reference, hidden from the optimiser: values read through it are loaded again instead
/// of being kept in registers.
#[inline(always)]
#[expect(clippy::pointers_in_nomem_asm_block, reason = "the address passes through and is not followed")]
pub fn again<T>(reference: &T) -> &T {
    let mut address: *const T = reference;
    // SAFETY: no instruction, and the register keeps its value. Not `pure`: the compiler would do
    // it once for all.
    unsafe {
        asm!("/* {0} */", inout(reg) address, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: the address of `reference`.
    unsafe { &*address }
}

/// [`again`] of a slice.
#[inline(always)]
pub fn again_bytes(bytes: &[u8]) -> &[u8] {
    let Some(first) = bytes.first() else { return bytes };
    // SAFETY: the address and the length of `bytes`.
    unsafe { std::slice::from_raw_parts(again(first), bytes.len()) }
}

/// The same value, computed here and not later: otherwise the compiler postpones the computation
/// and holds its operands in registers.
#[inline(always)]
pub fn settled(mut value: F32x4) -> F32x4 {
    // SAFETY: no instruction, and the register keeps its value.
    unsafe {
        asm!("/* {0:v} */", inout(vreg) value, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Sixteen f16 of a tile, row after row.
#[inline(always)]
pub fn widen_sixteen(bytes: &[u8; 32]) -> [F32x4; 4] {
    let [first, second] = [0, 16].map(|at| bytes[at..at + 16].first_chunk().expect("16 bytes"));
    let ([a, b], [c, d]) = (widen_f16_bytes(first), widen_f16_bytes(second));
    [a, b, c, d]
}
