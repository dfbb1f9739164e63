//! Tokens per second: runs of one workload, one after the other.

use crate::error::BenchError;
use crate::protocol::{Variant, Work};
use crate::time::Time;
use pith_meter::statistics::MedianRange;

/// The speed of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Speed {
    /// Tokens per second: median, smallest and largest of the runs.
    pub tokens_per_s: MedianRange,
    /// Number of timed runs.
    pub runs: usize,
    /// The work of the last run; all runs do the same.
    pub work: Work,
}

/// Runs `variant` once to warm up and `runs` times with timing. Calls `between` after each run,
/// outside the timed part.
pub fn speed(
    variant: &mut dyn Variant,
    runs: usize,
    time: &mut dyn Time,
    mut between: impl FnMut(),
) -> Result<Speed, BenchError> {
    let mut rates = Vec::with_capacity(runs);
    let mut work = Work::default();
    for run in 0..=runs {
        let started = time.now();
        work = variant.run().map_err(BenchError::Work)?;
        let seconds = time.now() - started;
        between();
        if run > 0 {
            rates.push(work.tokens as f64 / seconds);
        }
    }
    let tokens_per_s = MedianRange::of(rates).ok_or(BenchError::Nothing { what: "the number of runs" })?;
    Ok(Speed { tokens_per_s, runs, work })
}

impl Speed {
    /// Bytes of weights read per token, without embeddings that are only looked up.
    pub fn weight_bytes_per_token(&self) -> f64 {
        self.each(self.work.traffic.weight_bytes)
    }

    /// Bytes of keys and values read and written per token.
    pub fn kv_bytes_per_token(&self) -> f64 {
        self.each(self.work.traffic.kv_read_bytes + self.work.traffic.kv_write_bytes)
    }

    /// All bytes moved per token: weights, embeddings, keys and values.
    pub fn bytes_per_token(&self) -> f64 {
        self.each(self.work.traffic.weight_bytes + self.work.traffic.embedding_bytes)
            + self.kv_bytes_per_token()
    }

    /// Bytes per second at the median speed.
    pub fn bytes_per_s(&self) -> f64 {
        self.bytes_per_token() * self.tokens_per_s.median
    }

    fn each(&self, bytes: u64) -> f64 {
        bytes as f64 / self.work.tokens as f64
    }
}
