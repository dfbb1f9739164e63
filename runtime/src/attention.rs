//! Attention over the cache. Each key head's positions are cut into runs at fixed places, and the
//! partial results of the runs are added in order. Results therefore do not depend on the number of
//! threads, nor on the other tokens of a call (calls of few tokens and calls of many each agree
//! among themselves).

use crate::cache::LayerCache;
use crate::error::RuntimeError;
use crate::exec::{Exec, recycled};
use crate::memory::{probe, product, zeros};
use pith_format::{Attention as Config, ModelConfig};
use pith_kernels::{ATTENTION_QUERIES, ATTENTION_SPAN, ATTENTION_TAIL, Attention, AttentionScratch};
use std::ops::Range;

/// Up to this many tokens of a sequence, threads share the positions of a key head; beyond it, they
/// share the tokens.
const SPLIT_TOKENS: usize = 8;

/// Working memory of attention.
pub(crate) struct AttentionBuffers {
    /// One per thread.
    scratch: Vec<Scratch>,
    /// Partial results of few tokens: for every key head, every run, every query.
    parts: Vec<f32>,
    /// Reused memory for every head's part of a token's results; empty between calls.
    outputs: Vec<&'static mut [f32]>,
}

struct Scratch {
    kernels: AttentionScratch,
    /// Partial results of the current block of tokens.
    records: Vec<f32>,
}

impl AttentionBuffers {
    /// Buffers for calls of up to `batch` tokens in a context of `context_len`.
    pub fn new(
        config: &ModelConfig,
        context_len: usize,
        batch: usize,
        threads: usize,
    ) -> Result<Self, RuntimeError> {
        let what = "the attention";
        let Lengths { head_dim, records, parts, outputs } = Lengths::of(config, context_len, batch);
        probe(what, Some(AttentionScratch::bytes(head_dim)))?;
        let scratch = || {
            zeros(what, records).map(|records| Scratch { kernels: AttentionScratch::new(head_dim), records })
        };
        Ok(Self {
            scratch: (0..threads).map(|_| scratch()).collect::<Result<_, _>>()?,
            parts: zeros(what, parts)?,
            outputs: Vec::with_capacity(outputs),
        })
    }

    /// Bytes of [`AttentionBuffers::new`]; `None` on overflow.
    pub fn bytes(config: &ModelConfig, context_len: usize, batch: usize, threads: usize) -> Option<usize> {
        let Lengths { head_dim, records, parts, outputs } = Lengths::of(config, context_len, batch);
        let scratch =
            AttentionScratch::bytes(head_dim).checked_add(records.checked_mul(size_of::<f32>())?)?;
        scratch
            .checked_mul(threads)?
            .checked_add(parts.checked_mul(size_of::<f32>())?)?
            .checked_add(outputs.checked_mul(size_of::<&mut [f32]>())?)
    }
}

/// Values of each buffer.
struct Lengths {
    head_dim: usize,
    records: usize,
    parts: usize,
    outputs: usize,
}

impl Lengths {
    fn of(config: &ModelConfig, context_len: usize, batch: usize) -> Self {
        let largest = |len: &dyn Fn(&Config) -> usize| {
            config.layers.iter().filter_map(|layer| layer.attention().map(len)).max().unwrap_or(0)
        };
        // A window's positions may begin and end inside a run.
        let runs = |layer: &Config| {
            let seen = layer.window.unwrap_or(context_len).saturating_add(SPLIT_TOKENS).min(context_len);
            context_len.div_ceil(ATTENTION_SPAN).min(seen.div_ceil(ATTENTION_SPAN) + 1)
        };
        let few = batch.min(SPLIT_TOKENS);
        let parts = |layer: &Config| {
            let queries = layer.kv_heads() * layer.largest_group();
            product(&[queries, runs(layer), few, record_len(layer)]).unwrap_or(usize::MAX)
        };
        Self {
            head_dim: largest(&|layer| layer.head_dim),
            records: largest(&|layer| token_block(layer) * layer.largest_group() * record_len(layer)),
            parts: largest(&parts),
            outputs: largest(&|layer| layer.kv_heads() * batch.next_multiple_of(token_block(layer))),
        }
    }
}

