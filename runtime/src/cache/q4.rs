//! Rounding of a head's row to 4 bits, in groups of 32 codes. A code picks one of 16 levels; the
//! value is the level times the group's scale.
//!
//! A few large numbers would make the scale too coarse for the others of their group. Rows are
//! therefore [spread] first: every number becomes a signed sum of all numbers of its group. Queries
//! are spread too, which leaves the scores unchanged; mixes of values are spread back.

use super::{MAX_F16, saturating_f16};
use half::f16;
use pith_kernels::{KV4_BYTES, KV4_GROUP, KV4_LEVELS};

/// Candidates for the group's largest number, in units of its scale. The levels reach further on
/// one side and lie closer together on the other, and numbers a little beyond them lose nothing.
/// The candidate with the least error is taken.
const PEAKS: [f32; 4] = [-127.0, -115.0, 113.0, 125.0];

/// Code of the level nearest to each integer from −128 to 127, indexed by its byte.
const NEAREST: [u8; 256] = {
    let (mut codes, mut byte) = ([0; 256], 0);
    while byte < 256 {
        let number = (byte as u8).cast_signed() as i32;
        let mut code = 1;
        while code < 16 {
            let (best, level) = (KV4_LEVELS[codes[byte] as usize] as i32, KV4_LEVELS[code] as i32);
            if (level - number).abs() < (best - number).abs() {
                codes[byte] = code as u8;
            }
            code += 1;
        }
        byte += 1;
    }
    codes
};

/// Number of groups in a row.
pub fn groups(head_dim: usize) -> usize {
    head_dim.div_ceil(KV4_GROUP)
}

/// Multiplies each group of each row by a Hadamard matrix, orthonormal and its own inverse. The
/// numbers after the last whole group are split into parts of 16, 8, 4, 2 and 1.
pub fn spread(head_dim: usize, x: &mut [f32]) {
    for row in x.chunks_exact_mut(head_dim) {
        let (groups, mut rest) = row.as_chunks_mut::<KV4_GROUP>();
        for group in groups {
            spread_group(group);
        }
        while !rest.is_empty() {
            let (block, behind) = rest.split_at_mut(1 << rest.len().ilog2());
            spread_block(block);
            rest = behind;
        }
    }
}

/// [`spread`] of one group. Five steps interleave the sums and differences of its halves; the final
/// order is the original one, and each step is the same few vector instructions.
#[inline]
fn spread_group(group: &mut [f32; KV4_GROUP]) {
    let mut from = *group;
    for _ in 0..KV4_GROUP.ilog2() {
        let mut to = [0.0; KV4_GROUP];
        let (first, second) = from.split_at(KV4_GROUP / 2);
        for ((to, a), b) in to.as_chunks_mut::<2>().0.iter_mut().zip(first).zip(second) {
            *to = [a + b, a - b];
        }
        from = to;
    }
    let factor = 1.0 / (KV4_GROUP as f32).sqrt();
    *group = from.map(|value| value * factor);
}

/// [`spread`] of one block, whose length is a power of two.
fn spread_block(block: &mut [f32]) {
    let mut half = block.len() / 2;
    while half > 0 {
        for pair in block.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half /= 2;
    }
    let factor = 1.0 / (block.len() as f32).sqrt();
    block.iter_mut().for_each(|value| *value *= factor);
}

/// Rounds a row. `codes` and `scales` belong to its groups.
pub fn store(values: &[f32], codes: &mut [u8], scales: &mut [u16]) {
    let groups = codes.as_chunks_mut().0.iter_mut().zip(scales);
    for ((codes, scale), values) in groups.zip(values.chunks(KV4_GROUP)) {
        *scale = store_group(values, codes).to_bits();
    }
}

/// Rounds up to 32 numbers and returns their scale; codes after them are arbitrary.
fn store_group(values: &[f32], codes: &mut [u8; KV4_BYTES]) -> f16 {
    let largest = values.iter().fold(0.0f32, |largest, &value| {
        let value = value.clamp(-MAX_F16, MAX_F16);
        if value.abs() > largest.abs() { value } else { largest }
    });
    codes.fill(0);
    let mut best: Option<(f32, f32)> = None;
    for peak in PEAKS {
        let scale = largest / peak;
        let (share, norm) = fit(values, scale);
        // With the optimal scale for these levels, the error is Σ value² minus this.
        let gain = share * share / norm;
        if gain.is_finite() && best.is_none_or(|(most, _)| gain > most) {
            best = Some((gain, scale));
        }
    }
    let Some((_, scale)) = best else { return f16::ZERO };
    let (share, norm) = fit(values, scale);
    let inverse = 1.0 / scale;
    for (index, value) in values.iter().enumerate() {
        codes[index % KV4_BYTES] |= nearest(value * inverse) << (4 * (index / KV4_BYTES));
    }
    saturating_f16(share / norm)
}

/// `Σ value · level` and `Σ level²`, with the level nearest to each value at this scale.
fn fit(values: &[f32], scale: f32) -> (f32, f32) {
    let inverse = 1.0 / scale;
    values.iter().fold((0.0, 0.0), |(share, norm), &value| {
        let level = f32::from(KV4_LEVELS[usize::from(nearest(value * inverse))]);
        (share + value.clamp(-MAX_F16, MAX_F16) * level, norm + level * level)
    })
}

