//! Activations of a matrix product: f32, and int8 rounded once for all matrices that read them.

use crate::Kernels;
use pith_format::Matrix;
use pith_format::encoding::MAX_TILE_COLS;

/// Columns that share one scale in rounded activations.
pub const ACTIVATION_GROUP: usize = 32;

/// Half of them.
pub(crate) const HALF_GROUP: usize = ACTIVATION_GROUP / 2;

/// Tokens whose rounded activations are packed together for products of many tokens.
pub const PACKED_TOKENS: usize = 6;

/// Fewest tokens for which activations are packed.
pub const MIN_PACKED: usize = crate::FEW_TOKENS;

/// One group of columns of [`PACKED_TOKENS`] tokens, in a kernel's reading order.
///
/// First, for every four columns, one word per token: bytes `code + 128`, first column lowest. Then
/// the bits of one scale per token, then the bits of one float: scale times the sum of the codes,
/// which minima of weights are multiplied with. Missing tokens are zeros of scale 0.
pub type PackedGroup = [u32; PACKED_TOKENS * (ACTIVATION_GROUP / 4 + 2)];

/// Length of a token of `cols` values with the zeros behind it, so that kernels read whole tiles of
/// any encoding.
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
    half_sums: Vec<i32>,
    packed: Vec<PackedGroup>,
    /// Groups of `packed` in use: all or none.
    packed_len: usize,
    /// Form of the activations last set.
    form: Form,
}

/// Form in which activations are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Floats and codes; also packed, for many tokens and kernels that [pack](Kernels::packs).
    Whole,
    /// Packed alone, where packing applies. Enough for matrices whose encoding the kernels [read
    /// packed](Kernels::reads_packed).
    Packed,
}

/// A view of [`Activations`]: `tokens × cols`, each token [`Operand::stride`] values apart.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    tokens: usize,
    cols: usize,
    /// `tokens × stride`. Empty, like codes, scales and sums, where only packed activations are
    /// held.
    pub floats: &'a [f32],
    /// `tokens × stride`: `x ≈ scale · code`.
    pub codes: &'a [i8],
    /// `tokens × stride / 32`.
    pub scales: &'a [f32],
    /// `tokens × stride / 32`: sum of each group's codes. Encodings with unsigned codes use it to
    /// subtract their offset.
    pub sums: &'a [i32],
    /// `tokens × stride / 32`: sum of the first 16 codes of each group, for weights whose groups
    /// are half as wide.
    pub half_sums: &'a [i32],
    /// `tokens / PACKED_TOKENS`, rounded up, times `stride / 32`; or empty.
    pub packed: &'a [PackedGroup],
}

/// A range of tokens of [`Activations`] to fill.
#[derive(Debug)]
pub struct Part<'a> {
    /// Index of its first token.
    pub first: usize,
    cols: usize,
    floats: &'a mut [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
    half_sums: &'a mut [i32],
    packed: &'a mut [PackedGroup],
    form: Form,
}

impl Activations {
    /// Allocates for up to `max_tokens` tokens of up to `max_cols` values.
    pub fn new(max_tokens: usize, max_cols: usize) -> Self {
        let len = max_tokens * padded_len(max_cols);
        let groups = len / ACTIVATION_GROUP;
        Self {
            floats: vec![0.0; len],
            codes: vec![0; len],
            scales: vec![0.0; groups],
            sums: vec![0; groups],
            half_sums: vec![0; groups],
            ..Self::packed(max_tokens, max_cols)
        }
    }

    /// Allocates packed activations alone, for up to `max_tokens` tokens of up to `max_cols`
    /// values.
    pub fn packed(max_tokens: usize, max_cols: usize) -> Self {
        let packed = match max_tokens {
            ..MIN_PACKED => 0,
            _ => max_tokens.div_ceil(PACKED_TOKENS) * padded_len(max_cols) / ACTIVATION_GROUP,
        };
        Self {
            tokens: 0,
            cols: 0,
            floats: Vec::new(),
            codes: Vec::new(),
            scales: Vec::new(),
            sums: Vec::new(),
            half_sums: Vec::new(),
            packed: vec![[0; _]; packed],
            packed_len: 0,
            form: Form::Packed,
        }
    }

