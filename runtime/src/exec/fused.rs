//! Matrix products of many tokens, fused with the operation that follows. A thread computes a few
//! rows for all tokens, applies the operation while the results are in its nearest caches, and
//! writes only the final values to memory.

use super::{Exec, pool, recycled};
use pith_format::{Matrix, TILE_ROWS};
use pith_kernels::{
    ACTIVATION_GROUP, Activations, Kernels, MIN_PACKED, Operand, PACKED_TOKENS, pack_rows, padded_len,
};

/// Most rows of a band: few enough that the results of all tokens stay in a cache. Bands are whole
/// panels and whole groups of activations.
const MAX_BAND_ROWS: usize = 128;

/// Rows of a band are a multiple of this, except in the last band.
const BAND_UNIT: usize = 32;

/// Most matrices whose results are combined in one band.
const MAX_MATRICES: usize = 2;

/// Working memory of one thread for one band.
pub(super) struct Scratch {
    /// Results in the order matrix, token, row.
    results: Vec<f32>,
    /// Reused list of one slice per token; empty between products.
    rows: Vec<&'static mut [f32]>,
}

impl Scratch {
    /// Working memory for products with up to `batch` tokens.
    pub fn new(batch: usize) -> Self {
        let tokens = if batch < MIN_PACKED { 0 } else { batch };
        Self { results: vec![0.0; MAX_MATRICES * MAX_BAND_ROWS * tokens], rows: Vec::with_capacity(tokens) }
    }
}

impl Exec {
    /// `sums += weight · x`, `tokens × rows`. `finish` is called on each token's results, in parts,
    /// before they are added. Its arguments: the part's first row, and the part.
    pub fn multiply_add(
        &mut self,
        x: Operand<'_>,
        weight: Matrix<'_>,
        sums: &mut [f32],
        finish: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let rows = weight.rows();
        let band_rows = self.band_rows(rows);
        let (mut places, mut rests) = (recycled(&mut self.parts), recycled(&mut self.rests));
        rests.extend(sums.chunks_exact_mut(rows));
        for first in (0..rows).step_by(band_rows) {
            for rest in &mut rests {
                places.push(cut(rest, band_rows.min(rows - first)));
            }
        }
        self.in_bands(x, [weight], &mut places, |_, first, [results], sums| {
            for (results, sums) in results.chunks_exact_mut(results.len() / sums.len()).zip(sums) {
                finish(first, results);
                for (sum, result) in sums.iter_mut().zip(results) {
                    *sum += *result;
                }
            }
        });
        (self.parts, self.rests) = (recycled(&mut places), recycled(&mut rests));
    }

    /// Multiplies, applies `finish`, and makes the results of the first of `weights` the operand of
    /// the next products, in packed form only. All weights have the same number of rows. `finish`
    /// is called on each token's results, in parts. Its arguments: the kernels, the first row of
    /// the parts, and one part of every matrix.
    pub fn multiply_packed<'b, const N: usize>(
        &mut self,
        x: Operand<'_>,
        weights: [Matrix<'_>; N],
        operand: &'b mut Activations,
        finish: impl Fn(&dyn Kernels, usize, [&mut [f32]; N]) + Sync,
    ) -> Operand<'b> {
        let (tokens, rows) = (x.tokens(), weights[0].rows());
        let band_rows = self.band_rows(rows);
        let (mut places, mut rests) = (recycled(&mut self.packs), recycled(&mut self.pack_rests));
        rests.extend(operand.packed_mut(tokens, rows).chunks_exact_mut(padded_len(rows) / ACTIVATION_GROUP));
        for first in (0..rows).step_by(band_rows) {
            for rest in &mut rests {
                places.push(cut(rest, band_rows.min(rows - first).div_ceil(ACTIVATION_GROUP)));
            }
        }
        self.in_bands(x, weights, &mut places, |kernels, first, mut results, packs| {
            let rows = results[0].len() / tokens;
            for (index, pack) in packs.iter_mut().enumerate() {
                let pack_tokens = index * PACKED_TOKENS..tokens.min((index + 1) * PACKED_TOKENS);
                for token in pack_tokens.clone() {
                    let parts = results.each_mut().map(|results| &mut results[token * rows..][..rows]);
                    finish(kernels, first, parts);
                }
                pack_rows(kernels, &results[0][pack_tokens.start * rows..pack_tokens.end * rows], rows, pack);
            }
        });
        (self.packs, self.pack_rests) = (recycled(&mut places), recycled(&mut rests));
        operand.operand()
    }

    /// Rows of a band of a matrix, such that all threads get equally many.
    fn band_rows(&self, rows: usize) -> usize {
        let bands = rows.div_ceil(MAX_BAND_ROWS).next_multiple_of(self.threads());
        rows.div_ceil(bands).next_multiple_of(BAND_UNIT)
    }

    /// Calls `finish` for every band of `weights`. Its arguments: the kernels, the band's first
    /// row, the results of each matrix (`tokens × rows`), and the band's places (the same number
    /// for every band).
    fn in_bands<const N: usize, T: Send>(
        &mut self,
        x: Operand<'_>,
        weights: [Matrix<'_>; N],
        places: &mut [T],
        finish: impl Fn(&dyn Kernels, usize, [&mut [f32]; N], &mut [T]) + Sync,
    ) {
        const { assert!(N <= MAX_MATRICES) };
        self.count(x, &weights);
        let (tokens, rows) = (x.tokens(), weights[0].rows());
        assert!(weights.iter().all(|weight| weight.rows() == rows), "matrices of unequal numbers of rows");
        let bytes: usize = weights.iter().map(|weight| weight.bytes().len()).sum();
        let (threads, kernels) = (self.threads_for(bytes.saturating_mul(tokens)), self.kernels);
        let max_rows = self.band_rows(rows);
        let places_a_band = places.len() / rows.div_ceil(max_rows);
        pool(&mut self.lent).for_chunks(
            threads,
            places,
            places_a_band,
            &mut self.scratch,
            |band, places, scratch| {
                let first = band * max_rows;
                let band_rows = max_rows.min(rows - first);
                let blocks = first / TILE_ROWS..(first + band_rows).div_ceil(TILE_ROWS);
                let mut results = scratch.results.chunks_exact_mut(tokens * band_rows);
                let results = weights.each_ref().map(|weight| {
                    let results = results.next().expect("room for all matrices");
                    let mut y = recycled(&mut scratch.rows);
                    y.extend(results.chunks_exact_mut(band_rows));
                    kernels.mat_mul(weight.band(blocks.clone()), x, &mut y);
                    scratch.rows = recycled(&mut y);
                    results
                });
                finish(kernels, first, results, places);
            },
        );
    }
}

