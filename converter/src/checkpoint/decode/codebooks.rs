//! ggml's codebook types: super-blocks of 256 values, in which a code names an entry of a grid.
//!
//! Entries and signs make runs of eight levels; a run has one scale. Every value is the product of
//! a scale of at most 16 bits and a level of at most 7, so nothing is rounded.

use super::blocks::scale;
use super::grids;
use pith_format::encoding::rounding::{Shared, Stored};

/// Values of a run.
const RUN: usize = 8;

/// Runs of a block.
const RUNS: usize = 32;

/// Levels of the grids of two bits. No entry has the last one.
const IQ2_LEVELS: [i8; 4] = [8, 25, 43, 0];

/// Levels of the grid of `IQ3_XXS`.
const IQ3_XXS_LEVELS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];

/// Levels of the grid of `IQ3_S`.
const IQ3_S_LEVELS: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// Eight times the levels of the grid of `IQ1_S` and `IQ1_M`. No entry has the last one.
const IQ1_LEVELS: [i8; 4] = [-8, 0, 8, 0];

/// Scale and levels of one of the 32 runs of a block.
type Run = (f32, [i8; RUN]);

/// Decodes whole blocks.
fn decode<const BYTES: usize>(bytes: &[u8], out: &mut [f32], run: impl Fn(&[u8], usize) -> Run) {
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(RUNS * RUN)) {
        for (index, out) in out.chunks_exact_mut(RUN).enumerate() {
            let (scale, levels) = run(block, index);
            out.iter_mut().zip(levels).for_each(|(out, level)| *out = scale * f32::from(level));
        }
    }
}

/// `d·(2s + 1)/8 · level`: d, then for each 32 values four entries and a word of four times seven
/// bits of signs below four bits of s.
pub(crate) fn iq2_xxs(bytes: &[u8], out: &mut [f32]) {
    decode::<66>(bytes, out, |b, run| {
        let entries = &b[2 + run / 4 * 8..][..8];
        let word = u32::from_le_bytes([entries[4], entries[5], entries[6], entries[7]]);
        let levels = pairs(grids::IQ2_XXS[usize::from(entries[run % 4])], IQ2_LEVELS);
        let signs = parity((word >> (run % 4 * 7)) as u8);
        (odd(scale(b, 0), word >> 28) / 8.0, signed(levels, signs))
    });
}

/// `d·(2s + 1)/8 · level`: d, 32 words of nine bits of an entry below seven bits of signs, eight
/// bytes of 4-bit s for 16 values each.
pub(crate) fn iq2_xs(bytes: &[u8], out: &mut [f32]) {
    decode::<74>(bytes, out, |b, run| {
        let word = u16::from_le_bytes([b[2 + 2 * run], b[3 + 2 * run]]);
        let levels = pairs(grids::IQ2_XS[usize::from(word & 511)], IQ2_LEVELS);
        (odd(scale(b, 0), nibble(&b[66..], run / 2)) / 8.0, signed(levels, parity((word >> 9) as u8)))
    });
}

/// `d·(2s + 1)/8 · level`: d, 32 low bytes of entries, 32 bytes of signs, eight bytes of the
/// entries' upper two bits, eight bytes of 4-bit s for 16 values each.
pub(crate) fn iq2_s(bytes: &[u8], out: &mut [f32]) {
    decode::<82>(bytes, out, |b, run| {
        let high = b[66 + run / 4] >> (run % 4 * 2) & 3;
        let levels = pairs(grids::IQ2_S[entry(b[2 + run], high)], IQ2_LEVELS);
        (odd(scale(b, 0), nibble(&b[74..], run / 2)) / 8.0, signed(levels, b[34 + run]))
    });
}

/// `d·(2s + 1)/4 · level`: d, 64 entries of four levels, for each 32 values a word as in
/// [`iq2_xxs`].
pub(crate) fn iq3_xxs(bytes: &[u8], out: &mut [f32]) {
    decode::<98>(bytes, out, |b, run| {
        let entries = &b[2 + 2 * run..][..2];
        let at = 66 + run / 4 * 4;
        let word = u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let [low, high] = [0, 1].map(|half| grids::IQ3_XXS[usize::from(entries[half])]);
        let signs = parity((word >> (run % 4 * 7)) as u8);
        (odd(scale(b, 0), word >> 28) / 4.0, signed(nibbles(low, high, IQ3_XXS_LEVELS), signs))
    });
}