    /// Bytes that [`Activations::new`] allocates; `None` where they overflow.
    pub fn bytes(max_tokens: usize, max_cols: usize) -> Option<usize> {
        let groups = max_tokens.checked_mul(padded_len(max_cols))? / ACTIVATION_GROUP;
        let rounded =
            ACTIVATION_GROUP * (size_of::<f32>() + size_of::<i8>()) + size_of::<f32>() + 2 * size_of::<i32>();
        // Rounding up to whole packs less than doubles the tokens.
        let packed = size_of::<PackedGroup>().div_ceil(PACKED_TOKENS) * 2;
        groups.checked_mul(rounded + packed)
    }

    /// Fills `tokens × cols` values through `write`, one token at a time without its padding, then
    /// rounds them to the [whole](Form::Whole) form.
    ///
    /// Panics if they do not fit.
    pub fn set(
        &mut self,
        kernels: &dyn Kernels,
        tokens: usize,
        cols: usize,
        mut write: impl FnMut(usize, &mut [f32]),
    ) -> Operand<'_> {
        for mut part in self.parts(kernels, tokens, cols, Form::Whole) {
            part.set(kernels, &mut write);
        }
        self.operand()
    }

    /// Splits `tokens × cols` activations into parts of a few tokens. The caller must
    /// [set](Part::set) every part; several threads may share them where there are many.
    ///
    /// Panics if they do not fit.
    pub fn parts(
        &mut self,
        kernels: &dyn Kernels,
        tokens: usize,
        cols: usize,
        form: Form,
    ) -> impl Iterator<Item = Part<'_>> {
        let stride = padded_len(cols);
        let (len, groups) = (tokens * stride, tokens * stride / ACTIVATION_GROUP);
        assert!(len <= self.floats.len(), "{tokens} tokens of {cols} do not fit");
        (self.tokens, self.cols) = (tokens, cols);
        let packs = kernels.packs() && tokens >= MIN_PACKED;
        self.packed_len = if packs { tokens.div_ceil(PACKED_TOKENS) * stride / ACTIVATION_GROUP } else { 0 };
        self.form = if packs { form } else { Form::Whole };
        let form = self.form;
        let (part_len, part_groups) = (PACKED_TOKENS * stride, PACKED_TOKENS * stride / ACTIVATION_GROUP);
        let mut packed = self.packed[..self.packed_len].chunks_mut(stride / ACTIVATION_GROUP);
        let floats = self.floats[..len].chunks_mut(part_len).zip(self.codes[..len].chunks_mut(part_len));
        let sums = self.sums[..groups].chunks_mut(part_groups);
        let sums = sums.zip(self.half_sums[..groups].chunks_mut(part_groups));
        let rounded = self.scales[..groups].chunks_mut(part_groups).zip(sums);
        let parts = floats.zip(rounded).enumerate();
        parts.map(move |(index, ((floats, codes), (scales, (sums, half_sums))))| Part {
            first: index * PACKED_TOKENS,
            cols,
            floats,
            codes,
            scales,
            sums,
            half_sums,
            packed: packed.next().unwrap_or_default(),
            form,
        })
    }

    /// The packed groups of `tokens × cols` activations, packed alone: pack after pack,
    /// [`padded_len`] columns each. The caller must set every group that has columns below `cols`,
    /// with [`pack_rows`].
    ///
    /// Panics if they do not fit, or are too few to be packed.
    pub fn packed_mut(&mut self, tokens: usize, cols: usize) -> &mut [PackedGroup] {
        let len = tokens.div_ceil(PACKED_TOKENS) * padded_len(cols) / ACTIVATION_GROUP;
        assert!(tokens >= MIN_PACKED && len <= self.packed.len(), "{tokens} tokens of {cols} do not fit");
        (self.tokens, self.cols, self.packed_len, self.form) = (tokens, cols, len, Form::Packed);
        &mut self.packed[..len]
    }

    /// The activations last set.
    pub fn operand(&self) -> Operand<'_> {
        let len = match self.form {
            Form::Whole => self.tokens * padded_len(self.cols),
            Form::Packed => 0,
        };
        Operand {
            tokens: self.tokens,
            cols: self.cols,
            floats: &self.floats[..len],
            codes: &self.codes[..len],
            scales: &self.scales[..len / ACTIVATION_GROUP],
            sums: &self.sums[..len / ACTIVATION_GROUP],
            half_sums: &self.half_sums[..len / ACTIVATION_GROUP],
            packed: &self.packed[..self.packed_len],
        }
    }
}

