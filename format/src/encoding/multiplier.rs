//! Storage of a tile's scales and minima.
//!
//! ```text
//! Half       f16 × 16 for each group
//! Fraction   the same, times 2^−shift
//! Exponent   a byte × 16 for each group: 2^(byte − 128)
//! Factors    f16 × 16 for the tile, and an integer × 16 for each group, of 4, 6 or 8 bits:
//!   4 bits   byte 16 · (group / 2) + row, nibble group % 2
//!   6 bits   the lowest four as above, for all groups; behind them the others: byte
//!            16 · (group / 4) + row, bits 2 · (group % 4) and up
//!   8 bits   byte 16 · group + row
//! Float9     a word of 16 bits × 16 for each group, its nine high bits: five of an exponent e, four
//!            of a fraction f: 2^(e − 20) · (1 + f / 16)
//! Zero       the seven low bits of the same words
//! ```
//! Halves and words come first: those of the scales, then those of the minima. Then the integers in
//! the same order.

use super::{TILE_ROWS, read_scales, write_scales};
use half::f16;

/// How each group's scale, or its minimum, is stored.
#[derive(Clone, Copy, Debug)]
pub enum Multiplier {
    /// One f16 for each group.
    Half,
    /// One f16 for each group, times `2^−shift`.
    Fraction {
        /// See above.
        shift: u32,
    },
    /// One power of two for each group: a byte, `2^(byte − 128)`.
    Exponent,
    /// One f16 for each row of a tile, times an integer for each group. The table gives the integer
    /// of each code and has 16, 64 or 256 entries.
    Factors(&'static [i8]),
    /// One float of nine bits for each group, without a sign.
    Float9,
    /// Of minima, beside [`Float9`](Self::Float9): the zero point of each group, a number of 7 bits
    /// in units of `2^−shift` levels. The minimum is `−scale · zero · 2^−shift`.
    Zero {
        /// See above.
        shift: u32,
    },
}

/// Largest zero point.
pub const LARGEST_ZERO: i8 = 127;

/// [`Multiplier::Float9`]: exponent of f32, as it is stored, where that of the nine bits is 0. The
/// range, 2⁻²⁰ to nearly 2¹², is about that of f16 with codes of 4 bits.
pub const FLOAT9_EXPONENT: u32 = 127 - 20;

/// `0, step, 2 · step, …`, or from `first` on.
const fn steps<const COUNT: usize>(first: i16, step: i16) -> [i8; COUNT] {
    let (mut table, mut index) = ([0; COUNT], 0);
    while index < COUNT {
        table[index] = (first + step * index as i16) as i8;
        index += 1;
    }
    table
}

/// Nibbles of sign and magnitude: three bits plus 1, negative if the fourth is set.
pub(super) const SIGNED_NIBBLE: Multiplier =
    Multiplier::Factors(&[1, 2, 3, 4, 5, 6, 7, 8, -1, -2, -3, -4, -5, -6, -7, -8]);
/// 0 to 15, and 0 to −15 for minima, which are subtracted.
pub(super) const NIBBLE: Multiplier = Multiplier::Factors(&steps::<16>(0, 1));
pub(super) const MINUS_NIBBLE: Multiplier = Multiplier::Factors(&steps::<16>(0, -1));
/// 0 to 63, 0 to −63, −32 to 31.
pub(super) const SIX_BITS: Multiplier = Multiplier::Factors(&steps::<64>(0, 1));
pub(super) const MINUS_SIX_BITS: Multiplier = Multiplier::Factors(&steps::<64>(0, -1));
pub(super) const SIGNED_SIX_BITS: Multiplier = Multiplier::Factors(&steps::<64>(-32, 1));
/// −128 to 127, in two's complement.
pub(super) const BYTE: Multiplier = Multiplier::Factors(&steps::<256>(0, 1));

impl Multiplier {
    /// The integers of a group; empty where groups have none.
    pub const fn factors(&self) -> &'static [i8] {
        match self {
            Self::Factors(table) => table,
            Self::Half | Self::Fraction { .. } | Self::Exponent | Self::Float9 | Self::Zero { .. } => &[],
        }
    }

