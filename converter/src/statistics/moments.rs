//! Sums over the activations of one site: per column, and of all pairs of columns.

use std::time::{Duration, Instant};

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use pith_runtime::Inputs;
use rayon::ThreadPool;
use rayon::prelude::*;

/// Tokens whose products are summed in f32 before they are added to the sums in f64.
const BLOCK_TOKENS: usize = 2048;

/// Largest edge of a submatrix of the Gram matrix: its f32 part then stays in a core's second-level
/// cache.
const MAX_EDGE: usize = 512;

/// Sums over all tokens at a site.
pub(super) struct Moments {
    cols: usize,
    pub tokens: u64,
    sums: Vec<f64>,
    absolutes: Vec<f64>,
    squares: Vec<f64>,
    products: Option<Products>,
    /// Time spent on products of pairs.
    pub product_time: Duration,
}

/// `Σ x xᵀ`, in submatrices on and above the diagonal.
struct Products {
    /// Tokens not yet added, at most `BLOCK_TOKENS × cols` values.
    block: Vec<f32>,
    submatrices: Vec<Submatrix>,
}

/// Part of a square matrix: `rows × cols` entries from `row` and `col` on.
struct Submatrix {
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
    sums: Vec<f64>,
}

impl Moments {
    /// Sums for activations of `cols` values; `products`: also for all pairs.
    pub fn new(cols: usize, products: bool) -> Self {
        let zeros = || vec![0.0; cols];
        Self {
            cols,
            tokens: 0,
            sums: zeros(),
            absolutes: zeros(),
            squares: zeros(),
            products: products.then(|| Products::new(cols)),
            product_time: Duration::ZERO,
        }
    }

    /// Bytes of [`Moments::new`] on `threads` threads, with its block full.
    pub fn bytes(cols: usize, products: bool, threads: usize) -> u64 {
        let edge = submatrix_edge(cols) as u64;
        let cols = cols as u64;
        let sums = 3 * 8 * cols;
        if !products {
            return sums;
        }
        let submatrices = cols.div_ceil(edge);
        let block = 4 * BLOCK_TOKENS as u64 * cols;
        // The operands that the product packs take less than the submatrix itself.
        let threads = threads as u64 * 4 * (2 * edge * edge + 2 * edge * BLOCK_TOKENS as u64);
        sums + block + 8 * edge * edge * (submatrices * (submatrices + 1) / 2) + threads
    }

    /// Adds some tokens; products are computed on the threads of `pool`.
    pub fn add(&mut self, inputs: &Inputs<'_>, pool: &ThreadPool) {
        assert_eq!(inputs.cols(), self.cols);
        self.tokens += inputs.tokens() as u64;
        for row in inputs.rows() {
            let sums = self.sums.iter_mut().zip(&mut self.absolutes).zip(&mut self.squares);
            for (&value, ((sum, absolute), square)) in row.iter().zip(sums) {
                let value = f64::from(value);
                *sum += value;
                *absolute += value.abs();
                *square += value * value;
            }
        }
        let Some(products) = &mut self.products else { return };
        let started = Instant::now();
        for row in inputs.rows() {
            products.block.extend_from_slice(row);
            if products.block.len() == BLOCK_TOKENS * self.cols {
                pool.install(|| products.flush(self.cols));
            }
        }
        self.product_time += started.elapsed();
    }

    /// Number of values of an activation.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The first column with a value that is not finite.
    pub fn not_finite(&self) -> Option<usize> {
        // A sum of squares of finite f32 values cannot leave the range of f64.
        self.squares.iter().position(|square| !square.is_finite())
    }

    /// Means of x², x and |x| per column.
    pub fn means(&self) -> [Vec<f32>; 3] {
        let tokens = self.tokens as f64;
        [&self.squares, &self.sums, &self.absolutes]
            .map(|sums| sums.iter().map(|sum| (sum / tokens) as f32).collect())
    }

    /// Adds the remaining tokens, then calls `write` with every row of `E[x xᵀ]` from its diagonal
    /// on.
    pub fn write_gram<X>(
        &mut self,
        pool: &ThreadPool,
        mut write: impl FnMut(&[f32]) -> Result<(), X>,
    ) -> Result<(), X> {
        let cols = self.cols;
        let Some(products) = &mut self.products else { return Ok(()) };
        let started = Instant::now();
        pool.install(|| products.flush(cols));
        self.product_time += started.elapsed();
        write_rows(&products.submatrices, cols, self.tokens, |row, line| write(&line[row..]))
    }
}

/// `Σ (x − x̂) x̂ᵀ` of two models at a site.
pub(super) struct Cross {
    cols: usize,
    /// Tokens not yet added: `x − x̂`, and `x̂`.
    block: [Vec<f32>; 2],
    submatrices: Vec<Submatrix>,
}

