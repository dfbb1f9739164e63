//! Logits. A head may be stored as a first matrix and a residual matrix, `head = first + residual`.
//! One token's logits can then come from the first matrix alone, with the residual added for the
//! most likely tokens only.

use crate::attention::softcap;
use crate::error::RuntimeError;
use crate::exec::Exec;
use crate::memory::{product, zeros};
use crate::model::Model;
use crate::options::{EXACT_TOKENS, has_stages};
use crate::placement::head_band;
use crate::pool::MAX_THREADS;
use crate::weights::Stored;
use pith_format::{Matrix, TILE_ROWS};
use pith_kernels::Operand;

/// A first-stage logit is assumed to lie within this many standard errors of the exact one.
const STANDARD_ERRORS: f32 = 4.0;

/// Blocks of the residual matrix per chunk of work.
const CHUNK_BLOCKS: usize = 4;

/// Logits per chunk of work.
const CHUNK_LOGITS: usize = 4096;

/// Working memory of the logits.
pub(crate) struct Head {
    two_stage: bool,
    /// Whether pages of the residual matrix are released to the system after use.
    pub release: bool,
    /// Products of several tokens with the whole residual matrix.
    residual: Vec<f32>,
    /// Largest first-stage logit of every block of 16 tokens.
    maxima: Vec<f32>,
    /// Working memory of [`nth_largest`].
    ranked: Vec<f32>,
    /// Blocks of the residual matrix that were multiplied.
    picked: Vec<usize>,
    /// Their products.
    products: Vec<[f32; TILE_ROWS]>,
}

impl Head {
    /// A head for one token at a time, until more is reserved.
    pub fn new(model: &Model, two_stage: bool) -> Result<Self, RuntimeError> {
        let two_stage = two_stage && has_stages(model);
        let staged = if two_stage { model.head_matrix().rows.div_ceil(TILE_ROWS) } else { 0 };
        let mut head = Self {
            two_stage,
            release: false,
            residual: Vec::new(),
            maxima: Vec::with_capacity(staged),
            ranked: Vec::with_capacity(staged * TILE_ROWS),
            picked: Vec::with_capacity(staged),
            products: Vec::with_capacity(staged),
        };
        if !two_stage {
            head.reserve(model, 1)?;
        }
        Ok(head)
    }

    /// Whether one token's logits are computed in two stages.
    pub fn is_staged(&self) -> bool {
        self.two_stage
    }

    /// Allocates memory for the exact logits of this many tokens.
    pub fn reserve(&mut self, model: &Model, tokens: usize) -> Result<(), RuntimeError> {
        let Some(residual) = &model.head_residual else { return Ok(()) };
        let values = product(&[tokens, residual.rows]).unwrap_or(usize::MAX);
        if self.residual.len() < values {
            self.residual = zeros("the logits of the head's second part", values)?;
        }
        Ok(())
    }

    /// Logits of every token of `x`, `tokens × vocab_len`.
    ///
    /// `staged`: a single token, in two stages if the session asked for them.
    ///
    /// For one token, a head that is streamed from the disk is read in bands. For several tokens
    /// its pages are read when touched.
    pub fn logits(
        &mut self,
        model: &Model,
        exec: &mut Exec,
        x: Operand<'_>,
        staged: bool,
        logits: &mut [f32],
    ) {
        let tokens = x.tokens();
        let cap = model.config().logit_softcap;
        let first = model.head_matrix().of(model.bytes());
        let second = model.head_residual.as_ref();
        let staged = second.filter(|_| self.two_stage && staged);
        let second = second.filter(|_| staged.is_none()).map(|residual| residual.of(model.bytes()));
        let bias = model.head_bias.as_ref().map(|bias| exec.vector(bias));
        let finish = |row: usize, logits: &mut [f32], residual: Option<&[f32]>| {
            let bias = bias.map(|bias| &bias[row..]);
            for more in [bias, residual].into_iter().flatten() {
                logits.iter_mut().zip(more).for_each(|(logit, more)| *logit += more);
            }
            if let (Some(cap), None) = (cap, staged) {
                softcap(cap, logits);
            }
        };
        let bands = match (&exec.stream, tokens) {
            (Some(stream), 1) => stream.head_bands(),
            _ => 1,
        };
        let mut left = &mut *logits;
        for band in 0..bands {
            if let Some(stream) = &mut exec.stream {
                stream.enter_head(band);
            }
            let blocks = head_band(first.block_count(), band, bands);
            let (row, part) = (blocks.start * TILE_ROWS, first.band(blocks.clone()));
            let out = left.split_off_mut(..tokens * part.rows()).expect("as many as the head has rows");
            let Some(second) = second else {
                exec.multiply(x, [part], [out], |_, [at], [logits]| finish(row + at, logits, None));
                continue;
            };
            let residual = &mut self.residual[..out.len()];
            exec.multiply(
                x,
                [part, second.band(blocks)],
                [out, residual],
                |_, [at, _], [logits, residual]| {
                    finish(row + at, logits, Some(residual));
                },
            );
        }
        if let (Some(residual), None, true) = (&model.head_residual, staged, self.release) {
            model.storage().release(residual.range.clone());
        }
        if let Some(residual) = staged {
            self.refine(model, exec, x, residual, logits);
            if let Some(cap) = cap {
                let bytes = size_of_val(logits);
                exec.for_chunks(bytes, logits, CHUNK_LOGITS, &mut [(); MAX_THREADS], |_, _, logits, _| {
                    softcap(cap, logits);
                });
            }
        }
    }

