//! Read and multiply rate of each kernel: `cargo bench -p pith-kernels [-- KERNEL… ENCODING…]`.
//!
//! Prints the median of several samples, then the slowest and the fastest: their spread shows how
//! far the median can be trusted on a busy machine. One thread. On Unix the clock is the thread's
//! CPU time, so other processes do not count.

use half::f16;
use pith_format::{ActivationFunction, Encoding, Matrix};
use pith_kernels::{
    ATTENTION_QUERIES, ATTENTION_SPAN, Activations, Attention, AttentionScratch, Kernels, KvRows, available,
};
use std::hint::black_box;
use std::time::Duration;

const COLS: usize = 2048;
const L2_BYTES: usize = 512 << 10;
const DRAM_BYTES: usize = 64 << 20;
const TOKENS: usize = 128;
const SAMPLES: usize = 9;
/// Minimum duration of a sample: its work repeats until then.
const SAMPLE_TIME: Duration = Duration::from_millis(5);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run me by `cargo bench`");
        return;
    }
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let (encodings, names): (Vec<&String>, Vec<&String>) =
        names.into_iter().partition(|name| name.parse::<Encoding>().is_ok());
    let chosen = |kernel: &&dyn Kernels| match names.is_empty() {
        true => kernel.name() != "reference",
        false => names.iter().any(|name| *name == kernel.name()),
    };
    let kernels: Vec<_> = available().into_iter().filter(chosen).collect();
    println!(
        "{:<8} {:<12} {:>26} {:>26} {:>26}",
        "", "", "mat_vec L2, GB/s", "mat_vec DRAM, GB/s", "mat_mul, GMAC/s"
    );
    let is_chosen =
        |encoding: &&Encoding| encodings.is_empty() || encodings.iter().any(|name| *name == encoding.name());
    for &encoding in Encoding::ALL.iter().filter(is_chosen) {
        for kernel in &kernels {
            let near = mat_vec_rate(*kernel, encoding, L2_BYTES);
            let far = mat_vec_rate(*kernel, encoding, DRAM_BYTES);
            let multiply = mat_mul_rate(*kernel, encoding);
            println!("{encoding:<8} {:<12} {near:>26} {far:>26} {multiply:>26}", kernel.name());
        }
    }
    if !encodings.is_empty() {
        return;
    }
    println!("\n{:<28} {:<12} {:>26}", "", "", "GFLOP/s or GB/s");
    for kernel in &kernels {
        println!("{:<28} {:<12} {:>26}", "attention, 512 tokens", kernel.name(), prompt_rate(*kernel));
        for (name, heads, tokens) in
            [("1 token, L2", 1, 1), ("1 token, DRAM", FAR_HEADS, 1), ("8 tokens, DRAM", FAR_HEADS, 8)]
        {
            let rate = token_rate(*kernel, heads, tokens);
            println!("{:<28} {:<12} {rate:>26}", format!("attention, {name}"), kernel.name());
        }
    }
    println!("\n{:<28} {:<12} {:>26}", "", "", "values per ns");
    for (name, len, work) in vector_works() {
        for kernel in &kernels {
            println!("{name:<28} {:<12} {:>26}", kernel.name(), rate(len as f64, || work(*kernel)));
        }
    }
}

/// Attention's shape: cached positions, prompt tokens, query heads that share a key head, and key
/// heads enough for their keys and values to exceed the caches.
const CONTEXT: usize = 2048;
const PROMPT: usize = 512;
const GROUP: usize = 4;
const FAR_HEADS: usize = 128;

/// Attention as a session calls it, over the `CONTEXT` keys and values of one head.
fn attend(
    kernel: &dyn Kernels,
    (keys, values): (KvRows<'_>, KvRows<'_>),
    queries: &[f32],
    first: usize,
    scratch: &mut AttentionScratch,
    records: &mut [f32],
) {
    let stride = GROUP * HEAD_DIM;
    let tokens = queries.len() / stride;
    let end = first + tokens;
    for start in (0..end).step_by(ATTENTION_SPAN) {
        let run = start..end.min(start + ATTENTION_SPAN);
        let (keys, values) = (keys.slice(run.clone()), values.slice(run));
        let task = Attention {
            keys,
            values,
            start,
            queries,
            stride,
            group: GROUP,
            first,
            tokens,
            window: usize::MAX,
            scale: 0.1,
            softcap: None,
            few: tokens < pith_kernels::FEW_TOKENS,
            next: None,
        };
        kernel.attention(&task, scratch, &mut records[..tokens * GROUP * task.record_len()]);
    }
}

fn halves(len: usize) -> Vec<f16> {
    (0..len).map(|i| f16::from_f32((i as f32).cos())).collect()
}

fn f16_rows(rows: &[f16]) -> KvRows<'_> {
    KvRows::F16 { head_dim: HEAD_DIM, rows }
}