/// Attention of `queries` for the tokens from position `first` on, which are already in the cache.
///
/// `queries` and `out`: `tokens × heads × head_dim`.
pub(crate) fn attend(
    exec: &mut Exec,
    config: &Config,
    cache: &LayerCache,
    first: usize,
    queries: &[f32],
    buffers: &mut AttentionBuffers,
    out: &mut [f32],
) {
    let tokens = out.len() / config.query_len();
    let call = Call { config, cache, first, queries, few: tokens < pith_kernels::FEW_TOKENS };
    if tokens <= SPLIT_TOKENS {
        call.few_tokens(exec, tokens, buffers, out);
    } else {
        call.many_tokens(exec, tokens, buffers, out);
    }
}

/// Tokens per block in calls of many tokens.
fn token_block(config: &Config) -> usize {
    (ATTENTION_QUERIES / config.largest_group()).max(1)
}

/// The first query head of a key head.
fn first_head(config: &Config, kv_head: usize) -> usize {
    config.query_heads[..kv_head].iter().sum()
}

/// The key head of a query head, and the query head's index among those that share it.
fn key_head(config: &Config, head: usize) -> (usize, usize) {
    let mut within = head;
    for (kv_head, &group) in config.query_heads.iter().enumerate() {
        if within < group {
            return (kv_head, within);
        }
        within -= group;
    }
    unreachable!("query head {head} of {}", config.heads())
}

fn record_len(config: &Config) -> usize {
    config.head_dim + ATTENTION_TAIL
}

struct Call<'a> {
    config: &'a Config,
    cache: &'a LayerCache,
    first: usize,
    queries: &'a [f32],
    /// See [`Attention::few`].
    few: bool,
}