    /// The second stage: adds the residual's products to the logits of all tokens that may be among
    /// the [`EXACT_TOKENS`] most likely, within [`STANDARD_ERRORS`] of the first stage.
    ///
    /// The standard error is estimated from the blocks of the [`EXACT_TOKENS`] tokens that seem
    /// most likely.
    fn refine(
        &mut self,
        model: &Model,
        exec: &mut Exec,
        x: Operand<'_>,
        stored: &Stored,
        logits: &mut [f32],
    ) {
        let residual = stored.of(model.bytes());
        let largest = |block: &[f32]| block.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        self.maxima.clear();
        self.maxima.extend(logits.chunks(TILE_ROWS).map(largest));
        self.ranked.clear();
        self.ranked.extend_from_slice(&self.maxima);
        let floor = nth_largest(&mut self.ranked, EXACT_TOKENS);
        self.picked.clear();
        self.products.clear();
        self.add_blocks(exec, x, residual, logits, |maximum| maximum >= floor);

        self.ranked.clear();
        let (mut squares, mut count) = (0.0, 0);
        for (&block, products) in self.picked.iter().zip(&self.products) {
            let rows = block * TILE_ROWS..logits.len().min((block + 1) * TILE_ROWS);
            squares += products[..rows.len()].iter().map(|error| error * error).sum::<f32>();
            count += rows.len();
            self.ranked.extend_from_slice(&logits[rows]);
        }
        let error = (squares / count.max(1) as f32).sqrt();
        let reach = nth_largest(&mut self.ranked, EXACT_TOKENS) - STANDARD_ERRORS * error;
        self.add_blocks(exec, x, residual, logits, |maximum| maximum >= reach && maximum < floor);

        if self.release {
            for &block in &self.picked {
                let ranges = residual.block_ranges(block..block + 1);
                for range in ranges.into_iter().filter(|range| !range.is_empty()) {
                    let start = stored.range.start;
                    model.storage().release(start + range.start..start + range.end);
                }
            }
        }
    }

    /// Adds the residual's products for the blocks whose largest logit is `wanted`.
    fn add_blocks(
        &mut self,
        exec: &mut Exec,
        x: Operand<'_>,
        residual: Matrix<'_>,
        logits: &mut [f32],
        wanted: impl Fn(f32) -> bool,
    ) {
        let before = self.picked.len();
        self.picked.extend((0..self.maxima.len()).filter(|&block| wanted(self.maxima[block])));
        self.products.resize(self.picked.len(), [0.0; TILE_ROWS]);
        let (picked, products) = (&self.picked[before..], &mut self.products[before..]);
        let bytes = picked.iter().map(|&block| residual.block_bytes(block)).sum::<usize>();
        exec.traffic.weight_bytes += bytes as u64;
        exec.traffic.activation_bytes += size_of_val(products) as u64;
        exec.for_chunks(
            bytes,
            products,
            CHUNK_BLOCKS,
            &mut [(); MAX_THREADS],
            |kernels, chunk, products, _| {
                for (&block, products) in picked[chunk * CHUNK_BLOCKS..].iter().zip(products) {
                    let part = residual.band(block..block + 1);
                    kernels.mat_vec(part, x, &mut products[..part.rows()]);
                }
            },
        );
        for (&block, products) in picked.iter().zip(products) {
            let rows = &mut logits[block * TILE_ROWS..];
            rows.iter_mut().zip(products).for_each(|(logit, more)| *logit += *more);
        }
    }
}

/// The `n`-th largest value, or the smallest where there are fewer; negative infinity of an empty
/// slice. Reorders the values.
fn nth_largest(values: &mut [f32], n: usize) -> f32 {
    let Some(last) = values.len().checked_sub(1) else { return f32::NEG_INFINITY };
    *values.select_nth_unstable_by((n - 1).min(last), |a, b| b.total_cmp(a)).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_largest_counts_from_the_top() {
        let values = [3.0, -1.0, 7.0, 7.0, 2.0];
        let found = [1, 2, 3, 5, 9].map(|n| nth_largest(&mut values.to_vec(), n));
        assert_eq!(found, [7.0, 7.0, 3.0, -1.0, -1.0]);
        assert_eq!(nth_largest(&mut [], 4), f32::NEG_INFINITY);
    }
}