    /// Bits of a group's integer; 0 where groups have none.
    pub const fn factor_bits(&self) -> usize {
        match self.factors().len() {
            0 => 0,
            16 => 4,
            64 => 6,
            256 => 8,
            _ => panic!("factors have 4, 6 or 8 bits"),
        }
    }

    /// Bytes of the halves of a tile of `groups` groups.
    pub const fn half_bytes(&self, groups: usize) -> usize {
        match self {
            Self::Half | Self::Fraction { .. } | Self::Float9 => 2 * TILE_ROWS * groups,
            Self::Exponent | Self::Zero { .. } => 0,
            Self::Factors(_) => 2 * TILE_ROWS,
        }
    }

    /// Bytes of the integers and exponents of a tile of `groups` groups.
    pub const fn integer_bytes(&self, groups: usize) -> usize {
        match self {
            Self::Half | Self::Fraction { .. } | Self::Float9 | Self::Zero { .. } => 0,
            Self::Exponent => TILE_ROWS * groups,
            Self::Factors(_) => TILE_ROWS * groups * self.factor_bits() / 8,
        }
    }

    /// Values that a row of a tile of `groups` groups stores besides integers.
    pub const fn values(&self, groups: usize) -> usize {
        match self {
            Self::Half | Self::Fraction { .. } | Self::Exponent | Self::Float9 => groups,
            Self::Factors(_) => 1,
            Self::Zero { .. } => 0,
        }
    }

    /// Integers that a row of a tile of `groups` groups stores.
    pub const fn integers(&self, groups: usize) -> usize {
        match self {
            Self::Half | Self::Fraction { .. } | Self::Exponent | Self::Float9 => 0,
            Self::Factors(_) | Self::Zero { .. } => groups,
        }
    }

    /// The minimum of a group by its scale and zero point. Exact in f32.
    pub fn minimum(shift: u32, scale: f32, zero: i8) -> f32 {
        -(scale * f32::from(zero)) / (1u32 << shift) as f32
    }

    /// A row's value times a group's factor. Where a table begins with 0, −1, …, it is the negated
    /// product: of a factor of 0 it is −0, as subtraction of 0 has it.
    pub fn product(&self, value: f32, factor: i8) -> f32 {
        match self.factors() {
            [0, -1, ..] => -(value * f32::from(factor.unsigned_abs())),
            _ => value * f32::from(factor),
        }
    }

    /// The value nearest to `value` that a row can store.
    pub fn storable(&self, value: f32) -> f32 {
        match self {
            Self::Half | Self::Factors(_) => f16::from_f32(value.clamp(-65504.0, 65504.0)).to_f32(),
            Self::Fraction { shift } => Self::Half.storable(value * power_of(*shift)) / power_of(*shift),
            Self::Exponent => power(exponent(value)),
            Self::Float9 => small(nearest_small(value)),
            Self::Zero { .. } => 0.0,
        }
    }

    /// Writes the values (16 × [`values`](Self::values), row-major) and integers (16 × groups).
    pub(super) fn write(&self, values: &[f32], factors: &[i8], halves: &mut [u8], integers: &mut [u8]) {
        let count = values.len() / TILE_ROWS;
        match self {
            Self::Exponent => {
                for (index, value) in values.iter().enumerate() {
                    integers[TILE_ROWS * (index % count) + index / count] = exponent(*value);
                }
                return;
            }
            Self::Float9 => {
                for (index, value) in values.iter().enumerate() {
                    add_to_word(halves, index, count, nearest_small(*value) << ZERO_BITS);
                }
                return;
            }
            Self::Zero { .. } => {
                for (index, &zero) in factors.iter().enumerate() {
                    assert!(zero >= 0, "{zero} is no zero point");
                    add_to_word(halves, index, factors.len() / TILE_ROWS, u16::from(zero.unsigned_abs()));
                }
                return;
            }
            Self::Fraction { shift } => {
                let whole: Vec<f32> = values.iter().map(|value| value * power_of(*shift)).collect();
                return Self::Half.write(&whole, factors, halves, integers);
            }
            Self::Half | Self::Factors(_) => {}
        }
        for (group, out) in halves.chunks_exact_mut(2 * TILE_ROWS).enumerate() {
            write_scales(values, group, count, out);
        }
        let table = self.factors();
        let groups = factors.len() / TILE_ROWS;
        for (index, &factor) in factors.iter().enumerate() {
            let code = table.iter().position(|&known| known == factor);
            let code = code.unwrap_or_else(|| panic!("{factor} is no factor of the encoding")) as u8;
            put(self.factor_bits(), groups, index / groups, index % groups, code, integers);
        }
    }