/// `d·(2s + 1) · level`, groups of 32: d, 64 low bytes of entries of four levels, eight bytes of
/// the entries' ninth bits, 32 bytes of signs, four bytes of 4-bit s.
///
/// Groups of 16, factors of eight bits and levels from -32 to 31 hold all of it.
pub(crate) fn iq3_s(b: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared {
    for (run, levels) in levels.chunks_exact_mut(RUN).enumerate() {
        let ninth = b[66 + run / 4] >> (run % 4 * 2);
        let [low, high] = [0, 1].map(|half| grids::IQ3_S[entry(b[2 + 2 * run + half], ninth >> half & 1)]);
        levels.copy_from_slice(&signed(nibbles(low, high, IQ3_S_LEVELS), b[74 + run]));
    }
    for (group, stored) in groups.iter_mut().enumerate() {
        stored.factor = 2 * nibble(&b[106..], group / 2) as i8 + 1;
    }
    Shared { scale: scale(b, 0), minimum: 0.0 }
}

/// `d·(2s + 1) · (level ± 1/8)`: d, 32 low bytes of entries, for each 32 values a word of four
/// times three upper bits of entries below three bits of s and the sign.
pub(crate) fn iq1_s(bytes: &[u8], out: &mut [f32]) {
    decode::<50>(bytes, out, |b, run| {
        let at = 34 + run / 4 * 2;
        let word = u16::from_le_bytes([b[at], b[at + 1]]);
        let entry = entry(b[2 + run], (word >> (run % 4 * 3)) as u8 & 7);
        (odd(scale(b, 0), u32::from(word >> 12 & 7)) / 8.0, shifted(entry, word >> 15 == 1))
    });
}

/// `d·(2s + 1) · (level ± 1/8)`: 32 low bytes of entries, 32 nibbles of their upper three bits
/// below the sign, four words of four times three bits of s, for 16 values each, below a nibble
/// of d.
pub(crate) fn iq1_m(bytes: &[u8], out: &mut [f32]) {
    decode::<56>(bytes, out, |b, run| {
        let words = [0, 1, 2, 3].map(|word| u16::from_le_bytes([b[48 + 2 * word], b[49 + 2 * word]]));
        let d = words.iter().rev().fold(0, |d, word| d << 4 | word >> 12);
        let factor = words[run / 8] >> (run / 2 % 4 * 3) & 7;
        let high = nibble(&b[32..], run) as u8;
        let levels = shifted(entry(b[run], high & 7), high >> 3 == 1);
        (odd(scale(&d.to_le_bytes(), 0), u32::from(factor)) / 8.0, levels)
    });
}

/// `scale · (2 · factor + 1)`.
fn odd(scale: f32, factor: u32) -> f32 {
    scale * (2 * factor + 1) as f32
}

/// Nibble `index`, the low one of a byte first.
fn nibble(bytes: &[u8], index: usize) -> u32 {
    u32::from(bytes[index / 2] >> (index % 2 * 4) & 15)
}

/// Index of an entry.
fn entry(low: u8, high: u8) -> usize {
    usize::from(low) | usize::from(high) << 8
}

/// The eight levels of an entry of two bits each.
fn pairs(entry: u16, levels: [i8; 4]) -> [i8; RUN] {
    std::array::from_fn(|index| levels[usize::from(entry >> (2 * index) & 3)])
}

/// The levels of two entries of four levels each.
fn nibbles(low: u16, high: u16, levels: [i8; 8]) -> [i8; RUN] {
    let both = u32::from(high) << 16 | u32::from(low);
    std::array::from_fn(|index| levels[(both >> (4 * index) & 7) as usize])
}

/// Eight times the levels of an entry of the ternary grid, moved by an eighth.
fn shifted(entry: usize, down: bool) -> [i8; RUN] {
    pairs(grids::IQ1[entry], IQ1_LEVELS).map(|level| if down { level - 1 } else { level + 1 })
}

/// Eight signs from the lower seven: the number of minus signs is even.
fn parity(seven: u8) -> u8 {
    let seven = seven & 0x7F;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// Levels with the minus signs of the bits that are set.
fn signed(levels: [i8; RUN], signs: u8) -> [i8; RUN] {
    std::array::from_fn(|index| if signs >> index & 1 == 1 { -levels[index] } else { levels[index] })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checksums of the levels, as int8, by the package `gguf`: golden blocks hold only some entries.
    #[test]
    fn grids_hold_the_levels_of_ggml() {
        let of_pairs = |grid: &[u16], levels: [i8; 4]| -> Vec<i8> {
            grid.iter().flat_map(|&entry| pairs(entry, levels)).collect()
        };
        let of_nibbles = |grid: &[u16], levels: [i8; 8]| -> Vec<i8> {
            grid.iter().flat_map(|&entry| nibbles(entry, 0, levels)[..4].to_vec()).collect()
        };
        for (levels, expected) in [
            (of_pairs(&grids::IQ2_XXS, IQ2_LEVELS), 0x3de7_d625_dc4b_1f07),
            (of_pairs(&grids::IQ2_XS, IQ2_LEVELS), 0x79a3_1619_c2aa_4027),
            (of_pairs(&grids::IQ2_S, IQ2_LEVELS), 0xc521_2534_caf3_b5bf),
            (of_nibbles(&grids::IQ3_XXS, IQ3_XXS_LEVELS), 0xcb32_234e_3a15_f5a7),
            (of_nibbles(&grids::IQ3_S, IQ3_S_LEVELS), 0xcd5c_a92a_3ff6_2aa6),
            (of_pairs(&grids::IQ1, IQ1_LEVELS.map(|level| level / 8)), 0x273c_860b_28bb_b277),
        ] {
            let bytes: Vec<u8> = levels.iter().map(|&level| level as u8).collect();
            assert_eq!(pith_format::checksum(&bytes), expected, "{} levels", levels.len());
        }
    }

    #[test]
    fn the_number_of_minus_signs_is_even() {
        assert!(
            (0..128)
                .all(|seven| parity(seven).count_ones().is_multiple_of(2) && parity(seven) & 127 == seven)
        );
    }
}