impl Cross {
    /// Sums for activations of `cols` values.
    pub fn new(cols: usize) -> Self {
        let room = || Vec::with_capacity(BLOCK_TOKENS * cols);
        Self { cols, block: [room(), room()], submatrices: submatrices(cols, |_, _| true) }
    }

    /// Bytes with its blocks full, without the memory that [`Moments`] takes for its threads.
    pub fn bytes(cols: usize) -> u64 {
        let cols = cols as u64;
        8 * cols * cols + 2 * 4 * BLOCK_TOKENS as u64 * cols
    }

    /// Adds some tokens on the threads of `pool`: `dense` holds the dense model's activations,
    /// `other` the other model's.
    pub fn add<'a>(&mut self, dense: &[f32], other: impl Iterator<Item = &'a [f32]>, pool: &ThreadPool) {
        for (dense, other) in dense.chunks_exact(self.cols).zip(other) {
            self.block[0].extend(dense.iter().zip(other).map(|(dense, other)| dense - other));
            self.block[1].extend_from_slice(other);
            if self.block[1].len() == BLOCK_TOKENS * self.cols {
                pool.install(|| self.flush());
            }
        }
    }

    /// Adds the remaining tokens, then calls `write` with every row of `E[(x − x̂) x̂ᵀ]`, a mean
    /// over `tokens`.
    pub fn write<X>(
        &mut self,
        tokens: u64,
        pool: &ThreadPool,
        mut write: impl FnMut(&[f32]) -> Result<(), X>,
    ) -> Result<(), X> {
        pool.install(|| self.flush());
        write_rows(&self.submatrices, self.cols, tokens, |_, row| write(row))
    }

    fn flush(&mut self) {
        let [left, right] = &self.block;
        add_products(&mut self.submatrices, left, right, self.cols);
        self.block.iter_mut().for_each(Vec::clear);
    }
}

/// Submatrices of a square that `wanted` accepts, filled with zeros.
fn submatrices(cols: usize, wanted: impl Fn(usize, usize) -> bool) -> Vec<Submatrix> {
    let edge = submatrix_edge(cols);
    let starts = || (0..cols).step_by(edge);
    let places = starts().flat_map(|row| starts().map(move |col| (row, col)));
    let submatrix = |(row, col)| {
        let (rows, cols) = (edge.min(cols - row), edge.min(cols - col));
        Submatrix { row, col, rows, cols, sums: vec![0.0; rows * cols] }
    };
    places.filter(|&(row, col)| wanted(row, col)).map(submatrix).collect()
}

/// Adds `leftᵀ · right`, each `tokens × cols`, on the threads of the current pool.
fn add_products(submatrices: &mut [Submatrix], left: &[f32], right: &[f32], cols: usize) {
    let [left, right] = [left, right].map(|x| MatRef::from_row_major_slice(x, x.len() / cols, cols));
    submatrices.par_iter_mut().for_each_init(Vec::new, |part: &mut Vec<f32>, submatrix| {
        part.resize(submatrix.rows * submatrix.cols, 0.0);
        let left = left.subcols(submatrix.row, submatrix.rows).transpose();
        let right = right.subcols(submatrix.col, submatrix.cols);
        let sums = MatMut::from_row_major_slice_mut(part, submatrix.rows, submatrix.cols);
        matmul(sums, Accum::Replace, left, right, 1.0, Par::Seq);
        submatrix.sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(*part));
    });
}

/// Every row of the means over `tokens`. Columns without a submatrix keep the values of the row
/// before.
fn write_rows<X>(
    submatrices: &[Submatrix],
    cols: usize,
    tokens: u64,
    mut write: impl FnMut(usize, &[f32]) -> Result<(), X>,
) -> Result<(), X> {
    let mut line = vec![0.0f32; cols];
    for row in 0..cols {
        for submatrix in submatrices
            .iter()
            .filter(|submatrix| (submatrix.row..submatrix.row + submatrix.rows).contains(&row))
        {
            let sums = &submatrix.sums[(row - submatrix.row) * submatrix.cols..][..submatrix.cols];
            for (value, sum) in line[submatrix.col..].iter_mut().zip(sums) {
                *value = (sum / tokens as f64) as f32;
            }
        }
        write(row, &line)?;
    }
    Ok(())
}

impl Products {
    fn new(cols: usize) -> Self {
        Self {
            block: Vec::with_capacity(BLOCK_TOKENS * cols),
            submatrices: submatrices(cols, |row, col| col >= row),
        }
    }

    /// Adds the products of the remaining tokens, on the threads of the current pool.
    fn flush(&mut self, cols: usize) {
        if self.block.is_empty() {
            return;
        }
        add_products(&mut self.submatrices, &self.block, &self.block, cols);
        self.block.clear();
    }
}

/// Edge of the submatrices of a Gram matrix: small enough that several threads have work.
fn submatrix_edge(cols: usize) -> usize {
    (cols / 6).next_multiple_of(64).clamp(64, MAX_EDGE)
}