    /// The multipliers of a group, row by row. A product of an f16 and an integer is exact in f32.
    pub(super) fn read(
        &self,
        halves: &[u8],
        integers: &[u8],
        group: usize,
        groups: usize,
    ) -> [f32; TILE_ROWS] {
        match self {
            Self::Half => read_scales(&halves[2 * TILE_ROWS * group..]),
            Self::Fraction { shift } => {
                read_scales(&halves[2 * TILE_ROWS * group..]).map(|scale| scale / power_of(*shift))
            }
            Self::Exponent => std::array::from_fn(|row| power(integers[TILE_ROWS * group + row])),
            Self::Float9 => std::array::from_fn(|row| small(word(halves, row, group) >> ZERO_BITS)),
            Self::Zero { shift } => std::array::from_fn(|row| {
                let word = word(halves, row, group);
                Self::minimum(*shift, small(word >> ZERO_BITS), (word & LARGEST_ZERO as u16) as i8)
            }),
            Self::Factors(table) => {
                let scales = read_scales(halves);
                std::array::from_fn(|row| {
                    let code = get(self.factor_bits(), groups, row, group, integers);
                    self.product(scales[row], table[usize::from(code)])
                })
            }
        }
    }
}

/// `2^shift`
fn power_of(shift: u32) -> f32 {
    (1u32 << shift) as f32
}

/// Adds a code to integers that are zero.
fn put(bits: usize, groups: usize, row: usize, group: usize, code: u8, integers: &mut [u8]) {
    if bits == 8 {
        integers[TILE_ROWS * group + row] = code;
        return;
    }
    integers[TILE_ROWS * (group / 2) + row] |= (code & 15) << (4 * (group % 2));
    if bits == 6 {
        integers[TILE_ROWS * (groups / 2 + group / 4) + row] |= (code >> 4) << (2 * (group % 4));
    }
}

fn get(bits: usize, groups: usize, row: usize, group: usize, integers: &[u8]) -> u8 {
    if bits == 8 {
        return integers[TILE_ROWS * group + row];
    }
    let low = integers[TILE_ROWS * (group / 2) + row] >> (4 * (group % 2)) & 15;
    let high = match bits {
        6 => integers[TILE_ROWS * (groups / 2 + group / 4) + row] >> (2 * (group % 4)) & 3,
        _ => 0,
    };
    low | high << 4
}

/// Bits of a word below its float.
const ZERO_BITS: u32 = 7;

/// Adds bits to the word of value `index`, row-major with `count` a row, in words of zeros.
fn add_to_word(words: &mut [u8], index: usize, count: usize, bits: u16) {
    let word = &mut words[2 * (TILE_ROWS * (index % count) + index / count)..][..2];
    word.iter_mut().zip(bits.to_le_bytes()).for_each(|(byte, bits)| *byte |= bits);
}

fn word(words: &[u8], row: usize, group: usize) -> u16 {
    let at = 2 * (TILE_ROWS * group + row);
    u16::from_le_bytes([words[at], words[at + 1]])
}

/// The float of nine bits: its exponent and fraction are those of f32, the exponent smaller by
/// [`FLOAT9_EXPONENT`].
fn small(bits: u16) -> f32 {
    f32::from_bits((u32::from(bits) << 19) + (FLOAT9_EXPONENT << 23))
}

