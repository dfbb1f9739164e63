//! Products of many tokens whose results are worked on while they are in the nearest caches: a thread computes a few
//! rows for all tokens, and what becomes of them is all that goes to memory.

use super::{Exec, recycled};
use pith_format::{Matrix, TILE_ROWS};
use pith_kernels::{
    ACTIVATION_GROUP, Activations, Kernels, MIN_PACKED, Operand, PACKED_TOKENS, pack_rows, padded_len,
};

/// Rows of a band: whole groups of activations, and few enough for the results of all tokens to stay in a cache.
const BAND_ROWS: usize = 64;

/// Most matrices whose results meet in a band.
const MAX_MATRICES: usize = 2;

/// What a thread computes a band in.
pub(super) struct Scratch {
    /// Matrix by matrix, token by token.
    results: Vec<f32>,
    /// Room for one slice a token; empty between products.
    rows: Vec<&'static mut [f32]>,
}

impl Scratch {
    /// For products with up to `batch` tokens.
    pub fn new(batch: usize) -> Self {
        let tokens = if batch < MIN_PACKED { 0 } else { batch };
        Self { results: vec![0.0; MAX_MATRICES * BAND_ROWS * tokens], rows: Vec::with_capacity(tokens) }
    }
}

impl Exec {
    /// `sums += weight · x`, `tokens × rows`. `finish` is called with the results of each token, in parts, before they
    /// are added: the part's first row, and the part.
    pub fn multiply_add(
        &mut self,
        x: Operand<'_>,
        weight: Matrix<'_>,
        sums: &mut [f32],
        finish: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let rows = weight.rows();
        let (mut places, mut rests) = (recycled(&mut self.parts), recycled(&mut self.rests));
        rests.extend(sums.chunks_exact_mut(rows));
        for first in (0..rows).step_by(BAND_ROWS) {
            for rest in &mut rests {
                places.push(cut(rest, BAND_ROWS.min(rows - first)));
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

    /// Makes what `finish` leaves in the results of the first of `weights` the operand of the next products, packed
    /// alone. All weights have as many rows. `finish` is called with the results of each token, in parts: the kernels, the
    /// first row of the parts, and a part of every matrix.
    pub fn multiply_packed<'b, const N: usize>(
        &mut self,
        x: Operand<'_>,
        weights: [Matrix<'_>; N],
        operand: &'b mut Activations,
        finish: impl Fn(&dyn Kernels, usize, [&mut [f32]; N]) + Sync,
    ) -> Operand<'b> {
        let (tokens, rows) = (x.tokens(), weights[0].rows());
        let (mut places, mut rests) = (recycled(&mut self.packs), recycled(&mut self.pack_rests));
        rests.extend(operand.packed_mut(tokens, rows).chunks_exact_mut(padded_len(rows) / ACTIVATION_GROUP));
        for first in (0..rows).step_by(BAND_ROWS) {
            for rest in &mut rests {
                places.push(cut(rest, BAND_ROWS.min(rows - first).div_ceil(ACTIVATION_GROUP)));
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

    /// Calls `finish` for every band of `weights`: the kernels, the band's first row, the results of each matrix,
    /// `tokens × rows`, and the band's places, as many for each band.
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
        let places_a_band = places.len() / rows.div_ceil(BAND_ROWS);
        self.pool.for_chunks(threads, places, places_a_band, &mut self.scratch, |band, places, scratch| {
            let first = band * BAND_ROWS;
            let band_rows = BAND_ROWS.min(rows - first);
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
        });
    }
}

/// Takes the first `len` values away.
fn cut<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    rest.split_off_mut(..len).expect("as many as there are rows")
}
