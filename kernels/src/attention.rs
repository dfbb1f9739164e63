//! Attention of the query heads that share a key head, over a run of positions.
//!
//! A run ends in *records*, one per query: `Σ w·value`, the exponent `m` subtracted from all
//! weights, and `Σ w`, with `w = 2^(score · log₂ e − m)`. Records of different runs can be added,
//! so different threads can work on different runs, and a long prompt never holds the scores of
//! more than one run.
//!
//! A query's result does not depend on the other queries of the call; only [`Attention::few`] may
//! change its last bits. Sums go position by position (in a score, dimension by dimension), and
//! positions that the query does not see add zeros.

use crate::KvRows;
use std::ops::Range;

/// Most positions of a run.
pub const ATTENTION_SPAN: usize = 256;

/// Queries worked on together. In a call of many tokens, aim at this for tokens × query heads per
/// key head.
pub const ATTENTION_QUERIES: usize = 48;

/// Floats of a record behind the mix: the exponent, then the sum of the weights.
pub const ATTENTION_TAIL: usize = 2;

/// Positions of one step, whose keys or values are widened together.
pub(crate) const STEP: usize = 64;

/// Queries that share the load of a key or value.
pub(crate) const ROWS: usize = 6;

/// `2^r` for `|r| ≤ ½` to `2⁻²⁵`, highest power first: the polynomial of least relative error among
/// those equal to 1 at 0.
pub(crate) const EXP2_COEFFICIENTS: [f32; 7] = [
    0.000_153_533_7,
    0.001_339_887_7,
    0.009_618_437,
    0.055_503_324,
    0.240_226_48,
    std::f32::consts::LN_2,
    1.0,
];

/// Floats of a cache line: parts of the scratch begin at a line, and rows are padded to whole
/// lines.
const LINE: usize = 16;

/// Inputs of one call of [`Kernels::attention`](crate::Kernels::attention).
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Keys of the positions `start …`.
    pub keys: KvRows<'a>,
    /// Values of the same positions.
    pub values: KvRows<'a>,
    /// Position of the first key.
    pub start: usize,
    /// `group × head_dim` queries at the beginning of each `stride` floats, one stride per token.
    pub queries: &'a [f32],
    /// Floats from one token's queries to the next one's.
    pub stride: usize,
    /// Query heads that share the key head.
    pub group: usize,
    /// Position of the first token. It sees positions up to its own; each later token sees one
    /// more.
    pub first: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// Number of positions a token sees, its own included.
    pub window: usize,
    /// `score = scale · query · key`
    pub scale: f32,
    /// `score ← cap · tanh(score / cap)`
    pub softcap: Option<f32>,
    /// Whether the call has few tokens. Keys and values may then be read in place, since converting
    /// them would take longer than the arithmetic. The last bits of a record may depend on it.
    pub few: bool,
    /// Keys needed next, in the same form: the kernel may prefetch them.
    pub next: Option<KvRows<'a>>,
}

impl<'a> Attention<'a> {
    /// Length of a record.
    pub fn record_len(&self) -> usize {
        self.keys.head_dim() + ATTENTION_TAIL
    }

    /// Positions that a token sees, relative to the first key.
    pub fn visible(&self, token: usize) -> Range<usize> {
        let end = self.first + token + 1;
        let in_run = |position: usize| position.saturating_sub(self.start).min(self.keys.positions());
        in_run(end.saturating_sub(self.window))..in_run(end)
    }

    /// The query heads of one token.
    pub(crate) fn token(&self, token: usize) -> &'a [f32] {
        &self.queries[token * self.stride..][..self.group * self.keys.head_dim()]
    }

    /// Panics where lengths disagree.
    pub(crate) fn check(&self, scratch: &AttentionScratch, records: &[f32]) {
        let (head_dim, positions) = (self.keys.head_dim(), self.keys.positions());
        assert_eq!((head_dim, positions), (self.values.head_dim(), self.values.positions()));
        assert!(positions <= ATTENTION_SPAN && head_dim <= scratch.head_dim && self.group > 0);
        assert_eq!(records.len(), self.tokens * self.group * self.record_len());
    }
}

/// Buffers of one thread for [`Kernels::attention`](crate::Kernels::attention).
pub struct AttentionScratch {
    head_dim: usize,
    buffer: Vec<f32>,
    /// Start of the buffer's first cache line.
    start: usize,
}

