//! The bandwidth limit of a machine's memory, and the counters of its traffic.

use crate::error::BenchError;
use pith_boards::counters::{self, TrafficCounter, gate};
use pith_boards::{Ceiling, Machine, Streamer, Unusable, available_memory_below, buffer_bytes, ceilings};
use std::path::Path;
use std::time::Duration;

/// Duration of a probe, for each number of threads and round.
const PROBE: Duration = Duration::from_millis(400);

/// Every number of threads up to this one is probed; beyond it, powers of two.
const MOST_COUNTS: usize = 8;

/// Rates of reading memory.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryProbe {
    /// Size of the buffer in bytes.
    pub buffer_bytes: usize,
    /// One per number of threads.
    pub rates: Vec<Ceiling>,
}

/// The size of a buffer that measures memory, not a cache, on the machine below `root`.
pub fn probe_bytes(root: &Path) -> Result<usize, BenchError> {
    Ok(buffer_bytes(&Machine::read(root)?, available_memory_below(root)?))
}

/// Probes this machine's memory with each number of `threads`. The size of the buffer suits the
/// machine below `root`.
pub fn probe(root: &Path, threads: impl IntoIterator<Item = usize>) -> Result<MemoryProbe, BenchError> {
    let mut threads: Vec<usize> = threads.into_iter().collect();
    threads.sort_unstable();
    threads.dedup();
    let buffer_bytes = probe_bytes(root)?;
    Ok(MemoryProbe { buffer_bytes, rates: ceilings(buffer_bytes, threads, PROBE) })
}

/// All numbers from 1 to `threads`, or powers of two and `threads` where there are many.
pub fn thread_counts(threads: usize) -> Vec<usize> {
    (1..=threads)
        .filter(|count| threads <= MOST_COUNTS || count.is_power_of_two() || *count == threads)
        .collect()
}

/// Counters that passed the gate, and the other ones with their reasons.
pub type Counters = (Vec<Box<dyn TrafficCounter>>, Vec<Unusable>);

/// The counters of memory traffic of the machine below `root`. Open them before starting any thread
/// that they should count.
pub fn usable_counters(root: &Path) -> Result<Counters, BenchError> {
    let (opened, mut unusable) = counters::open(root);
    let mut usable = Vec::new();
    if !opened.is_empty() {
        let streamer = Streamer::new(probe_bytes(root)?);
        for mut counter in opened {
            match gate(counter.as_mut(), || streamer.read(1)) {
                Ok(_) => usable.push(counter),
                Err(reason) => unusable.push(Unusable { name: counter.name().into(), reason }),
            }
        }
    }
    Ok((usable, unusable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_threads_are_all_probed_and_many_by_powers_of_two() {
        assert_eq!(thread_counts(4), [1, 2, 3, 4]);
        assert_eq!(thread_counts(12), [1, 2, 4, 8, 12]);
    }
}