/// Floating-point operations per nanosecond for a prompt that starts at position 0.
fn prompt_rate(kernel: &dyn Kernels) -> String {
    let (keys, values) = (halves(PROMPT * HEAD_DIM), halves(PROMPT * HEAD_DIM));
    let queries: Vec<f32> = (0..PROMPT * GROUP * HEAD_DIM).map(|i| (i as f32).sin()).collect();
    let (mut scratch, mut records) =
        (AttentionScratch::new(HEAD_DIM), vec![0.0; ATTENTION_QUERIES * 2 * HEAD_DIM]);
    let operations = 4 * HEAD_DIM * GROUP * PROMPT * (PROMPT + 1) / 2;
    rate(operations as f64, || {
        records.fill(0.0);
        let tokens = ATTENTION_QUERIES / GROUP;
        for (index, queries) in queries.chunks(tokens * GROUP * HEAD_DIM).enumerate() {
            let rows = (f16_rows(&keys), f16_rows(&values));
            attend(kernel, rows, black_box(queries), index * tokens, &mut scratch, &mut records);
        }
    })
}

/// Bytes of keys and values per nanosecond for `tokens` tokens at the end of the context, over
/// `heads` key heads.
fn token_rate(kernel: &dyn Kernels, heads: usize, tokens: usize) -> String {
    let head_len = CONTEXT * HEAD_DIM;
    let (keys, values) = (halves(heads * head_len), halves(heads * head_len));
    let queries: Vec<f32> = (0..tokens * GROUP * HEAD_DIM).map(|i| (i as f32).sin()).collect();
    let (mut scratch, mut records) =
        (AttentionScratch::new(HEAD_DIM), vec![0.0; ATTENTION_QUERIES * 2 * HEAD_DIM]);
    rate((2 * size_of_val(&keys[..])) as f64, || {
        records.fill(0.0);
        for (keys, values) in keys.chunks(head_len).zip(values.chunks(head_len)) {
            let rows = (f16_rows(keys), f16_rows(values));
            attend(kernel, rows, black_box(&queries), CONTEXT - tokens, &mut scratch, &mut records);
        }
    })
}

/// Tiles aligned to a cache line, as in a mapped file.
struct Weights {
    rows: usize,
    buffer: Vec<u8>,
    start: usize,
    len: usize,
}

impl Weights {
    fn matrix(&self, encoding: Encoding) -> Matrix<'_> {
        let bytes = &self.buffer[self.start..][..self.len];
        Matrix::new(encoding, self.rows, COLS, bytes).expect("whole blocks")
    }
}