/// The bits whose float is nearest to `value`; the smallest or largest outside their range.
fn nearest_small(value: f32) -> u16 {
    let rounded = (value.max(0.0).to_bits() + (1 << 18)) >> 19;
    let least = FLOAT9_EXPONENT << 4;
    (rounded.clamp(least, least + 511) - least) as u16
}

/// `2^(byte − 128)`; the two smallest are subnormal in f32.
fn power(byte: u8) -> f32 {
    f32::from_bits(match byte {
        0 | 1 => 0x0020_0000 << byte,
        _ => u32::from(byte - 1) << 23,
    })
}

/// The byte whose [`power`] is nearest to `value` in the logarithm; 0 for numbers up to 0.
fn exponent(value: f32) -> u8 {
    if value > 0.0 { (value.log2().round() + 128.0).clamp(0.0, 255.0) as u8 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_where_they_were_written() {
        let groups = 8;
        for multiplier in
            [SIGNED_NIBBLE, NIBBLE, MINUS_NIBBLE, SIX_BITS, MINUS_SIX_BITS, SIGNED_SIX_BITS, BYTE]
        {
            let table = multiplier.factors();
            let of = |row: usize, group: usize| table[(row * 31 + group * 7 + 3) % table.len()];
            let factors: Vec<i8> =
                (0..TILE_ROWS * groups).map(|index| of(index / groups, index % groups)).collect();
            let values: Vec<f32> = (0..TILE_ROWS).map(|row| (row + 1) as f32 / 8.0).collect();
            let mut halves = vec![0; multiplier.half_bytes(groups)];
            let mut integers = vec![0; multiplier.integer_bytes(groups)];
            multiplier.write(&values, &factors, &mut halves, &mut integers);
            for group in 0..groups {
                let found = multiplier.read(&halves, &integers, group, groups);
                for (row, found) in found.into_iter().enumerate() {
                    assert_eq!(found, values[row] * f32::from(of(row, group)), "{multiplier:?}");
                }
            }
        }
    }

    #[test]
    fn small_floats_are_the_nearest() {
        for bits in 0..512 {
            let (exponent, fraction) = (f64::from(bits >> 4) - 20.0, f64::from(bits & 15) / 16.0);
            assert_eq!(f64::from(small(bits)), exponent.exp2() * (1.0 + fraction));
            assert_eq!(nearest_small(small(bits)), bits);
            if bits > 0 {
                let middle = (small(bits) + small(bits - 1)) / 2.0;
                assert_eq!(nearest_small(middle * 1.0001), bits);
                assert_eq!(nearest_small(middle * 0.9999), bits - 1);
            }
        }
        assert_eq!((nearest_small(0.0), nearest_small(-1.0), nearest_small(1e30)), (0, 0, 511));
    }

    #[test]
    fn zeros_share_the_words_of_scales() {
        let (groups, zero) = (2, Multiplier::Zero { shift: 3 });
        let scales: Vec<f32> = (0..TILE_ROWS * groups).map(|index| small(100 + index as u16)).collect();
        let zeros: Vec<i8> = (0..TILE_ROWS * groups).map(|index| (index * 4) as i8).collect();
        let mut words = vec![0; Multiplier::Float9.half_bytes(groups)];
        Multiplier::Float9.write(&scales, &[], &mut words, &mut []);
        zero.write(&[], &zeros, &mut words, &mut []);
        for group in 0..groups {
            let of = |row: usize| row * groups + group;
            let (scale, minimum) =
                (Multiplier::Float9.read(&words, &[], group, groups), zero.read(&words, &[], group, groups));
            for row in 0..TILE_ROWS {
                assert_eq!(scale[row], scales[of(row)]);
                assert_eq!(minimum[row], -scales[of(row)] * f32::from(zeros[of(row)]) / 8.0);
            }
        }
    }

    #[test]
    fn exponents_are_powers_of_two() {
        for byte in 0..=255 {
            assert_eq!(power(byte), (f64::from(byte) - 128.0).exp2() as f32);
            assert_eq!(exponent(power(byte)), byte);
        }
        assert_eq!((exponent(0.0), exponent(-1.0), exponent(f32::MAX)), (0, 0, 255));
    }
}
