//! When each thread worked: what a pass's time went into.
//!
//! [`Session::record`](crate::Session::record) turns recording on. It costs two looks at the clock
//! for each thread and job, and an allocation for each job; results do not change.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One pass over the model, or one look at the logits of its tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// From the first to the last moment. Times count from the moment recording began.
    pub time: Range<Duration>,
    /// Its jobs, in order. Between them the calling thread works alone.
    pub jobs: Vec<Job>,
}

/// Work that the threads share.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// From the signal to the moment the caller knows that all threads are done.
    pub time: Range<Duration>,
    /// The time that each thread worked, the calling one first.
    pub threads: Vec<Range<Duration>>,
    /// Places of the matrices that it multiplies with, in the model's bytes; none of other work.
    /// Each thread reads its band of each.
    pub matrices: Vec<Range<usize>>,
}

/// The passes recorded so far, and the one in progress.
pub(crate) struct Recording {
    epoch: Instant,
    /// Address of the model's bytes.
    base: usize,
    passes: Vec<Pass>,
    /// Matrices of the next job.
    matrices: Vec<Range<usize>>,
    /// Begin and end of each thread's share of the current job, in nanoseconds.
    shares: Vec<[AtomicU64; 2]>,
}

impl Recording {
    /// Of a model with these bytes, for so many threads.
    pub fn new(model: &[u8], threads: usize) -> Self {
        Self {
            epoch: Instant::now(),
            base: model.as_ptr() as usize,
            passes: Vec::new(),
            matrices: Vec::new(),
            shares: (0..threads).map(|_| Default::default()).collect(),
        }
    }

    pub fn take(&mut self) -> Vec<Pass> {
        std::mem::take(&mut self.passes)
    }

    pub fn begin_pass(&mut self) {
        let now = self.epoch.elapsed();
        self.passes.push(Pass { time: now..now, jobs: Vec::new() });
    }

    pub fn end_pass(&mut self) {
        let now = self.epoch.elapsed();
        if let Some(pass) = self.passes.last_mut() {
            pass.time.end = now;
        }
    }

    /// The next job multiplies with a matrix of these bytes.
    pub fn reads(&mut self, matrix: &[u8]) {
        let start = (matrix.as_ptr() as usize).wrapping_sub(self.base);
        self.matrices.push(start..start + matrix.len());
    }

    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Runs a thread's share of the current job.
    pub fn share<R>(&self, thread: usize, work: impl FnOnce() -> R) -> R {
        let [begin, end] = &self.shares[thread];
        begin.store(self.nanoseconds(), Ordering::Relaxed);
        let result = work();
        end.store(self.nanoseconds(), Ordering::Relaxed);
        result
    }

    /// Notes a job of `threads` threads that began at this moment and is over now.
    pub fn end_job(&mut self, begin: Duration, threads: usize) {
        let end = self.now();
        let share = |[begin, end]: &[AtomicU64; 2]| {
            Duration::from_nanos(begin.load(Ordering::Relaxed))
                ..Duration::from_nanos(end.load(Ordering::Relaxed))
        };
        let threads = self.shares[..threads].iter().map(share).collect();
        let matrices = std::mem::take(&mut self.matrices);
        if let Some(pass) = self.passes.last_mut() {
            pass.jobs.push(Job { time: begin..end, threads, matrices });
        }
    }

    fn nanoseconds(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }
}
