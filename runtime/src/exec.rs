//! The one place where weights are read: splits the work over the threads, counts the bytes, calls the kernels.

use crate::ledger::Traffic;
use crate::model::{Norm, Vector};
use crate::pool::{MAX_THREADS, Pool};
use pith_format::{Matrix, TILE_ROWS};
use pith_kernels::{Kernels, Operand};
use std::array::from_fn;
use std::ops::Range;

/// Less work than this, in bytes streamed, is done sooner by one thread than handed to others.
const MIN_SHARED_BYTES: usize = 32 << 10;

/// Bands a thread gets of a matrix × matrix product, so that a slow one can leave some to the others.
const BANDS_PER_THREAD: usize = 4;

/// Most bands a matrix is cut into.
const MAX_BANDS: usize = 2 * MAX_THREADS;

/// Kernels, threads, and what they have read so far.
pub(crate) struct Exec {
    kernels: &'static dyn Kernels,
    pool: Pool,
    /// Bands of a product of several tokens before they are put side by side.
    scratch: Vec<f32>,
    /// What was touched since the session began.
    pub traffic: Traffic,
}

impl Exec {
    /// `scratch` must hold the results of the largest product of several tokens; a single thread needs none.
    pub fn new(kernels: &'static dyn Kernels, pool: Pool, scratch: Vec<f32>) -> Self {
        Self { kernels, pool, scratch, traffic: Traffic::default() }
    }

    pub fn kernels(&self) -> &'static dyn Kernels {
        self.kernels
    }

    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// A vector of the model.
    pub fn vector<'a>(&mut self, vector: &'a Vector) -> &'a [f32] {
        let values = vector.uncounted();
        self.traffic.weight_bytes += size_of_val(values) as u64;
        values
    }

    /// Weight and bias of a norm.
    pub fn norm<'a>(&mut self, norm: &'a Norm) -> (&'a [f32], Option<&'a [f32]>) {
        (self.vector(&norm.weight), norm.bias.as_ref().map(|bias| self.vector(bias)))
    }

    /// Row `row` of an embedding.
    pub fn look_up(&mut self, embedding: Matrix<'_>, row: usize, out: &mut [f32]) {
        self.traffic.embedding_bytes += embedding.block_bytes() as u64;
        embedding.decode_row(row, out);
    }

    /// `outputs[i] = weights[i] · x`, `tokens × rows` each: all matrices that read `x`, in one go.
    pub fn multiply<const N: usize>(
        &mut self,
        x: Operand<'_>,
        weights: [Matrix<'_>; N],
        mut outputs: [&mut [f32]; N],
    ) {
        let tokens = x.tokens();
        self.count(x, &weights);
        let bytes: usize = weights.iter().map(|weight| weight.bytes().len()).sum();
        let threads = self.threads_for(bytes.saturating_mul(tokens));
        if threads == 1 {
            for (weight, output) in weights.iter().zip(outputs) {
                multiply(self.kernels, *weight, x, output);
            }
        } else if tokens == 1 {
            self.multiply_bands(threads, threads, x, &weights, outputs);
        } else {
            let bands = (BANDS_PER_THREAD * threads).min(MAX_BANDS);
            let mut scratch = std::mem::take(&mut self.scratch);
            let parts = split(&mut scratch, weights.map(|weight| tokens * weight.rows()));
            self.multiply_bands(threads, bands, x, &weights, parts);
            let mut parts = scratch.as_slice();
            for (weight, output) in weights.iter().zip(&mut outputs) {
                let (part, rest) = parts.split_at(tokens * weight.rows());
                self.side_by_side(threads, bands, *weight, part, output);
                parts = rest;
            }
            self.scratch = scratch;
        }
    }

    /// Calls `work` with chunks of `data` on the threads, or on this one where `bytes` of traffic are too few.
    ///
    /// `scratch`: one for every thread.
    pub fn for_chunks<T: Send, S: Send>(
        &mut self,
        bytes: usize,
        data: &mut [T],
        chunk_len: usize,
        scratch: &mut [S],
        work: impl Fn(&dyn Kernels, usize, &mut [T], &mut S) + Sync,
    ) {
        let (threads, kernels) = (self.threads_for(bytes), self.kernels);
        self.pool.for_chunks(threads, data, chunk_len, scratch, |index, chunk, scratch| {
            work(kernels, index, chunk, scratch)
        });
    }

    fn threads_for(&self, bytes: usize) -> usize {
        if bytes < MIN_SHARED_BYTES { 1 } else { self.threads() }
    }

    fn count(&mut self, x: Operand<'_>, weights: &[Matrix<'_>]) {
        let operand = size_of_val(x.floats) + x.codes.len() + size_of_val(x.scales) + size_of_val(x.sums);
        let rows: usize = weights.iter().map(|weight| weight.rows()).sum();
        self.traffic.activation_bytes += (operand + x.tokens() * rows * size_of::<f32>()) as u64;
        self.traffic.weight_bytes += weights.iter().map(|weight| weight.bytes().len() as u64).sum::<u64>();
    }

    /// Every output becomes its bands' results one after the other, `tokens × band rows` each.
    fn multiply_bands<const N: usize>(
        &mut self,
        threads: usize,
        band_count: usize,
        x: Operand<'_>,
        weights: &[Matrix<'_>; N],
        outputs: [&mut [f32]; N],
    ) {
        let mut bands: [[&mut [f32]; N]; MAX_BANDS] = from_fn(|_| from_fn(|_| &mut [][..]));
        let bands = &mut bands[..band_count];
        for (matrix, (weight, mut rest)) in weights.iter().zip(outputs).enumerate() {
            for (index, band) in bands.iter_mut().enumerate() {
                let rows = band_rows(weight, index, band_count).len();
                (band[matrix], rest) = rest.split_at_mut(x.tokens() * rows);
            }
        }
        let kernels = self.kernels;
        self.pool.for_chunks(threads, bands, 1, &mut [(); MAX_THREADS], |index, band, _| {
            for (weight, output) in weights.iter().zip(&mut band[0]) {
                let blocks = band_blocks(weight, index, band_count);
                if !blocks.is_empty() {
                    multiply(kernels, weight.band(blocks), x, output);
                }
            }
        });
    }

    /// From bands one after the other to `tokens × rows`.
    fn side_by_side(
        &mut self,
        threads: usize,
        band_count: usize,
        weight: Matrix<'_>,
        bands: &[f32],
        output: &mut [f32],
    ) {
        let (rows, tokens) = (weight.rows(), output.len() / weight.rows());
        self.pool.for_chunks(threads, output, rows, &mut [(); MAX_THREADS], |token, output, _| {
            for index in 0..band_count {
                let band = band_rows(&weight, index, band_count);
                let part = &bands[tokens * band.start + token * band.len()..][..band.len()];
                output[band].copy_from_slice(part);
            }
        });
    }
}