impl Part<'_> {
    /// Fills every token through `write`, which gets the token's number, then rounds them.
    pub fn set(&mut self, kernels: &dyn Kernels, mut write: impl FnMut(usize, &mut [f32])) {
        let stride = padded_len(self.cols);
        let groups = stride / ACTIVATION_GROUP;
        let tokens = self.floats.len() / stride;
        if tokens < PACKED_TOKENS {
            self.packed.fill(NO_TOKENS);
        }
        for token in 0..tokens {
            // In packed form nothing reads the floats and codes later: all tokens reuse the first
            // one's place, which stays in the L1 cache.
            let place = if self.form == Form::Whole { token } else { 0 };
            let floats = &mut self.floats[place * stride..][..stride];
            write(self.first + token, &mut floats[..self.cols]);
            floats[self.cols..].fill(0.0);
            let codes = &mut self.codes[place * stride..][..stride];
            let scales = &mut self.scales[place * groups..][..groups];
            let sums = &mut self.sums[place * groups..][..groups];
            // Groups of padding are zeros without any computation.
            let used = self.cols.div_ceil(ACTIVATION_GROUP);
            let (used_codes, rest) = codes.split_at_mut(used * ACTIVATION_GROUP);
            kernels.quantize(&floats[..used_codes.len()], used_codes, &mut scales[..used], &mut sums[..used]);
            rest.fill(0);
            scales[used..].fill(0.0);
            sums[used..].fill(0);
            if self.form == Form::Whole {
                let halves = self.half_sums[place * groups..][..groups].iter_mut();
                for (half, codes) in halves.zip(codes.as_chunks::<ACTIVATION_GROUP>().0) {
                    *half = half_sum(codes);
                }
            }
            pack(codes, scales, sums, token, self.packed);
        }
    }
}

/// The sum of the first half of a group's codes. Unsigned bytes are summed by one instruction.
fn half_sum(codes: &[i8; ACTIVATION_GROUP]) -> i32 {
    let raised = codes[..HALF_GROUP].iter().map(|&code| u32::from(code.cast_unsigned() ^ 0x80));
    raised.sum::<u32>().cast_signed() - 128 * HALF_GROUP as i32
}

/// A pack of zeros.
const NO_TOKENS: PackedGroup = {
    let mut group = [0x8080_8080; _];
    let mut token = 0;
    while token < 2 * PACKED_TOKENS {
        group[PACKED_TOKENS * (ACTIVATION_GROUP / 4) + token] = 0;
        token += 1;
    }
    group
};

/// Columns rounded together.
const PACKED_COLS: usize = 8 * ACTIVATION_GROUP;