/// The parts of a scratch.
pub(crate) struct Parts<'a> {
    /// One row per query.
    pub scores: &'a mut [[f32; ATTENTION_SPAN]],
    /// Keys or values of one step: `head_dim × STEP` keys or `STEP × padded` values.
    pub widened: &'a mut [f32],
    /// Queries in groups of six: `head_dim × ROWS` each.
    pub queries: &'a mut [[f32; ROWS]],
    /// Mixes, padded to whole cache lines.
    pub mixed: &'a mut [f32],
    /// Length of a padded row.
    pub padded: usize,
}

impl AttentionScratch {
    /// Allocates for heads of up to `head_dim` dimensions.
    pub fn new(head_dim: usize) -> Self {
        let buffer = vec![0.0; Self::len(head_dim) + LINE];
        let start = buffer.as_ptr().align_offset(64).min(LINE);
        Self { head_dim, buffer, start }
    }

    /// Bytes of a scratch.
    pub fn bytes(head_dim: usize) -> usize {
        (Self::len(head_dim) + LINE) * size_of::<f32>()
    }

    fn len(head_dim: usize) -> usize {
        let padded = head_dim.next_multiple_of(LINE);
        ATTENTION_QUERIES * ATTENTION_SPAN + padded * (STEP + 2 * ATTENTION_QUERIES)
    }

    pub(crate) fn parts(&mut self, head_dim: usize) -> Parts<'_> {
        let padded = head_dim.next_multiple_of(LINE);
        let (scores, rest) = self.buffer[self.start..].split_at_mut(ATTENTION_QUERIES * ATTENTION_SPAN);
        let (widened, rest) = rest.split_at_mut(padded * STEP);
        let (queries, rest) = rest.split_at_mut(padded * ATTENTION_QUERIES);
        Parts {
            scores: scores.as_chunks_mut().0,
            widened,
            queries: queries.as_chunks_mut().0,
            mixed: &mut rest[..padded * ATTENTION_QUERIES],
            padded,
        }
    }
}