fn multiply(kernels: &dyn Kernels, weight: Matrix<'_>, x: Operand<'_>, output: &mut [f32]) {
    match x.tokens() {
        1 => kernels.mat_vec(weight, x, output),
        _ => kernels.mat_mul(weight, x, output),
    }
}

/// Blocks of the `index`-th of `count` bands; empty where there are more bands than blocks.
fn band_blocks(weight: &Matrix<'_>, index: usize, count: usize) -> Range<usize> {
    let blocks = weight.block_count();
    blocks * index / count..blocks * (index + 1) / count
}

fn band_rows(weight: &Matrix<'_>, index: usize, count: usize) -> Range<usize> {
    let blocks = band_blocks(weight, index, count);
    let row = |block: usize| (block * TILE_ROWS).min(weight.rows());
    row(blocks.start)..row(blocks.end)
}

/// The first values of `data` in parts of these lengths.
fn split<const N: usize>(data: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    let mut rest = data;
    lengths.map(|length| {
        let (part, tail) = std::mem::take(&mut rest).split_at_mut(length);
        rest = tail;
        part
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_format::{Encoding, encode_block};
    use pith_kernels::{Activations, by_name};

    fn bytes(rows: usize, cols: usize) -> Vec<u8> {
        let weights: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919) % 1013) as f32 / 500.0 - 1.0).collect();
        let mut bytes = vec![0; Encoding::F16.matrix_bytes(rows as u64, cols as u64).unwrap() as usize];
        let block_bytes = bytes.len() / rows.div_ceil(16);
        for (rows, block) in weights.chunks(16 * cols).zip(bytes.chunks_mut(block_bytes)) {
            encode_block(Encoding::F16, rows, cols, block);
        }
        bytes
    }

    /// Results for `tokens` tokens on that many threads, of three matrices of which one is smaller than the others.
    fn run(threads: usize, tokens: usize) -> (Vec<Vec<f32>>, Traffic) {
        let (cols, shapes) = (96, [700, 5, 333]);
        let kernels = by_name("portable").unwrap();
        let total: usize = shapes.iter().sum();
        let mut exec = Exec::new(kernels, Pool::new(threads, false).unwrap(), vec![0.0; tokens * total]);
        let data = shapes.map(|rows| bytes(rows, cols));
        let weights: [Matrix<'_>; 3] =
            from_fn(|index| Matrix::new(Encoding::F16, shapes[index], cols, &data[index]).unwrap());
        let mut x = Activations::new(tokens, cols);
        let x = x.set(kernels, tokens, cols, |token, x| {
            x.iter_mut().enumerate().for_each(|(i, x)| *x = ((token * 31 + i * 17) % 23) as f32 - 11.0);
        });
        let mut results = shapes.map(|rows| vec![f32::NAN; tokens * rows]);
        exec.multiply(x, weights, results.each_mut().map(|result| result.as_mut_slice()));
        (results.into(), exec.traffic)
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        for tokens in [1, 2, 9] {
            let (expected, traffic) = run(1, tokens);
            for threads in [2, 3, 8] {
                assert_eq!(run(threads, tokens), (expected.clone(), traffic), "{threads} threads");
            }
        }
    }

    #[test]
    fn every_byte_of_a_matrix_is_counted_once_a_call() {
        let blocks = 700usize.div_ceil(16) + 1 + 333usize.div_ceil(16);
        for tokens in [1, 4] {
            let (_, traffic) = run(2, tokens);
            assert_eq!(traffic.weight_bytes, (blocks * 96 * 16 * 2) as u64);
            // 96 columns are padded to 128.
            let operand = 128 * 5 + 4 * 8;
            assert_eq!(traffic.activation_bytes, (tokens * (operand + 4 * (700 + 5 + 333))) as u64);
        }
    }
}
