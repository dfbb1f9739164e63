//! The one place where weights are read. It splits the work over the threads, counts the bytes and
//! calls the kernels.

mod fused;

use crate::engine::{Engine, Lent};
use crate::pool::{MAX_THREADS, Pool};
use crate::stream::Stream;
use crate::timeline::Recording;
use crate::weights::{Norm, Vector};
use fused::Scratch;
use pith_format::{Matrix, TILE_ROWS};
use pith_kernels::{ACTIVATION_GROUP, Activations, Form, Kernels, Operand, PACKED_TOKENS, PackedGroup, Part};
use pith_meter::Traffic;
use std::array::from_fn;
use std::ops::Range;
use std::sync::Arc;

/// Work below this many streamed bytes runs on one thread: sharing it would take longer.
const MIN_SHARED_BYTES: usize = 32 << 10;

/// Bands per thread in a matrix × matrix product: more than one, so that others can take work from
/// a straggler.
const BANDS_PER_THREAD: usize = 4;

/// Part of a matrix × vector product that is in the long bands, one for each thread.
const LONG_SHARE: f64 = 0.75;

/// Least bytes of the short bands that share the rest: reading in order should pay off within one.
const SHORT_BYTES: usize = 32 << 10;

/// Most short bands per thread.
const SHORT_BANDS: usize = 8;

/// Most matrices that read the same operand.
const MAX_MATRICES: usize = 3;

/// The kernels and threads of an engine at work for one session, with the traffic counted so far.
pub(crate) struct Exec {
    engine: Arc<Engine>,
    kernels: &'static dyn Kernels,
    /// The engine's threads; `None` between passes.
    lent: Option<Lent>,
    /// Reused memory for the parts of a product's results and for the slices not yet split; empty
    /// between calls.
    parts: Vec<&'static mut [f32]>,
    rests: Vec<&'static mut [f32]>,
    /// Reused memory for the parts of an operand.
    operands: Vec<Part<'static>>,
    /// Reused memory for the parts of a packed operand and for the slices not yet split.
    packs: Vec<&'static mut [PackedGroup]>,
    pack_rests: Vec<&'static mut [PackedGroup]>,
    /// One per thread.
    scratch: Vec<Scratch>,
    /// Reader of weights that are not kept in memory.
    pub stream: Option<Stream>,
    /// Traffic since the session began.
    pub traffic: Traffic,
    /// Notes of when each thread worked, between passes; the pool has them during a pass.
    pub recording: Option<Box<Recording>>,
}

impl Exec {
    /// Executor for products with up to `batch` tokens.
    pub fn new(engine: Arc<Engine>, batch: usize) -> Self {
        let rests = MAX_MATRICES * batch;
        let parts = (rests * BANDS_PER_THREAD).max(MAX_MATRICES * (1 + SHORT_BANDS)) * engine.threads();
        let packs = batch.div_ceil(PACKED_TOKENS);
        Self {
            kernels: engine.kernel_table(),
            lent: None,
            parts: Vec::with_capacity(parts),
            rests: Vec::with_capacity(rests),
            operands: Vec::with_capacity(packs),
            packs: Vec::new(),
            pack_rests: Vec::with_capacity(packs),
            scratch: (0..engine.threads()).map(|_| Scratch::new(batch)).collect(),
            engine,
            stream: None,
            traffic: Traffic::default(),
            recording: None,
        }
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Begins a pass: the engine's threads belong to this session until [`Exec::end`]. Waits while
    /// another session has them.
    pub fn begin(&mut self) {
        let lent = self.lent.insert(self.engine.lend());
        if let Some(mut recording) = self.recording.take() {
            recording.begin_pass();
            lent.pool.recording = Some(recording);
        }
    }

    /// Ends a pass, on the thread that began it.
    pub fn end(&mut self) {
        if let Some(mut lent) = self.lent.take() {
            if let Some(mut recording) = lent.pool.recording.take() {
                recording.end_pass();
                self.recording = Some(recording);
            }
            self.engine.take_back(lent);
        }
    }

    pub fn kernels(&self) -> &'static dyn Kernels {
        self.kernels
    }

    pub fn threads(&self) -> usize {
        self.engine.threads()
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
        self.traffic.embedding_bytes += embedding.look_up_bytes(row) as u64;
        embedding.decode_row(row, out);
    }

    /// Several rows of an embedding, concatenated.
    pub fn look_up_all(&mut self, embedding: Matrix<'_>, rows: &[u32], out: &mut [f32]) {
        let bytes = rows.iter().map(|&row| embedding.look_up_bytes(row as usize)).sum::<usize>();
        self.traffic.embedding_bytes += bytes as u64;
        let threads = self.threads_for(bytes);
        pool(&mut self.lent).for_chunks(
            threads,
            out,
            embedding.cols(),
            &mut [(); MAX_THREADS],
            |index, out, _| {
                embedding.decode_row(rows[index] as usize, out);
            },
        );
    }

