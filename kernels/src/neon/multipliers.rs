//! Scales and minima of a tile: every [`Multiplier`] of the format has its arm here.

use super::blocks::map;
use super::lanes::*;
use crate::activations::{ACTIVATION_GROUP, HALF_GROUP};
use crate::coded::{Coded, Place};
use pith_format::encoding::{FLOAT9_EXPONENT, Multiplier};

/// Halves of a group of activations.
const HALVES: usize = ACTIVATION_GROUP / HALF_GROUP;

/// Scales of the levels in a half of a group of 32 columns, row by row. Halves differ in
/// [split](Coded::IS_SPLIT) encodings alone.
#[inline(always)]
pub fn scales<E: Coded>(tile: &[u8], group: usize, half: usize) -> [F32x4; 4] {
    multipliers::<E>(&E::SCALES, tile, HALVES * group + half)
}

/// Minima of the weights, like [`scales`]; `None` where the encoding has none, or [`zeros`].
#[inline(always)]
pub fn minima<E: Coded>(tile: &[u8], group: usize, half: usize) -> Option<[F32x4; 4]> {
    let place = E::MINIMA.as_ref().filter(|_| E::ZERO_SHIFT.is_none());
    place.map(|place| multipliers::<E>(place, tile, HALVES * group + half))
}

/// Multipliers of columns `HALF_GROUP · index ..`. The product of a factor and an f16 is exact.
#[inline(always)]
fn multipliers<E: Coded>(place: &Place, tile: &[u8], index: usize) -> [F32x4; 4] {
    match place.multiplier {
        Multiplier::Half => widen_sixteen(place.half_of::<E>(tile, index)),
        Multiplier::Fraction { shift } => map(widen_sixteen(place.half_of::<E>(tile, index)), |scales| {
            mul_scalar(scales, 1.0 / (1 << shift) as f32)
        }),
        Multiplier::Exponent => powers(load_u8(place.low_of::<E>(tile, index).0)),
        Multiplier::Float9 => map(widen_words(place.half_of::<E>(tile, index)), small_float),
        Multiplier::Zero { .. } => unreachable!("zero points are subtracted from levels"),
        Multiplier::Factors(table) => {
            let scales = widen_sixteen(place.half_of::<E>(tile, index));
            let factors = widen_bytes(factors::<E>(place, table, tile, index));
            std::array::from_fn(|q| mul(scales[q], factors[q]))
        }
    }
}

/// The zero points of a group, as they are stored.
#[inline(always)]
pub fn zeros<E: Coded>(tile: &[u8], group: usize) -> [I32x4; 4] {
    map(widen_words(E::SCALES.half_of::<E>(tile, HALVES * group)), |words| and_i32(words, splat_i32(0x7f)))
}

/// The floats in the high bits of words.
#[inline(always)]
fn small_float(words: I32x4) -> F32x4 {
    let bits = and_i32(left_by_12(words), splat_i32(0x1ff << 19));
    float_of_bits(add_i32(bits, splat_i32((FLOAT9_EXPONENT << 23).cast_signed())))
}

/// The integers of a group.
#[inline(always)]
fn factors<E: Coded>(place: &Place, table: &'static [i8], tile: &[u8], index: usize) -> I8x16 {
    let (low, shift) = place.low_of::<E>(tile, index);
    let low = load_u8(low);
    if table.len() == 256 {
        return signed(low);
    }
    let low = if shift == 0 { and(low, splat_u8(15)) } else { shift_right(low, 4) };
    if let Some(table) = table.as_array() {
        return lookup(load_i8(table), low);
    }
    let (high, shift) = place.high_of::<E>(tile, index);
    let high = shift_right(load_u8(high), shift as usize);
    let codes = signed(and(put_above(low, high), splat_u8(63)));
    let first = splat_i8(table[0]);
    if table[1] > table[0] { add_i8(codes, first) } else { sub_i8(first, codes) }
}

/// `2^(byte − 128)`; the two smallest are subnormal in f32.
#[inline(always)]
fn powers(bytes: U8x16) -> [F32x4; 4] {
    const SUBNORMAL: [i8; 16] = [0x20, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let exponents = sub_to_zero(bytes, splat_u8(1));
    let low = or(left_by_7(exponents), unsigned(lookup(load_i8(&SUBNORMAL), bytes)));
    floats_of_bytes(shift_right(exponents, 1), low)
}