/// Code of the level nearest to `x` rounded to an integer.
fn nearest(x: f32) -> u8 {
    // 1.5 · 2²³: adding it leaves `x`, rounded to an integer, in the low bits.
    let bits = (x.clamp(-127.0, 127.0) + 12_582_912.0).to_bits();
    NEAREST[usize::from(bits as u8)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn rounded(values: &[f32]) -> Vec<f32> {
        let groups = groups(values.len());
        let (mut codes, mut scales) = (vec![0; KV4_BYTES * groups], vec![0; groups]);
        store(values, &mut codes, &mut scales);
        let scales: Vec<f16> = scales.into_iter().map(f16::from_bits).collect();
        let rows = pith_kernels::KvRows::Q4 { head_dim: values.len(), codes: &codes, scales: &scales };
        assert_eq!((rows.positions(), rows.head_dim()), (1, values.len()));
        (0..values.len()).map(|dim| rows.get(0, dim)).collect()
    }

    fn error(values: &[f32], found: &[f32]) -> f64 {
        values.iter().zip(found).map(|(value, found)| f64::from(value - found).powi(2)).sum()
    }

    /// Rounding to nearest, with the scale from the first level for the largest number.
    fn plainly(values: &[f32]) -> Vec<f32> {
        let largest = values.iter().fold(0.0f32, |a, &b| if b.abs() > a.abs() { b } else { a });
        let scale = saturating_f16(largest / -127.0).to_f32();
        let levels = KV4_LEVELS.map(|level| scale * f32::from(level));
        let distance = |value: f32, level: f32| (value - level).abs();
        let nearest = |&value: &f32| {
            levels.into_iter().min_by(|a, b| distance(value, *a).total_cmp(&distance(value, *b))).unwrap()
        };
        values.iter().map(nearest).collect()
    }

    #[test]
    fn no_group_is_worse_than_plainly_rounded() {
        let mut random = Random::new(7);
        let (mut searched, mut plain) = (0.0, 0.0);
        // Half of f16's smallest step, times the largest level: the error of a subnormal scale.
        let least = 127.0 * 2f32.powi(-25);
        for case in 0..2000 {
            let len = 1 + case % KV4_GROUP;
            let factor = 10f32.powi(case as i32 % 7 - 3);
            // The sum of twelve uniform numbers is nearly normal.
            let values: Vec<f32> = (0..len)
                .map(|_| factor * ((0..12).map(|_| random.unit()).sum::<f64>() - 6.0) as f32)
                .collect();
            let largest = values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            let (found, expected) = (rounded(&values), plainly(&values));
            for (value, found) in values.iter().zip(&found) {
                assert!(
                    (value - found).abs() <= 0.16 * largest + least,
                    "{value} became {found} of {values:?}"
                );
            }
            let [a, b] = [&found, &expected].map(|found| error(&values, found));
            // The error of the f16 scale, and of rounding the numbers to integers first.
            let slack = len as f64 * f64::from(0.01 * largest + least).powi(2);
            assert!(a <= b + slack, "{a} for {b} of {values:?}");
            if len == KV4_GROUP {
                (searched, plain) =
                    (searched + a / f64::from(factor).powi(2), plain + b / f64::from(factor).powi(2));
            }
        }
        assert!(searched < 0.95 * plain, "{searched} for {plain}");
    }

    #[test]
    fn spread_rows_keep_their_products_and_come_back() {
        let mut random = Random::new(3);
        for head_dim in [1, 4, 12, 31, 32, 64, 80, 112, 256] {
            let mut row = || -> Vec<f32> { (0..2 * head_dim).map(|_| random.unit() as f32 - 0.5).collect() };
            let rows = [row(), row()];
            let mut turned = rows.clone();
            turned.iter_mut().for_each(|rows| spread(head_dim, rows));
            let product = |rows: &[Vec<f32>; 2], row: usize| -> f64 {
                let span = row * head_dim..(row + 1) * head_dim;
                rows[0][span.clone()].iter().zip(&rows[1][span]).map(|(a, b)| f64::from(a * b)).sum()
            };
            for row in 0..2 {
                let (before, after) = (product(&rows, row), product(&turned, row));
                assert!((before - after).abs() < 1e-6 * head_dim as f64, "{before} became {after}");
            }
            assert!(head_dim == 1 || rows[0] != turned[0]);
            spread(head_dim, &mut turned[0]);
            assert!(error(&rows[0], &turned[0]) < 1e-12 * head_dim as f64);
        }
        // Whole groups use another algorithm for the same matrix.
        let mut group: [f32; KV4_GROUP] = std::array::from_fn(|_| random.unit() as f32 - 0.5);
        let mut block = group;
        spread_group(&mut group);
        spread_block(&mut block);
        assert!(error(&group, &block) < 1e-10, "{group:?} is not {block:?}");
        // One large number among small ones spreads over its group.
        let mut row = [0.0; 64];
        row[5] = 8.0;
        spread(64, &mut row);
        assert!(
            row[..32].iter().all(|value| (value.abs() - 2f32.sqrt()).abs() < 1e-6) && row[32..] == [0.0; 32]
        );
    }

    #[test]
    fn groups_do_not_touch_each_other() {
        let values: Vec<f32> = (0..80).map(|dim| if dim < 32 { 1e-3 } else { dim as f32 } * -0.7).collect();
        let found = rounded(&values);
        for (values, found) in values.chunks(KV4_GROUP).zip(found.chunks(KV4_GROUP)) {
            assert_eq!(rounded(values), found);
        }
        assert!(found[..32].iter().all(|value| (value + 7e-4).abs() < 1e-5), "{found:?}");
    }

    #[test]
    fn what_is_no_number_stays_within_its_group() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE] {
            let mut values = vec![1.0; 40];
            values[3] = wrong;
            let found = rounded(&values);
            assert!(found.iter().all(|value| value.is_finite()), "{wrong}: {found:?}");
            assert!(found[32..].iter().all(|value| (value - 1.0).abs() < 1e-3), "{wrong}: {found:?}");
        }
        assert_eq!(rounded(&[0.0; 33]), [0.0; 33]);
    }
}