    /// `outputs[i] = weights[i] · x`, `tokens × rows` each: all matrices that read `x` in one call.
    ///
    /// `finish` is called on each token's results, in parts. Its arguments: the kernels and, for
    /// each matrix, the first row of the part and the part. Matrices with equal numbers of rows are
    /// split into equal parts.
    pub fn multiply<const N: usize>(
        &mut self,
        x: Operand<'_>,
        weights: [Matrix<'_>; N],
        outputs: [&mut [f32]; N],
        finish: impl Fn(&dyn Kernels, [usize; N], [&mut [f32]; N]) + Sync,
    ) {
        let tokens = x.tokens();
        self.count(x, &weights);
        let bytes: usize = weights.iter().map(|weight| weight.bytes().len()).sum();
        let threads = self.threads_for(bytes.saturating_mul(tokens));
        let kernels = self.kernels;
        if tokens == 1 {
            return self.multiply_one(x, weights, outputs, threads, finish);
        }
        let count = if threads == 1 { 1 } else { BANDS_PER_THREAD * threads };
        let cut = Bands { count, first: 0, unit: 2 };
        // Order of the parts: band, matrix, token.
        let (mut parts, mut rests) = (recycled(&mut self.parts), recycled(&mut self.rests));
        for (weight, output) in weights.iter().zip(outputs) {
            rests.extend(output.chunks_exact_mut(weight.rows()));
        }
        for index in 0..count {
            for (weight, rests) in weights.iter().zip(rests.chunks_exact_mut(tokens)) {
                let rows = cut.rows(weight, index).len();
                for rest in rests {
                    let (part, tail) = std::mem::take(rest).split_at_mut(rows);
                    parts.push(part);
                    *rest = tail;
                }
            }
        }
        pool(&mut self.lent).for_chunks(
            threads,
            &mut parts,
            N * tokens,
            &mut [(); MAX_THREADS],
            |index, band, _| {
                for (weight, output) in weights.iter().zip(band.chunks_exact_mut(tokens)) {
                    let blocks = cut.blocks(weight, index);
                    if !blocks.is_empty() {
                        kernels.mat_mul(weight.band(blocks), x, output);
                    }
                }
                let first = weights.each_ref().map(|weight| cut.rows(weight, index).start);
                for token in 0..tokens {
                    let mut results = band.iter_mut().skip(token).step_by(tokens);
                    let results = from_fn(|_| &mut **results.next().expect("a part of every matrix"));
                    finish(kernels, first, results);
                }
            },
        );
        (self.parts, self.rests) = (recycled(&mut parts), recycled(&mut rests));
    }

    /// [`Exec::multiply`] with one token. Every thread begins with a long band, which it reads as
    /// one stream; what is left is shared out in short ones, because no two threads read memory
    /// equally fast.
    fn multiply_one<const N: usize>(
        &mut self,
        x: Operand<'_>,
        weights: [Matrix<'_>; N],
        outputs: [&mut [f32]; N],
        threads: usize,
        finish: impl Fn(&dyn Kernels, [usize; N], [&mut [f32]; N]) + Sync,
    ) {
        let kernels = self.kernels;
        let bytes: usize = weights.iter().map(|weight| weight.bytes().len()).sum();
        let cut = Bands::of_one(threads, bytes);
        let mut parts = recycled(&mut self.parts);
        let mut rests = outputs;
        for index in 0..cut.count {
            for (weight, rest) in weights.iter().zip(&mut rests) {
                let (part, tail) = std::mem::take(rest).split_at_mut(cut.rows(weight, index).len());
                parts.push(part);
                *rest = tail;
            }
        }
        pool(&mut self.lent).for_chunks(threads, &mut parts, N, &mut [(); MAX_THREADS], |index, band, _| {
            for (weight, output) in weights.iter().zip(band.iter_mut()) {
                let blocks = cut.blocks(weight, index);
                if !blocks.is_empty() {
                    kernels.mat_vec(weight.band(blocks), x, output);
                }
            }
            let first = weights.each_ref().map(|weight| cut.rows(weight, index).start);
            let mut results = band.iter_mut();
            let results = from_fn(|_| &mut **results.next().expect("a part of every matrix"));
            finish(kernels, first, results);
        });
        self.parts = recycled(&mut parts);
    }

    /// Makes `tokens × cols` values the operand of the next products; `write` fills one token at a
    /// time. Matrices whose encoding does not [read packed activations](Kernels::reads_packed) need
    /// the whole form.
    pub fn set<'b>(
        &mut self,
        operand: &'b mut Activations,
        (tokens, cols): (usize, usize),
        form: Form,
        write: impl Fn(&dyn Kernels, usize, &mut [f32]) + Sync,
    ) -> Operand<'b> {
        let kernels = self.kernels;
        let threads = self.threads_for(tokens * cols * size_of::<f32>());
        if threads == 1 {
            for mut part in operand.parts(kernels, tokens, cols, form) {
                part.set(kernels, |token, out| write(kernels, token, out));
            }
            return operand.operand();
        }
        let mut parts = recycled(&mut self.operands);
        parts.extend(operand.parts(kernels, tokens, cols, form));
        pool(&mut self.lent).for_chunks(
            threads,
            &mut parts,
            1,
            &mut [(); MAX_THREADS],
            |_, part: &mut [Part<'_>], _| {
                part[0].set(kernels, |token, out| write(kernels, token, out));
            },
        );
        self.operands = recycled(&mut parts);
        operand.operand()
    }