/// The inner loops of one instruction set, for up to [`ROWS`] queries at a time: rows of the
/// scratch.
pub(crate) trait InnerLoops: Copy {
    /// Prefetches rows that are needed soon.
    fn announce(self, rows: KvRows<'_>, positions: Range<usize>);

    /// Transposes the keys of `positions` (at most [`STEP`]): one row per dimension, zeros behind
    /// the last position.
    fn transpose(self, keys: KvRows<'_>, positions: Range<usize>, out: &mut [[f32; STEP]]);

    /// Widens the values of `positions`, `padded` floats each; floats behind a row's end keep their
    /// content.
    fn widen(self, values: KvRows<'_>, positions: Range<usize>, padded: usize, out: &mut [f32]);

    /// `out[q][start + p] = Σ_d queries[d][q] · keys[d][p]` for at least the first `count`
    /// positions of `keys`.
    fn scores(
        self,
        queries: &[[f32; ROWS]],
        keys: &[[f32; STEP]],
        start: usize,
        count: usize,
        out: &mut [[f32; ATTENTION_SPAN]],
    );

    /// `x ← 2^(x − m)` within `visible` and 0 elsewhere; returns `m`, the largest `x` within it,
    /// and the sum. With a cap, `cap · tanh(x / cap)` replaces `x` first, in units of ln 2.
    ///
    /// `turn`: offset of the first position from a multiple of all vector lengths. It makes sums
    /// independent of where a run starts.
    fn powers(self, x: &mut [f32], visible: Range<usize>, softcap: Option<f32>, turn: usize) -> (f32, f32);

    /// `mixed[q][d] += Σ_p weights[q][start + p] · values[p][d]`
    fn mix(
        self,
        weights: &[[f32; ATTENTION_SPAN]],
        start: usize,
        values: &[f32],
        padded: usize,
        mixed: &mut [f32],
    );

    /// `total = a · total + b · part`
    fn blend(self, total: &mut [f32], a: f32, part: &[f32], b: f32);
}

/// The inner loops of one instruction set for few tokens, which read keys and values in place. Up
/// to [`ROWS`] queries at a time.
pub(crate) trait Rows: InnerLoops {
    /// `out[q][start + p] = Σ_d queries[q][d] · keys[p][d]`; `queries` is row after row. Values
    /// behind the last position, up to the next multiple of 16, are unspecified. Meanwhile
    /// prefetches the rows `ahead`, which are needed soon.
    fn row_scores(
        self,
        queries: &[f32],
        keys: KvRows<'_>,
        ahead: Option<KvRows<'_>>,
        start: usize,
        out: &mut [[f32; ATTENTION_SPAN]],
    );

    /// `mixed[q][d] += Σ_p weights[q][start + p] · values[p][d]`; may overwrite the weights.
    /// Meanwhile prefetches the rows `ahead`.
    fn row_mix(
        self,
        weights: &mut [[f32; ATTENTION_SPAN]],
        start: usize,
        values: KvRows<'_>,
        ahead: Option<KvRows<'_>>,
        mixed: &mut [f32],
    );
}

/// [`Kernels::attention`](crate::Kernels::attention) with keys and values widened into the
/// scratch.
pub(crate) fn attention<T: InnerLoops>(
    loops: T,
    task: &Attention<'_>,
    scratch: &mut AttentionScratch,
    records: &mut [f32],
) {
    let head_dim = task.keys.head_dim();
    let score = |step: Range<usize>, start: usize, parts: &mut Parts<'_>, count: usize| {
        let keys = &mut parts.widened.as_chunks_mut().0[..head_dim];
        loops.announce(task.keys, step.end..task.keys.positions().min(step.end + STEP));
        loops.transpose(task.keys, step.clone(), keys);
        loops.announce(task.values, step.clone());
        let scores = parts.scores[..count].chunks_mut(ROWS);
        for (scores, queries) in scores.zip(parts.queries.chunks(head_dim)) {
            loops.scores(queries, keys, start, step.len(), scores);
        }
    };
    let mix = |step: Range<usize>, start: usize, parts: &mut Parts<'_>, count: usize| {
        let padded = parts.padded;
        let values = &mut parts.widened[..step.len() * padded];
        loops.widen(task.values, step, padded, values);
        let mixed = parts.mixed[..count * padded].chunks_mut(ROWS * padded);
        for (weights, mixed) in parts.scores[..count].chunks(ROWS).zip(mixed) {
            loops.mix(weights, start, values, padded, mixed);
        }
    };
    in_steps(loops, task, scratch, records, pack, score, mix);
}

/// [`Kernels::attention`](crate::Kernels::attention) that reads keys and values in place;
/// `head_dim` is a multiple of 16.
pub(crate) fn attention_in_rows<'a, T: Rows>(
    rows: T,
    task: &Attention<'a>,
    scratch: &mut AttentionScratch,
    records: &mut [f32],
) {
    let head_dim = task.keys.head_dim();
    assert!(head_dim.is_multiple_of(LINE));
    let score = |step: Range<usize>, start: usize, parts: &mut Parts<'_>, count: usize| {
        let mut ahead = Some(task.values.slice(step.clone()));
        let queries = &parts.queries.as_flattened()[..count * head_dim];
        let scores = parts.scores[..count].chunks_mut(ROWS);
        for (scores, queries) in scores.zip(queries.chunks(ROWS * head_dim)) {
            rows.row_scores(queries, task.keys.slice(step.clone()), ahead.take(), start, scores);
        }
    };
    let mix = |step: Range<usize>, start: usize, parts: &mut Parts<'_>, count: usize| {
        let soon =
            |next: KvRows<'a>| next.slice(step.start.min(next.positions())..step.end.min(next.positions()));
        let mut ahead = task.next.map(soon);
        let mixed = parts.mixed[..count * head_dim].chunks_mut(ROWS * head_dim);
        for (weights, mixed) in parts.scores[..count].chunks_mut(ROWS).zip(mixed) {
            rows.row_mix(weights, start, task.values.slice(step.clone()), ahead.take(), mixed);
        }
    };
    in_steps(rows, task, scratch, records, pack_rows, score, mix);
}