impl Call<'_> {
    /// Computes each run of each key head separately, then combines the runs of each query head.
    fn few_tokens(&self, exec: &mut Exec, tokens: usize, buffers: &mut AttentionBuffers, out: &mut [f32]) {
        let (config, head_dim, record_len) = (self.config, self.config.head_dim, record_len(self.config));
        let heads = config.heads();
        let (runs, read) = (self.runs(&(0..tokens)), self.read_bytes(&(0..tokens)));
        exec.traffic.kv_read_bytes += read;
        let run_len = tokens * config.largest_group() * record_len;
        let parts = &mut buffers.parts[..config.kv_heads() * runs.len() * run_len];
        exec.for_chunks(
            read as usize,
            parts,
            run_len,
            &mut buffers.scratch,
            |kernels, index, records, scratch| {
                let (kv_head, run) = (index / runs.len(), runs.start + index % runs.len());
                let records = &mut records[..tokens * config.query_heads[kv_head] * record_len];
                records.fill(0.0);
                // The next item in the list usually belongs to the same thread.
                let (next_head, next_run) =
                    if run + 1 < runs.end { (kv_head, run + 1) } else { (kv_head + 1, runs.start) };
                let next =
                    (next_head < config.kv_heads()).then(|| self.task(next_head, 0..tokens, next_run).keys);
                let task = Attention { next, ..self.task(kv_head, 0..tokens, run) };
                kernels.attention(&task, &mut scratch.kernels, records);
            },
        );
        let (parts, bytes) = (&*parts, size_of_val(parts));
        exec.for_chunks(bytes, out, head_dim, &mut buffers.scratch, |kernels, index, out, scratch| {
            let (token, (kv_head, within)) = (index / heads, key_head(config, index % heads));
            let query = token * config.query_heads[kv_head] + within;
            let total = &mut scratch.records[..record_len];
            total.fill(0.0);
            let runs = parts.chunks_exact(run_len).skip(kv_head * runs.len()).take(runs.len());
            for records in runs {
                kernels.merge_attention(head_dim, &records[query * record_len..][..record_len], total);
            }
            finish(total, out);
        });
    }

    /// Computes blocks of tokens for each key head, one run after the other.
    fn many_tokens(&self, exec: &mut Exec, tokens: usize, buffers: &mut AttentionBuffers, out: &mut [f32]) {
        let (config, record_len) = (self.config, record_len(self.config));
        let (kv_heads, token_len) = (config.kv_heads(), config.query_len());
        let block = token_block(config);
        let read = (0..tokens)
            .step_by(block)
            .map(|start| self.read_bytes(&(start..tokens.min(start + block))))
            .sum::<u64>();
        exec.traffic.kv_read_bytes += read;
        // Order: block, key head, token. Places after the last token stay empty.
        let mut outputs = recycled(&mut buffers.outputs);
        for out in out.chunks_mut(block * token_len) {
            let start = outputs.len();
            outputs.resize_with(start + kv_heads * block, Default::default);
            for (token, mut rest) in out.chunks_exact_mut(token_len).enumerate() {
                for (kv_head, group) in config.query_heads.iter().enumerate() {
                    let part;
                    (part, rest) = rest.split_at_mut(group * config.head_dim);
                    outputs[start + kv_head * block + token] = part;
                }
            }
        }
        let bytes = (read as usize).saturating_mul(block);
        exec.for_chunks(
            bytes,
            &mut outputs,
            block,
            &mut buffers.scratch,
            |kernels, index, outputs, scratch| {
                let (start, kv_head) = (index / kv_heads * block, index % kv_heads);
                let (block, group) = (start..tokens.min(start + block), config.query_heads[kv_head]);
                let records = &mut scratch.records[..block.len() * group * record_len];
                records.fill(0.0);
                for run in self.runs(&block) {
                    kernels.attention(&self.task(kv_head, block.clone(), run), &mut scratch.kernels, records);
                }
                for (records, out) in records.chunks_exact(group * record_len).zip(outputs) {
                    let heads =
                        records.chunks_exact(record_len).zip(out.chunks_exact_mut(self.config.head_dim));
                    heads.for_each(|(record, out)| finish(record, out));
                }
            },
        );
        buffers.outputs = recycled(&mut outputs);
    }

    /// Positions visible to any of these tokens.
    fn seen(&self, tokens: &Range<usize>) -> Range<usize> {
        let window = self.config.window.unwrap_or(usize::MAX);
        (self.first + tokens.start + 1).saturating_sub(window)..self.first + tokens.end
    }

    /// Runs that hold these positions.
    fn runs(&self, tokens: &Range<usize>) -> Range<usize> {
        let seen = self.seen(tokens);
        seen.start / ATTENTION_SPAN..seen.end.div_ceil(ATTENTION_SPAN)
    }

    /// Bytes of the keys and values visible to these tokens, read once.
    fn read_bytes(&self, tokens: &Range<usize>) -> u64 {
        self.seen(tokens).len() as u64 * self.cache.position_bytes()
    }

    fn task(&self, kv_head: usize, tokens: Range<usize>, run: usize) -> Attention<'_> {
        let (config, seen) = (self.config, self.seen(&tokens));
        let positions = seen.start.max(run * ATTENTION_SPAN)..seen.end.min((run + 1) * ATTENTION_SPAN);
        let (stride, group) = (config.query_len(), config.query_heads[kv_head]);
        let queries = tokens.start * stride + first_head(config, kv_head) * config.head_dim;
        Attention {
            keys: self.cache.keys(kv_head, positions.clone()),
            values: self.cache.values(kv_head, positions.clone()),
            start: positions.start,
            queries: &self.queries[queries..],
            stride,
            group,
            first: self.first + tokens.start,
            tokens: tokens.len(),
            window: config.window.unwrap_or(usize::MAX),
            scale: config.scale,
            softcap: config.softcap,
            few: self.few,
            next: None,
        }
    }
}

/// Writes the weighted mean of a partial result.
fn finish(record: &[f32], out: &mut [f32]) {
    let factor = 1.0 / record[out.len() + 1];
    for (out, mixed) in out.iter_mut().zip(record) {
        *out = factor * mixed;
    }
}

/// `x = cap · tanh(x / cap)`
pub(crate) fn softcap(cap: f32, x: &mut [f32]) {
    for x in x {
        *x = cap * (*x / cap).tanh();
    }
}