    /// Calls `work` with chunks of `data`: on the threads, or on this thread where `bytes` of
    /// traffic are too few to share.
    ///
    /// `scratch`: one per thread.
    pub fn for_chunks<T: Send, S: Send>(
        &mut self,
        bytes: usize,
        data: &mut [T],
        chunk_len: usize,
        scratch: &mut [S],
        work: impl Fn(&dyn Kernels, usize, &mut [T], &mut S) + Sync,
    ) {
        let (threads, kernels) = (self.threads_for(bytes), self.kernels);
        pool(&mut self.lent).for_chunks(threads, data, chunk_len, scratch, |index, chunk, scratch| {
            work(kernels, index, chunk, scratch)
        });
    }

    fn threads_for(&self, bytes: usize) -> usize {
        if bytes < MIN_SHARED_BYTES { 1 } else { self.threads() }
    }

    fn count(&mut self, x: Operand<'_>, weights: &[Matrix<'_>]) {
        let operand = match x.form() {
            Form::Packed => size_of_val(x.packed),
            Form::Whole => {
                let of_halves = weights.iter().filter_map(|weight| weight.encoding().grouped());
                let halves = of_halves.map(|grouped| grouped.group_cols).any(|cols| cols < ACTIVATION_GROUP);
                let half_sums = if halves { size_of_val(x.half_sums) } else { 0 };
                size_of_val(x.floats)
                    + x.codes.len()
                    + size_of_val(x.scales)
                    + size_of_val(x.sums)
                    + half_sums
            }
        };
        let rows: usize = weights.iter().map(|weight| weight.rows()).sum();
        self.traffic.activation_bytes += (operand + x.tokens() * rows * size_of::<f32>()) as u64;
        self.traffic.weight_bytes += weights.iter().map(|weight| weight.bytes().len() as u64).sum::<u64>();
        if let Some(recording) = &mut pool(&mut self.lent).recording {
            let parts = weights.iter().flat_map(|weight| weight.bytes().parts);
            parts.filter(|part| !part.is_empty()).for_each(|part| recording.reads(part));
        }
    }
}

/// The threads of the current pass.
fn pool(lent: &mut Option<Lent>) -> &mut Pool {
    &mut lent.as_mut().expect("computing is within a pass").pool
}

/// An empty list that reuses the allocation of `list`: collecting from an emptied vector of the
/// same layout keeps its capacity.
pub(crate) fn recycled<A, B>(list: &mut Vec<A>) -> Vec<B> {
    let mut list = std::mem::take(list);
    list.clear();
    list.into_iter().map(|_| unreachable!("the list is empty")).collect()
}

/// A matrix cut into bands of whole blocks.
#[derive(Clone, Copy)]
struct Bands {
    count: usize,
    /// So many bands at the beginning are long; 0 where all are equal.
    first: usize,
    /// Blocks that stay together, except in the last band: kernels of several tokens take two at a
    /// time.
    unit: usize,
}

impl Bands {
    /// Bands for one token: a long one for each thread, then short ones of [`SHORT_BYTES`] or more,
    /// at most [`SHORT_BANDS`] a thread.
    fn of_one(threads: usize, bytes: usize) -> Self {
        let left = (bytes as f64 * (1.0 - LONG_SHARE)) as usize;
        match if threads == 1 { 0 } else { (left / SHORT_BYTES).min(SHORT_BANDS * threads) } {
            0 => Self { count: threads, first: 0, unit: 1 },
            short => Self { count: threads + short, first: threads, unit: 1 },
        }
    }

    /// Blocks of the band `index`; empty where there are more bands than blocks.
    fn blocks(self, weight: &Matrix<'_>, index: usize) -> Range<usize> {
        let units = weight.block_count().div_ceil(self.unit);
        let block = |index: usize| (self.unit_before(units, index) * self.unit).min(weight.block_count());
        block(index)..block(index + 1)
    }

