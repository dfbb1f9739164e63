//! Memory bandwidth: the ceiling to compare speeds with.

use crate::cpu::CacheKind;
use crate::machine::Machine;
use pith_kernels::probe::ReadProbe;
use serde::Serialize;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Size of the buffer in multiples of the last cache; at least [`LEAST_BYTES`].
const CACHES: u64 = 8;
const LEAST_BYTES: u64 = 128 << 20;
/// The buffer takes at most one part in this many of the available memory.
const SHARE_OF_MEMORY: u64 = 4;
/// Rounds, of which the best counts: other programs can only make the ceiling look lower.
const ROUNDS: usize = 3;

/// The rate at which some threads read memory together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ceiling {
    /// Number of threads.
    pub threads: usize,
    /// Bytes per second: the best of three rounds and of the kernels' ways to read.
    pub bytes_per_s: f64,
}

impl Ceiling {
    /// `bytes_per_s` as a share of the ceiling; `None` if the probe read nothing.
    pub fn share(&self, bytes_per_s: f64) -> Option<f64> {
        (self.bytes_per_s > 0.0).then(|| bytes_per_s / self.bytes_per_s)
    }
}

/// Size of the buffer in bytes: far larger than the caches of `machine`, and at most a quarter of
/// the `available` memory.
pub fn buffer_bytes(machine: &Machine, available: Option<u64>) -> usize {
    let caches = machine.caches.iter().filter(|cache| cache.kind != CacheKind::Instruction);
    let last = caches.map(|cache| cache.bytes).max().unwrap_or(0);
    let wanted = last.saturating_mul(CACHES).max(LEAST_BYTES);
    let bytes = available.map_or(wanted, |available| wanted.min(available / SHARE_OF_MEMORY));
    usize::try_from(bytes).unwrap_or(usize::MAX / 2)
}

/// The rate for each number of threads in `threads`; each of three rounds takes `duration`.
pub fn ceilings(bytes: usize, threads: impl IntoIterator<Item = usize>, duration: Duration) -> Vec<Ceiling> {
    let probe = ReadProbe::new(bytes);
    let rate = |threads: usize| {
        let rounds = (0..ROUNDS).map(|_| probe.bytes_per_s(threads, duration).0);
        Ceiling { threads, bytes_per_s: rounds.fold(0.0, f64::max) }
    };
    threads.into_iter().map(rate).collect()
}

/// A buffer that threads read from end to end while the bytes are counted.
pub struct Streamer {
    lines: Vec<[u64; 8]>,
}

impl Streamer {
    /// A buffer of about `bytes`, at least 1 MiB, with all pages mapped.
    pub fn new(bytes: usize) -> Self {
        let count = (bytes / 64).max(1 << 14);
        Self { lines: vec![[1; 8]; count] }
    }

    /// Reads the whole buffer once, one part per thread; returns the bytes.
    pub fn read(&self, threads: usize) -> u64 {
        let part = self.lines.len().div_ceil(threads.max(1));
        std::thread::scope(|scope| {
            let others: Vec<_> =
                self.lines.chunks(part).skip(1).map(|part| scope.spawn(move || largest(part))).collect();
            black_box(largest(&self.lines[..part.min(self.lines.len())]));
            others.into_iter().for_each(|other| {
                black_box(other.join().expect("reading does not panic"));
            });
        });
        (self.lines.len() * 64) as u64
    }

    /// Reads repeatedly until `duration` has passed; returns the bytes and the time.
    pub fn read_for(&self, threads: usize, duration: Duration) -> (u64, Duration) {
        let started = Instant::now();
        let mut bytes = 0;
        while started.elapsed() < duration {
            bytes += self.read(threads);
        }
        (bytes, started.elapsed())
    }
}

/// The largest of all words, in eight lanes. A sum would not do: its chain of additions would
/// measure the processor.
fn largest(lines: &[[u64; 8]]) -> [u64; 8] {
    let mut largest = [0; 8];
    for line in lines {
        for (most, word) in largest.iter_mut().zip(line) {
            *most |= *word;
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cache;

    #[test]
    fn the_buffer_is_larger_than_the_caches_and_smaller_than_memory() {
        let cache = |bytes| Cache { level: 3, kind: CacheKind::Unified, bytes, shared_by: 4 };
        let machine = |caches| Machine {
            board: None,
            processors: vec![],
            caches,
            memory_bytes: None,
            page_bytes: None,
        };
        assert_eq!(buffer_bytes(&machine(vec![]), None), 128 << 20);
        assert_eq!(buffer_bytes(&machine(vec![cache(64 << 20), cache(1 << 20)]), None), 512 << 20);
        assert_eq!(buffer_bytes(&machine(vec![cache(64 << 20)]), Some(400 << 20)), 100 << 20);
    }

    #[test]
    fn every_line_is_read_by_any_number_of_threads() {
        let streamer = Streamer::new(1 << 20);
        for threads in [0, 1, 2, 3, 7] {
            assert_eq!(streamer.read(threads), 1 << 20);
        }
        let (bytes, elapsed) = streamer.read_for(2, Duration::from_millis(5));
        assert!(bytes >= 1 << 20 && elapsed >= Duration::from_millis(5));
        assert_eq!(largest(&[[1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 8]]), [1, 0, 0, 0, 0, 0, 0, 8]);
    }

    #[test]
    fn every_number_of_threads_gets_its_rate() {
        let rates = ceilings(1 << 20, 1..=2, Duration::from_millis(8));
        assert_eq!(rates.iter().map(|rate| rate.threads).collect::<Vec<_>>(), [1, 2]);
        assert!(rates.iter().all(|rate| rate.bytes_per_s > 0.0));
    }
}
