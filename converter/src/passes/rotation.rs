//! Orthogonal matrices that spread a few large values over all columns, applied in `n log n`.

/// `diag(signs) · (H ⊗ C)` of `2^k · m` rows, `m` odd. Signs follow a fixed rule, `H` is the
/// normalized Hadamard matrix of `2^k` rows, `C` the orthonormal cosine transform (DCT-II) of `m`.
/// With `m = 1` every entry has the same size, otherwise none is more than √2 times the mean.
///
/// Random signs in front of a Hadamard matrix: QuaRot (Ashkboos et al., arXiv 2404.00456). Its
/// tables of Hadamard matrices of 12, 20, 28 … rows leave out most odd factors; the cosine
/// transform covers them all.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    /// A power of two.
    butterflies: usize,
    /// `m × m`, row-major.
    cosines: Vec<f32>,
    signs: Vec<f32>,
}

impl Rotation {
    /// The rotation of `len` rows.
    pub(super) fn new(len: usize) -> Self {
        let butterflies = 1 << len.trailing_zeros();
        let odd = len / butterflies;
        let cosine = |row: usize, col: usize| {
            let norm = if col == 0 { 1.0 } else { 2.0f64 } / odd as f64;
            let angle = std::f64::consts::PI * (2 * row + 1) as f64 * col as f64 / (2 * odd) as f64;
            (norm.sqrt() * angle.cos()) as f32
        };
        let cosines = (0..odd * odd).map(|at| cosine(at / odd, at % odd)).collect();
        let signs = (0..len as u64).map(|index| if mixed(index) & 1 == 0 { 1.0 } else { -1.0 }).collect();
        Self { butterflies, cosines, signs }
    }

    /// Rows of the matrix.
    pub(super) fn len(&self) -> usize {
        self.signs.len()
    }

    /// `v ← v · R` for every run of [`Rotation::len`] items. An item is `width` adjacent values
    /// that are transformed independently: `width = 1` rotates rows, `width = cols` rotates the
    /// columns of a row-major matrix.
    ///
    /// Panics unless `values` is a whole number of runs.
    pub(super) fn apply(&self, values: &mut [f32], width: usize) {
        assert!(values.len().is_multiple_of(self.len() * width));
        let odd = self.len() / self.butterflies;
        let mut mixed = vec![0.0f32; odd * width];
        for part in values.chunks_exact_mut(self.len() * width) {
            for (item, sign) in part.chunks_exact_mut(width).zip(&self.signs) {
                item.iter_mut().for_each(|value| *value *= sign);
            }
            let mut step = odd * width;
            while step < part.len() {
                for pair in part.chunks_exact_mut(2 * step) {
                    let (low, high) = pair.split_at_mut(step);
                    for (low, high) in low.iter_mut().zip(high) {
                        (*low, *high) = (*low + *high, *low - *high);
                    }
                }
                step *= 2;
            }
            let scale = 1.0 / (self.butterflies as f32).sqrt();
            if odd == 1 {
                part.iter_mut().for_each(|value| *value *= scale);
                continue;
            }
            for items in part.chunks_exact_mut(odd * width) {
                mixed.fill(0.0);
                for (item, cosines) in items.chunks_exact(width).zip(self.cosines.chunks_exact(odd)) {
                    for (mixed, cosine) in mixed.chunks_exact_mut(width).zip(cosines) {
                        let factor = cosine * scale;
                        mixed.iter_mut().zip(item).for_each(|(mixed, value)| *mixed += factor * value);
                    }
                }
                items.copy_from_slice(&mixed);
            }
        }
    }
}

/// A 64-bit hash in which every bit depends on all of `index` (the finisher of MurmurHash3).
fn mixed(index: u64) -> u64 {
    let mut hash = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole matrix, row by row: the images of the unit vectors.
    fn matrix(rotation: &Rotation) -> Vec<f32> {
        let len = rotation.len();
        let mut rows: Vec<f32> = (0..len * len).map(|at| f32::from(at / len == at % len)).collect();
        rotation.apply(&mut rows, 1);
        rows
    }

    #[test]
    fn every_length_gives_an_orthogonal_matrix_of_small_entries() {
        for len in [1, 2, 3, 12, 15, 64, 80, 96, 160, 192] {
            let rows = matrix(&Rotation::new(len));
            for (i, one) in rows.chunks_exact(len).enumerate() {
                for (j, other) in rows.chunks_exact(len).enumerate() {
                    let product: f32 = one.iter().zip(other).map(|(a, b)| a * b).sum();
                    assert!((product - f32::from(i == j)).abs() < 1e-5, "{len}: {i} · {j} = {product}");
                }
            }
            let largest = rows.iter().fold(0.0f32, |largest, entry| largest.max(entry.abs()));
            assert!(largest <= (2.0 / len as f32).sqrt() + 1e-6, "{len}: {largest}");
        }
    }

    #[test]
    fn columns_turn_as_rows_do() {
        let (rotation, width) = (Rotation::new(24), 5);
        let values: Vec<f32> = (0..2 * 24 * width).map(|at| (at as f32 * 0.37).sin()).collect();
        let mut columns = values.clone();
        rotation.apply(&mut columns, width);
        for part in 0..2 {
            for col in 0..width {
                let at = |item: usize| (part * 24 + item) * width + col;
                let mut row: Vec<f32> = (0..24).map(|item| values[at(item)]).collect();
                rotation.apply(&mut row, 1);
                for (item, expected) in row.iter().enumerate() {
                    assert!((columns[at(item)] - expected).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn signs_follow_no_pattern() {
        let rotation = Rotation::new(256);
        let positive = rotation.signs.iter().filter(|&&sign| sign > 0.0).count();
        assert!((96..160).contains(&positive), "{positive}");
        let changes = rotation.signs.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!((96..160).contains(&changes), "{changes}");
    }
}