    /// Units of all bands before `index`.
    fn unit_before(self, units: usize, index: usize) -> usize {
        if self.first == 0 {
            return units * index / self.count;
        }
        let long = (units as f64 * LONG_SHARE) as usize;
        match index.checked_sub(self.first) {
            None => long * index / self.first,
            Some(short) => long + (units - long) * short / (self.count - self.first),
        }
    }

    fn rows(self, weight: &Matrix<'_>, index: usize) -> Range<usize> {
        let blocks = self.blocks(weight, index);
        let row = |block: usize| (block * TILE_ROWS).min(weight.rows());
        row(blocks.start)..row(blocks.end)
    }
}

#[cfg(test)]
impl Exec {
    /// An executor within a pass that never ends, on its own engine.
    fn of(kernels: &'static dyn Kernels, threads: usize, batch: usize) -> Self {
        let pool = Pool::new(threads, false).unwrap();
        let mut exec = Self::new(Arc::new(Engine::of(kernels, pool)), batch);
        exec.begin();
        exec
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_format::{Encoding, encode_block};
    use pith_kernels::by_name;

    fn bytes(rows: usize, cols: usize) -> Vec<u8> {
        let weights: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919) % 1013) as f32 / 500.0 - 1.0).collect();
        let mut bytes = vec![0; Encoding::F16.matrix_bytes(rows as u64, cols as u64).unwrap() as usize];
        let block_bytes = bytes.len() / rows.div_ceil(16);
        for (rows, block) in weights.chunks(16 * cols).zip(bytes.chunks_mut(block_bytes)) {
            encode_block(Encoding::F16, rows, cols, block);
        }
        bytes
    }

    /// Results for `tokens` tokens on `threads` threads, of three matrices, one smaller than the
    /// others.
    fn run(threads: usize, tokens: usize) -> (Vec<Vec<f32>>, Traffic) {
        let (cols, shapes) = (96, [700, 5, 333]);
        let kernels = by_name("portable").unwrap();
        let mut exec = Exec::of(kernels, threads, tokens);
        let data = shapes.map(|rows| bytes(rows, cols));
        let weights: [Matrix<'_>; 3] =
            from_fn(|index| Matrix::new(Encoding::F16, shapes[index], cols, &data[index]).unwrap());
        let mut x = Activations::new(tokens, cols);
        let x = x.set(kernels, tokens, cols, |token, x| {
            x.iter_mut().enumerate().for_each(|(i, x)| *x = ((token * 31 + i * 17) % 23) as f32 - 11.0);
        });
        let mut results = shapes.map(|rows| vec![f32::NAN; tokens * rows]);
        let outputs = results.each_mut().map(|result| result.as_mut_slice());
        exec.multiply(x, weights, outputs, |_, first, parts| {
            for (first, part) in first.into_iter().zip(parts) {
                part.iter_mut().enumerate().for_each(|(row, value)| *value += (first + row) as f32);
            }
        });
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
    fn bands_of_one_token_cover_every_block_once() {
        for rows in [1, 16, 17, 700, 5000] {
            let data = vec![0; Encoding::Q8.matrix_bytes(rows as u64, 256).unwrap() as usize];
            let matrix = Matrix::new(Encoding::Q8, rows, 256, &data).unwrap();
            for threads in [1, 2, 3, 64] {
                let cut = Bands::of_one(threads, data.len());
                let mut next = 0;
                for index in 0..cut.count {
                    let blocks = cut.blocks(&matrix, index);
                    assert_eq!(blocks.start, next, "{rows} rows, {threads} threads, band {index}");
                    next = blocks.end;
                }
                assert_eq!(next, matrix.block_count());
            }
        }
        let cut = Bands::of_one(2, 40 << 20);
        assert_eq!((cut.count, cut.first), (2 + 2 * SHORT_BANDS, 2));
        // Too little for short bands.
        assert_eq!(Bands::of_one(2, 64 << 10).count, 2);
        assert_eq!(Bands::of_one(1, 40 << 20).count, 1);
    }

    #[test]
    fn every_byte_of_a_matrix_is_counted_once_a_call() {
        let blocks = 700usize.div_ceil(16) + 1 + 333usize.div_ceil(16);
        for tokens in [1, 4] {
            let (_, traffic) = run(2, tokens);
            assert_eq!(traffic.weight_bytes, (blocks * 96 * 16 * 2) as u64);
            let padded = pith_kernels::padded_len(96);
            let operand = padded * 5 + padded / 32 * 8;
            assert_eq!(traffic.activation_bytes, (tokens * (operand + 4 * (700 + 5 + 333))) as u64);
        }
    }
}
