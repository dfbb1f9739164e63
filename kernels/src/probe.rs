//! Ceilings of this CPU and its memory, for comparison with measured speeds.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::ceiling::{Line, MultiplyLoop};
#[cfg(target_arch = "x86_64")]
use crate::{avx2, avx512};

/// Lines that a thread reads of each stream between two looks at the clock.
const CHUNK_LINES: usize = 1 << 12;
/// Numbers of streams to try: streams are read at once by each thread.
const STREAMS: [usize; 4] = [1, 2, 4, 8];

/// A way to read memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPattern {
    /// Places from which each thread reads forward at the same time.
    pub streams: usize,
    /// Whether every line is prefetched 4 KiB ahead.
    pub prefetch: bool,
}

/// A buffer far larger than the caches, for repeated reading.
pub struct ReadProbe {
    lines: Vec<Line>,
}

impl ReadProbe {
    /// Allocates about `bytes`, at least 64 KiB, and writes them once so that the pages exist.
    pub fn new(bytes: usize) -> Self {
        let count = (bytes / size_of::<Line>()).max(1024);
        Self { lines: vec![[1; 64]; count] }
    }

    /// Bytes per second that `threads` threads read together, with the best pattern. Each pattern
    /// gets an equal share of `duration`; every thread reads its own part of the buffer. 0 threads
    /// count as one.
    pub fn bytes_per_s(&self, threads: usize, duration: Duration) -> (f64, ReadPattern) {
        let patterns = STREAMS
            .into_iter()
            .flat_map(|streams| [true, false].map(|prefetch| ReadPattern { streams, prefetch }));
        let share = duration / (2 * STREAMS.len() as u32);
        patterns
            .map(|pattern| (self.rate(threads.max(1), pattern, share), pattern))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .expect("there are patterns")
    }

    fn rate(&self, threads: usize, pattern: ReadPattern, duration: Duration) -> f64 {
        let part = (self.lines.len() / threads).max(1);
        let parts: Vec<&[Line]> = self.lines.chunks_exact(part).take(threads).collect();
        together(parts.len(), duration, |thread| read_chunks(parts[thread], pattern))
    }
}

/// Reads all whole lines of `bytes` once, in order, and returns all of their bits; `prefetch`:
/// every line is prefetched 4 KiB ahead.
pub fn read_once(bytes: &[u8], prefetch: bool) -> u64 {
    read(&[bytes.as_chunks().0], prefetch)
}

/// The CPU's int8 multiply instruction and its peak rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Name of the instruction.
    pub instruction: &'static str,
    /// Multiplications and additions per second, all threads together.
    pub ops_per_s: f64,
}

/// Peak rate of `threads` threads together in a loop of int8 multiply-adds on registers alone.
/// `None` where this crate has no such loop for the CPU.
pub fn int8_peak(threads: usize, duration: Duration) -> Option<Peak> {
    let (instruction, run) = multiply_loop()?;
    let ops_per_s = together(threads.max(1), duration, |_| move || 2 * run(TURNS));
    Some(Peak { instruction, ops_per_s })
}

/// Iterations of a multiply loop between two looks at the clock.
const TURNS: u64 = 20_000;

fn multiply_loop() -> Option<MultiplyLoop> {
    #[cfg(target_arch = "x86_64")]
    {
        avx512::probe::multiply_loop().or_else(avx2::probe::multiply_loop)
    }
    #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
    {
        Some(crate::neon::probe::multiply_loop())
    }
    #[cfg(not(any(
        target_arch = "x86_64",
        all(target_arch = "aarch64", target_feature = "neon", target_endian = "little")
    )))]
    None
}

/// Runs `work(thread)` repeatedly on every thread for `duration`. Returns the sum of the results
/// per second, from the first thread's start to the last one's end.
fn together<W: FnMut() -> u64>(threads: usize, duration: Duration, work: impl Fn(usize) -> W + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let run = |thread: usize| {
        let mut work = work(thread);
        work();
        barrier.wait();
        let started = Instant::now();
        let mut done = 0;
        while started.elapsed() < duration {
            done += work();
        }
        (done, started, Instant::now())
    };
    let runs: Vec<(u64, Instant, Instant)> = std::thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let own = run(0);
        let others = others.into_iter().map(|other| other.join().expect("the work does not panic"));
        others.chain([own]).collect()
    });
    let done: u64 = runs.iter().map(|run| run.0).sum();
    let started = runs.iter().map(|run| run.1).min().expect("there is a thread");
    let ended = runs.iter().map(|run| run.2).max().expect("there is a thread");
    done as f64 / (ended - started).as_secs_f64().max(f64::MIN_POSITIVE)
}