/// Splits off the first `len` values.
fn cut<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    rest.split_off_mut(..len).expect("as many as there are rows")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_format::{Encoding, encode_block};
    use pith_kernels::{Form, available};

    const TOKENS: usize = 16;
    const COLS: usize = 96;

    fn value(index: usize) -> f32 {
        ((index * 7919) % 1013) as f32 / 500.0 - 1.0
    }

    fn bytes(rows: usize, salt: usize) -> Vec<u8> {
        let weights: Vec<f32> = (0..rows * COLS).map(|i| value(i + salt)).collect();
        let mut bytes = vec![0; Encoding::Q4.matrix_bytes(rows as u64, COLS as u64).unwrap() as usize];
        let block_bytes = bytes.len() / rows.div_ceil(TILE_ROWS);
        for (rows, block) in weights.chunks(TILE_ROWS * COLS).zip(bytes.chunks_mut(block_bytes)) {
            encode_block(Encoding::Q4, rows, COLS, block);
        }
        bytes
    }

    #[test]
    fn results_worked_on_at_once_have_the_bits_of_those_worked_on_later() {
        for kernels in available().into_iter().filter(|kernels| kernels.reads_packed(Encoding::Q4)) {
            for rows in [333, 576, 16] {
                let data = [0, 5].map(|salt| bytes(rows, salt));
                let [gate, up] =
                    data.each_ref().map(|data| Matrix::new(Encoding::Q4, rows, COLS, data).unwrap());
                for threads in 1..4 {
                    let mut exec = Exec::of(kernels, threads, TOKENS);
                    let mut x = Activations::new(TOKENS, COLS);
                    let write = |_: &dyn Kernels, token: usize, out: &mut [f32]| {
                        out.iter_mut().enumerate().for_each(|(i, x)| *x = value(token * 31 + i * 17));
                    };
                    let whole = exec.set(&mut x, (TOKENS, COLS), Form::Whole, write).packed.to_vec();
                    let x = exec.set(&mut x, (TOKENS, COLS), Form::Packed, write);
                    assert_eq!((x.form(), x.packed), (Form::Packed, &whole[..]));

                    let mut results = [vec![0.0; TOKENS * rows], vec![0.0; TOKENS * rows]];
                    let [of_gate, of_up] = &mut results;
                    exec.multiply(x, [gate, up], [of_gate, of_up], |_, first, [gate, up]| {
                        for (row, (gate, up)) in gate.iter_mut().zip(up).enumerate() {
                            *gate += *up * (first[0] + row) as f32;
                        }
                    });
                    let mut expected = Activations::new(TOKENS, rows);
                    let expected = expected.set(kernels, TOKENS, rows, |token, out| {
                        out.copy_from_slice(&results[0][token * rows..][..rows]);
                    });
                    let mut found = Activations::packed(TOKENS, rows);
                    let found = exec.multiply_packed(x, [gate, up], &mut found, |_, first, [gate, up]| {
                        for (row, (gate, up)) in gate.iter_mut().zip(up).enumerate() {
                            *gate += *up * (first + row) as f32;
                        }
                    });
                    // Padding of a token is not read.
                    let used = rows.div_ceil(ACTIVATION_GROUP);
                    let stride = padded_len(rows) / ACTIVATION_GROUP;
                    for (found, expected) in
                        found.packed.chunks_exact(stride).zip(expected.packed.chunks_exact(stride))
                    {
                        assert_eq!(found[..used], expected[..used], "{}, {rows} rows", kernels.name());
                    }

                    let mut sums: Vec<f32> = (0..TOKENS * rows).map(value).collect();
                    let expected: Vec<f32> =
                        sums.iter().zip(&results[1]).map(|(sum, value)| sum + (value + 1.0)).collect();
                    exec.multiply_add(x, up, &mut sums, |_, part| {
                        part.iter_mut().for_each(|value| *value += 1.0);
                    });
                    assert_eq!(sums, expected, "{}, {rows} rows, {threads} threads", kernels.name());
                }
            }
        }
    }
}