/// Rounds and packs some columns of up to [`PACKED_TOKENS`] tokens. `rows` is `tokens × cols`;
/// `packed` gets zeros behind the last column.
pub fn pack_rows(kernels: &dyn Kernels, rows: &[f32], cols: usize, packed: &mut [PackedGroup]) {
    assert!(rows.len() <= PACKED_TOKENS * cols && cols <= packed.len() * ACTIVATION_GROUP);
    if rows.len() < PACKED_TOKENS * cols {
        packed.fill(NO_TOKENS);
    }
    let mut padded = [0.0; PACKED_COLS];
    let mut codes = [0; PACKED_COLS];
    let (mut scales, mut sums) = ([0.0; PACKED_COLS / ACTIVATION_GROUP], [0; PACKED_COLS / ACTIVATION_GROUP]);
    for (token, row) in rows.chunks_exact(cols).enumerate() {
        for (row, packed) in row.chunks(PACKED_COLS).zip(packed.chunks_mut(PACKED_COLS / ACTIVATION_GROUP)) {
            let groups = row.len().div_ceil(ACTIVATION_GROUP);
            let (codes, scales) = (&mut codes[..groups * ACTIVATION_GROUP], &mut scales[..groups]);
            let row = if row.len() == codes.len() {
                row
            } else {
                padded[..row.len()].copy_from_slice(row);
                padded[row.len()..].fill(0.0);
                &padded[..codes.len()]
            };
            let sums = &mut sums[..groups];
            kernels.quantize(row, codes, scales, sums);
            pack(codes, scales, sums, token, packed);
        }
    }
}

/// Writes the codes, scales and sums of one token to its place in packed groups.
fn pack(codes: &[i8], scales: &[f32], sums: &[i32], token: usize, packed: &mut [PackedGroup]) {
    let groups = codes.as_chunks::<ACTIVATION_GROUP>().0.iter().zip(scales).zip(sums);
    for (((codes, scale), sum), packed) in groups.zip(packed) {
        let (words, floats) = packed.split_at_mut(PACKED_TOKENS * (ACTIVATION_GROUP / 4));
        for (words, codes) in words.chunks_exact_mut(PACKED_TOKENS).zip(codes.as_chunks::<4>().0) {
            words[token] = u32::from_le_bytes(codes.map(|code| code as u8)) ^ 0x8080_8080;
        }
        floats[token] = scale.to_bits();
        floats[PACKED_TOKENS + token] = (scale * *sum as f32).to_bits();
    }
}

impl<'a> Operand<'a> {
    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Form that is held.
    pub fn form(&self) -> Form {
        match self.floats.is_empty() && !self.packed.is_empty() {
            true => Form::Packed,
            false => Form::Whole,
        }
    }

    /// Values of a token, without padding.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Panics unless the product of `w` with these activations fits `y`, one slice of rows per
    /// token.
    pub(crate) fn assert_product(&self, w: Matrix<'_>, y: &[&mut [f32]]) {
        assert_eq!((w.cols(), y.len()), (self.cols, self.tokens), "columns and tokens");
        assert!(y.iter().all(|y| y.len() == w.rows()), "rows of every token");
        self.assert_whole();
    }

    /// Panics unless every slice has the length its shape asks for. The slices are public, and
    /// kernels rely on their lengths.
    pub(crate) fn assert_whole(&self) {
        let len = match self.form() {
            Form::Whole => self.tokens * self.stride(),
            Form::Packed => 0,
        };
        let group_count = len / ACTIVATION_GROUP;
        assert_eq!((self.floats.len(), self.codes.len()), (len, len), "values of activations");
        assert_eq!((self.scales.len(), self.sums.len()), (group_count, group_count), "groups of activations");
        assert_eq!(self.half_sums.len(), group_count, "halves of groups of activations");
        let packed_count = self.tokens.div_ceil(PACKED_TOKENS) * self.stride() / ACTIVATION_GROUP;
        assert!(self.packed.is_empty() || self.packed.len() == packed_count, "packed groups of activations");
    }

    /// Values from one token to the next.
    pub fn stride(&self) -> usize {
        padded_len(self.cols)
    }

    /// One token of the view.
    pub fn token(&self, index: usize) -> Operand<'a> {
        let (stride, groups) = (self.stride(), self.stride() / ACTIVATION_GROUP);
        Operand {
            tokens: 1,
            cols: self.cols,
            floats: &self.floats[index * stride..][..stride],
            codes: &self.codes[index * stride..][..stride],
            scales: &self.scales[index * groups..][..groups],
            sums: &self.sums[index * groups..][..groups],
            half_sums: &self.half_sums[index * groups..][..groups],
            packed: &[],
        }
    }
}
