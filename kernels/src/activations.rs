//! What a matrix is multiplied with: activations as floats and, rounded once for all matrices that read them, as
//! int8.

use crate::Kernels;
use pith_format::Matrix;
use pith_format::encoding::MAX_TILE_COLS;

/// Columns that share one scale in rounded activations.
pub const ACTIVATION_GROUP: usize = 32;

/// `cols` and the zeros behind it that let a kernel read whole tiles of any encoding.
pub fn padded_len(cols: usize) -> usize {
    cols.next_multiple_of(MAX_TILE_COLS)
}

/// Activations of one or more tokens, zero-padded to [`padded_len`] each.
///
/// Allocated once for the largest shape; [`Activations::set`] fills it without allocating.
#[derive(Clone, Debug)]
pub struct Activations {
    tokens: usize,
    cols: usize,
    floats: Vec<f32>,
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

/// A view of [`Activations`]: `tokens × cols`, each token [`Operand::stride`] values apart.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    tokens: usize,
    cols: usize,
    /// `tokens × stride`.
    pub floats: &'a [f32],
    /// `tokens × stride`: `x ≈ scale · code`.
    pub codes: &'a [i8],
    /// `tokens × stride / 32`.
    pub scales: &'a [f32],
    /// `tokens × stride / 32`: the sum of each group's codes, which an encoding with unsigned codes subtracts.
    pub sums: &'a [i32],
}

impl Activations {
    /// Room for `max_tokens` of up to `max_cols` values.
    pub fn new(max_tokens: usize, max_cols: usize) -> Self {
        let len = max_tokens * padded_len(max_cols);
        let groups = len / ACTIVATION_GROUP;
        Self {
            tokens: 0,
            cols: 0,
            floats: vec![0.0; len],
            codes: vec![0; len],
            scales: vec![0.0; groups],
            sums: vec![0; groups],
        }
    }

    /// Takes `tokens × cols` values through `write`, which fills one padded-free token at a time, then rounds them.
    ///
    /// Panics if they do not fit.
    pub fn set(
        &mut self,
        kernels: &dyn Kernels,
        tokens: usize,
        cols: usize,
        mut write: impl FnMut(usize, &mut [f32]),
    ) -> Operand<'_> {
        let stride = padded_len(cols);
        assert!(tokens * stride <= self.floats.len(), "{tokens} tokens of {cols} do not fit");
        (self.tokens, self.cols) = (tokens, cols);
        for (token, floats) in self.floats.chunks_exact_mut(stride).take(tokens).enumerate() {
            write(token, &mut floats[..cols]);
            floats[cols..].fill(0.0);
        }
        let (len, groups) = (tokens * stride, tokens * stride / ACTIVATION_GROUP);
        kernels.quantize(
            &self.floats[..len],
            &mut self.codes[..len],
            &mut self.scales[..groups],
            &mut self.sums[..groups],
        );
        self.operand()
    }

    /// What was last set.
    pub fn operand(&self) -> Operand<'_> {
        let len = self.tokens * padded_len(self.cols);
        Operand {
            tokens: self.tokens,
            cols: self.cols,
            floats: &self.floats[..len],
            codes: &self.codes[..len],
            scales: &self.scales[..len / ACTIVATION_GROUP],
            sums: &self.sums[..len / ACTIVATION_GROUP],
        }
    }
}

impl<'a> Operand<'a> {
    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Values of a token, padding left out.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Panics unless the product of `w` with this fits `y`, one slice of rows a token.
    pub(crate) fn assert_product(&self, w: Matrix<'_>, y: &[&mut [f32]]) {
        assert_eq!((w.cols(), y.len()), (self.cols, self.tokens), "columns and tokens");
        assert!(y.iter().all(|y| y.len() == w.rows()), "rows of every token");
        self.assert_whole();
    }

    /// Panics unless every slice has the length that the shape asks for: the slices are public, and kernels rely on it.
    pub(crate) fn assert_whole(&self) {
        let len = self.tokens * self.stride();
        let group_count = len / ACTIVATION_GROUP;
        assert_eq!((self.floats.len(), self.codes.len()), (len, len), "values of activations");
        assert_eq!((self.scales.len(), self.sums.len()), (group_count, group_count), "groups of activations");
    }

    /// Values from one token to the next.
    pub fn stride(&self) -> usize {
        padded_len(self.cols)
    }

    /// One token of it.
    pub fn token(&self, index: usize) -> Operand<'a> {
        let (stride, groups) = (self.stride(), self.stride() / ACTIVATION_GROUP);
        Operand {
            tokens: 1,
            cols: self.cols,
            floats: &self.floats[index * stride..][..stride],
            codes: &self.codes[index * stride..][..stride],
            scales: &self.scales[index * groups..][..groups],
            sums: &self.sums[index * groups..][..groups],
        }
    }
}
