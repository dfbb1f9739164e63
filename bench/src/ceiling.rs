//! What a machine's memory gives at most, and the counters that see its traffic.

use crate::error::BenchError;
use pith_boards::counters::{self, TrafficCounter, gate};
use pith_boards::{Ceiling, Machine, Streamer, Unusable, available_memory_below, buffer_bytes, ceilings};
use std::path::Path;
use std::time::Duration;

/// Time to probe the memory, for each number of threads and round.
const PROBE: Duration = Duration::from_millis(400);

/// Every count is probed up to so many threads, and powers of two beyond.
const MOST_COUNTS: usize = 8;

/// Rates of reading memory.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryProbe {
    /// The buffer, in bytes.
    pub buffer_bytes: usize,
    /// One for each number of threads.
    pub rates: Vec<Ceiling>,
}

/// The size of a buffer that shows the speed of memory and not of a cache, on the machine below
/// `root`.
pub fn probe_bytes(root: &Path) -> Result<usize, BenchError> {
    Ok(buffer_bytes(&Machine::read(root)?, available_memory_below(root)?))
}

/// Probes this machine's memory with each of the numbers of `threads`; the buffer suits the machine
/// below `root`.
pub fn probe(root: &Path, threads: impl IntoIterator<Item = usize>) -> Result<MemoryProbe, BenchError> {
    let mut threads: Vec<usize> = threads.into_iter().collect();
    threads.sort_unstable();
    threads.dedup();
    let buffer_bytes = probe_bytes(root)?;
    Ok(MemoryProbe { buffer_bytes, rates: ceilings(buffer_bytes, threads, PROBE) })
}

/// 1 to all, or powers of two and all where there are many.
pub fn thread_counts(threads: usize) -> Vec<usize> {
    (1..=threads)
        .filter(|count| threads <= MOST_COUNTS || count.is_power_of_two() || *count == threads)
        .collect()
}

/// Counters that passed the gate, and the others with their reasons.
pub type Counters = (Vec<Box<dyn TrafficCounter>>, Vec<Unusable>);

/// The counters of memory traffic of the machine below `root`. To be opened before any thread that
/// they are to see.
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