/// About `bytes` of weights: one random tile repeated.
fn weights(encoding: Encoding, bytes: usize) -> Weights {
    let mut state = 1u32;
    let values: Vec<f32> = (0..16 * encoding.tile_cols())
        .map(|_| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    let mut tile = vec![0; encoding.tile_bytes()];
    encoding.encode_tile(&values, &mut tile);
    let block_tiles = COLS / encoding.tile_cols();
    let blocks = bytes / (block_tiles * tile.len());
    let len = blocks * block_tiles * tile.len();
    let mut buffer = vec![0; len + 64];
    let start = buffer.as_ptr().align_offset(64);
    buffer[start..start + len].copy_from_slice(&encoding.stored(tile.repeat(len / tile.len())));
    Weights { rows: blocks * 16, buffer, start, len }
}

fn activations(tokens: usize) -> Activations {
    let mut x = Activations::new(tokens, COLS);
    x.set(available()[0], tokens, COLS, |token, out| {
        for (col, out) in out.iter_mut().enumerate() {
            *out = ((token + col) as f32).sin();
        }
    });
    x
}

fn mat_vec_rate(kernel: &dyn Kernels, encoding: Encoding, bytes: usize) -> String {
    let weights = weights(encoding, bytes);
    let w = weights.matrix(encoding);
    let (x, mut y) = (activations(1), vec![0.0; w.rows()]);
    rate(w.bytes().len() as f64, || kernel.mat_vec(black_box(w), x.operand(), black_box(&mut y)))
}

fn mat_mul_rate(kernel: &dyn Kernels, encoding: Encoding) -> String {
    let weights = weights(encoding, L2_BYTES);
    let w = weights.matrix(encoding);
    let (x, mut y) = (activations(TOKENS), vec![0.0; TOKENS * w.rows()]);
    rate((TOKENS * w.rows() * COLS) as f64, || {
        let mut y: Vec<_> = y.chunks_exact_mut(w.rows()).collect();
        kernel.mat_mul(black_box(w), x.operand(), black_box(&mut y))
    })
}

type Work = Box<dyn Fn(&dyn Kernels)>;

/// Name, number of values, work.
fn vector_works() -> Vec<(&'static str, usize, Work)> {
    let x: Vec<f32> = (0..COLS).map(|i| (i as f32).sin()).collect();
    let mut works: Vec<(&'static str, usize, Work)> = Vec::new();
    let values = x.clone();
    works.push((
        "quantize",
        COLS,
        Box::new(move |kernel| {
            let (mut codes, mut scales, mut sums) = ([0; COLS], [0.0; COLS / 32], [0; COLS / 32]);
            kernel.quantize(black_box(&values), &mut codes, &mut scales, &mut sums);
            black_box((codes, scales, sums));
        }),
    ));
    let values = x.clone();
    works.push((
        "rms_norm",
        COLS,
        Box::new(move |kernel| {
            let mut out = [0.0; COLS];
            kernel.rms_norm(black_box(&values), &values, 1e-5, &mut out);
            black_box(out);
        }),
    ));
    let values = x.clone();
    works.push((
        "softmax",
        COLS,
        Box::new(move |kernel| {
            let mut out: [f32; COLS] = values[..].try_into().expect("COLS values");
            kernel.softmax(black_box(&mut out));
            black_box(out);
        }),
    ));
    let functions = [
        ("silu", ActivationFunction::Silu),
        ("gelu", ActivationFunction::Gelu),
        ("gelu tanh", ActivationFunction::GeluTanh),
    ];
    for (name, function) in functions {
        let values = x.clone();
        let work = move |kernel: &dyn Kernels| {
            let mut out: [f32; COLS] = values[..].try_into().expect("COLS values");
            kernel.activate(function, black_box(&mut out));
            black_box(out);
        };
        works.push((name, COLS, Box::new(work)));
    }
    for (name, heads, wide) in [
        ("scores f16, 1 query", 1, true),
        ("scores f16, 4 queries", 4, true),
        ("scores q8, 4 queries", 4, false),
    ] {
        let cache = Cache::new();
        let queries = x[..heads * HEAD_DIM].to_vec();
        let work = move |kernel: &dyn Kernels| {
            let mut out = [0.0; 4 * POSITIONS];
            kernel.scores(&queries, cache.rows(wide), 0.1, black_box(&mut out[..heads * POSITIONS]));
            black_box(out);
        };
        works.push((name, POSITIONS * HEAD_DIM * heads, Box::new(work)));
    }
    for (name, heads, wide) in
        [("mix f16, 1 query", 1, true), ("mix f16, 4 queries", 4, true), ("mix q8, 4 queries", 4, false)]
    {
        let cache = Cache::new();
        let weights = x[..heads * POSITIONS].to_vec();
        let work = move |kernel: &dyn Kernels| {
            let mut out = [0.0; 4 * HEAD_DIM];
            kernel.mix(&weights, cache.rows(wide), black_box(&mut out[..heads * HEAD_DIM]));
            black_box(out);
        };
        works.push((name, POSITIONS * HEAD_DIM * heads, Box::new(work)));
    }
    works
}

const HEAD_DIM: usize = 64;
const POSITIONS: usize = 512;

struct Cache {
    halves: Vec<f16>,
    codes: Vec<i8>,
    scales: Vec<f16>,
}

impl Cache {
    fn new() -> Self {
        let len = POSITIONS * HEAD_DIM;
        Self {
            halves: (0..len).map(|i| f16::from_f32((i as f32).cos())).collect(),
            codes: (0..len).map(|i| (i * 7 % 251) as u8 as i8).collect(),
            scales: vec![f16::from_f32(0.01); POSITIONS],
        }
    }

    fn rows(&self, wide: bool) -> KvRows<'_> {
        match wide {
            true => KvRows::F16 { head_dim: HEAD_DIM, rows: &self.halves },
            false => KvRows::Q8 { head_dim: HEAD_DIM, codes: &self.codes, scales: &self.scales },
        }
    }
}

/// CPU time of this thread so far.
#[cfg(unix)]
fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the one value written.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "clock_gettime: {}", std::io::Error::last_os_error());
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Time since the first call.
#[cfg(not(unix))]
fn now() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

/// `amount` per nanosecond (GB/s for bytes): median, slowest and fastest of several samples.
fn rate(amount: f64, mut work: impl FnMut()) -> String {
    let mut repetitions = 1u32;
    let mut sample = |repetitions: u32| {
        let start = now();
        (0..repetitions).for_each(|_| work());
        now() - start
    };
    while sample(repetitions) < SAMPLE_TIME {
        repetitions *= 2;
    }
    let mut rates: Vec<f64> = (0..SAMPLES)
        .map(|_| amount * f64::from(repetitions) / sample(repetitions).as_nanos() as f64)
        .collect();
    rates.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2}–{:.2})", rates[SAMPLES / 2], rates[0], rates[SAMPLES - 1])
}