/// Attention in steps of as many queries as the scratch holds. `pack` copies them into the scratch.
/// `score` and `mix` handle a range of positions, whose scores begin at the second argument, for
/// the given number of queries.
fn in_steps<T: InnerLoops>(
    loops: T,
    task: &Attention<'_>,
    scratch: &mut AttentionScratch,
    records: &mut [f32],
    pack: fn(&Attention<'_>, usize, usize, &mut [[f32; ROWS]]),
    score: impl Fn(Range<usize>, usize, &mut Parts<'_>, usize),
    mix: impl Fn(Range<usize>, usize, &mut Parts<'_>, usize),
) {
    task.check(scratch, records);
    let head_dim = task.keys.head_dim();
    let mut parts = scratch.parts(head_dim);
    for (index, records) in records.chunks_mut(ATTENTION_QUERIES * task.record_len()).enumerate() {
        let (first, count) = (index * ATTENTION_QUERIES, records.len() / task.record_len());
        // Query `n` is head `n % group` of token `n / group`.
        let visible = |query: usize| task.visible((first + query) / task.group);
        let span = visible(0).start..visible(count - 1).end;
        if span.is_empty() {
            continue;
        }
        let padded = parts.padded;
        pack(task, first, count, parts.queries);
        let steps = || span.clone().step_by(STEP).map(|start| start..span.end.min(start + STEP));
        for step in steps() {
            score(step.clone(), step.start - span.start, &mut parts, count);
        }
        let mut sums = [(0.0, 0.0); ATTENTION_QUERIES];
        for (query, (scores, sum)) in parts.scores[..count].iter_mut().zip(&mut sums).enumerate() {
            let Range { start, end } = visible(query);
            let scores = &mut scores[..span.len().next_multiple_of(LINE)];
            let visible = start - span.start..end - span.start;
            *sum = loops.powers(scores, visible, task.softcap, (task.start + span.start) % LINE);
        }
        parts.mixed[..count * padded].fill(0.0);
        for step in steps() {
            mix(step.clone(), step.start - span.start, &mut parts, count);
        }
        let records = records.chunks_exact_mut(task.record_len());
        for ((record, mixed), (exponent, sum)) in records.zip(parts.mixed.chunks_exact(padded)).zip(sums) {
            let blend = |total: &mut [f32], a, part: &[f32], b| loops.blend(total, a, part, b);
            add(record, &mixed[..head_dim], exponent, sum, blend);
        }
    }
}

/// Queries in groups of six, dimension by dimension, times the scale and log₂ e.
fn pack(task: &Attention<'_>, first: usize, count: usize, out: &mut [[f32; ROWS]]) {
    let (head_dim, scale) = (task.keys.head_dim(), task.scale * std::f32::consts::LOG2_E);
    for index in 0..count {
        let (token, head) = ((first + index) / task.group, (first + index) % task.group);
        let query = &task.token(token)[head * head_dim..][..head_dim];
        let out = &mut out[index / ROWS * head_dim..][..head_dim];
        for (out, value) in out.iter_mut().zip(query) {
            out[index % ROWS] = scale * value;
        }
    }
}

/// Queries row after row, times the scale and log₂ e.
fn pack_rows(task: &Attention<'_>, first: usize, count: usize, out: &mut [[f32; ROWS]]) {
    let (head_dim, scale) = (task.keys.head_dim(), task.scale * std::f32::consts::LOG2_E);
    for (index, out) in out.as_flattened_mut().chunks_exact_mut(head_dim).take(count).enumerate() {
        let (token, head) = ((first + index) / task.group, (first + index) % task.group);
        let query = &task.token(token)[head * head_dim..];
        out.iter_mut().zip(query).for_each(|(out, value)| *out = scale * value);
    }
}

/// Adds the records of `parts` to those of `total`. `blend(total, a, part, b)`:
/// `total = a · total + b · part`.
pub(crate) fn merge(
    head_dim: usize,
    parts: &[f32],
    total: &mut [f32],
    blend: impl Fn(&mut [f32], f32, &[f32], f32),
) {
    let len = head_dim + ATTENTION_TAIL;
    assert!(parts.len() == total.len() && total.len().is_multiple_of(len));
    for (part, total) in parts.chunks_exact(len).zip(total.chunks_exact_mut(len)) {
        add(total, &part[..head_dim], part[head_dim], part[head_dim + 1], &blend);
    }
}

/// Adds a mix with this exponent and this sum of weights to a record.
pub(crate) fn add(
    record: &mut [f32],
    mixed: &[f32],
    exponent: f32,
    sum: f32,
    blend: impl Fn(&mut [f32], f32, &[f32], f32),
) {
    let (total, [total_exponent, total_sum]) =
        record.split_last_chunk_mut().expect("a record is longer than its tail");
    // No position was visible, here or so far.
    if sum == 0.0 {
        return;
    }
    if *total_sum == 0.0 {
        total.copy_from_slice(mixed);
        (*total_exponent, *total_sum) = (exponent, sum);
        return;
    }
    let largest = total_exponent.max(exponent);
    // One of the two factors is 2⁰.
    let factor = |exponent: f32| if exponent == largest { 1.0 } else { (exponent - largest).exp2() };
    let (a, b) = (factor(*total_exponent), factor(exponent));
    blend(total, a, mixed, b);
    (*total_exponent, *total_sum) = (largest, a * *total_sum + b * sum);
}