/// A function that reads the next chunk of every stream, round and round, and returns the bytes
/// read.
fn read_chunks(part: &[Line], pattern: ReadPattern) -> impl FnMut() -> u64 {
    let stream = (part.len() / pattern.streams).max(1);
    let streams: Vec<&[Line]> = part.chunks_exact(stream).take(pattern.streams).collect();
    let mut start = 0;
    move || {
        let end = (start + CHUNK_LINES).min(stream);
        let chunks: Vec<&[Line]> = streams.iter().map(|stream| &stream[start..end]).collect();
        black_box(read(&chunks, pattern.prefetch));
        let bytes = (end - start) * size_of::<Line>() * chunks.len();
        start = if end == stream { 0 } else { end };
        bytes as u64
    }
}

/// All lines or'ed together, read by the widest loads available. Streams have equal lengths.
fn read(streams: &[&[Line]], prefetch: bool) -> u64 {
    match *streams {
        [a] => read_all([a], prefetch),
        [a, b] => read_all([a, b], prefetch),
        [a, b, c, d] => read_all([a, b, c, d], prefetch),
        [a, b, c, d, e, f, g, h] => read_all([a, b, c, d, e, f, g, h], prefetch),
        _ => streams.iter().fold(0, |bits, stream| bits | read_all([stream], prefetch)),
    }
}

fn read_all<const K: usize>(streams: [&[Line]; K], prefetch: bool) -> u64 {
    if prefetch { read_with::<K, true>(streams) } else { read_with::<K, false>(streams) }
}

fn read_with<const K: usize, const AHEAD: bool>(streams: [&[Line]; K]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(kernels) = avx512::Avx512::detect() {
            return avx512::probe::read::<K, AHEAD>(*kernels, streams);
        }
        if let Some(kernels) = avx2::Avx2::detect() {
            return avx2::probe::read::<K, AHEAD>(*kernels, streams);
        }
    }
    #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
    {
        crate::neon::probe::read::<K, AHEAD>(streams)
    }
    #[cfg(not(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little")))]
    read_portable(streams)
}

#[cfg(any(test, not(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))))]
fn read_portable<const K: usize>(streams: [&[Line]; K]) -> u64 {
    let bits_of =
        |line: &Line| line.as_chunks::<8>().0.iter().fold(0, |bits, word| bits | u64::from_le_bytes(*word));
    streams.iter().flat_map(|stream| stream.iter()).fold(0, |bits, line| bits | bits_of(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_every_stream_is_read() {
        let mut lines = vec![[0u8; 64]; 8 * 5];
        for index in 0..lines.len() {
            let byte = index * 13 % 64;
            lines[index][byte] = 0x10;
            for count in STREAMS {
                let streams: Vec<&[Line]> = lines.chunks_exact(lines.len() / count).collect();
                for prefetch in [false, true] {
                    let found = read(&streams, prefetch);
                    assert_eq!(found, 0x10u64 << (8 * (byte % 8)), "{count} streams, line {index}");
                }
                assert_eq!(read_portable([&lines]), read(&streams, true));
            }
            lines[index][byte] = 0;
        }
        assert_eq!(read(&[&lines], true), 0);
    }

    #[test]
    fn the_rates_are_positive_with_more_threads_than_cores_too() {
        let probe = ReadProbe::new(1 << 20);
        for threads in [0, 1, 2, 5] {
            let (rate, pattern) = probe.bytes_per_s(threads, Duration::from_millis(16));
            assert!(rate > 0.0 && STREAMS.contains(&pattern.streams), "{rate} {pattern:?}");
            if let Some(peak) = int8_peak(threads, Duration::from_millis(2)) {
                assert!(peak.ops_per_s > 0.0, "{peak:?}");
            }
        }
    }

    #[test]
    fn a_loop_counts_its_multiplications() {
        if let Some((instruction, run)) = multiply_loop() {
            let one = run(1);
            assert!(one > 0 && run(10) == 10 * one, "{instruction}");
        }
    }
}
