//! Thread pool. Threads wait for the next matrix by spinning for a moment, since in decoding it
//! comes within microseconds, then park.
//!
//! A thread that loses its CPU makes all others wait for its share, for milliseconds each time.
//! Such a straggler is left out for a while, longer each time it happens again. A CPU shared with
//! another program then slows a token down to the speed of the other CPUs, not below it.

mod affinity;

use crate::timeline::Recording;
use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

pub(crate) use affinity::{CpuSet, Visit};

/// Most threads an engine can have.
pub const MAX_THREADS: usize = 64;

/// Time a thread spins before it parks.
const SPIN: Duration = Duration::from_micros(50);

/// A thread is a straggler if all others waited this long for it, and half as long as they had
/// worked themselves.
const STRAGGLER_WAIT: Duration = Duration::from_millis(1);

/// Time a straggler is left out: the first time, and at most.
const LEAVE: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(500)];

/// The calling thread and `threads − 1` others, which live as long as the pool.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// Notes when each thread works, if somebody asked.
    pub recording: Option<Box<Recording>>,
}

struct Worker {
    handle: JoinHandle<()>,
    /// End of the time it is left out.
    leave_until: Option<Instant>,
    /// Last time left out, and the moment of return.
    leave: Duration,
    back_since: Option<Instant>,
}

/// A job of the pool's threads. Its argument is a number below their count; 0 is the calling
/// thread.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

struct Shared {
    /// One per worker.
    signals: Vec<Line<Signal>>,
    /// Workers that have not finished the job.
    running: Line<AtomicUsize>,
    /// The thread that finished last.
    last: AtomicUsize,
    /// Written by the caller while no worker runs, read by workers between the signal and their
    /// last decrement of `running`.
    job: UnsafeCell<Option<Job<'static>>>,
    stop: AtomicBool,
    caller_parked: AtomicBool,
    caller: Mutex<Option<Thread>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    spin: Duration,
}

/// The caller's channel to one worker.
#[derive(Default)]
struct Signal {
    /// Number of jobs it took part in; a change is the signal to begin.
    generation: AtomicUsize,
    /// Its number in the current job.
    rank: AtomicUsize,
    /// Set by the worker before it parks, cleared by the thread that wakes it.
    parked: AtomicBool,
}

/// A cache line of its own, so that threads spinning on it do not disturb others.
#[repr(align(128))]
#[derive(Default)]
struct Line<T>(T);

// SAFETY: all fields except `job` are `Sync`; `job` is written only while no worker reads it, see
// there.
unsafe impl Sync for Shared {}
// SAFETY: the job is a shared reference to something `Sync`.
unsafe impl Send for Shared {}

impl Pool {
    /// Spawns `threads − 1` threads.
    ///
    /// With `pin` each of them stays on its own CPU where the system supports it. Fails if a thread
    /// cannot be started.
    pub fn new(threads: usize, pin: bool) -> std::io::Result<Self> {
        assert!((1..=MAX_THREADS).contains(&threads));
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
        let shared = Arc::new(Shared {
            signals: (1..threads).map(|_| Line::default()).collect(),
            running: Line::default(),
            last: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            caller_parked: AtomicBool::new(false),
            caller: Mutex::new(None),
            panic: Mutex::new(None),
            // Where threads share a CPU, a spinning thread would block the one it waits for.
            spin: if threads <= cpus { SPIN } else { Duration::ZERO },
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads - 1), recording: None };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let body = move || {
                if pin {
                    affinity::pin_to(worker);
                }
                shared.work(worker - 1);
            };
            let handle = std::thread::Builder::new().name(format!("pith-{worker}")).spawn(body)?;
            pool.workers.push(Worker { handle, leave_until: None, leave: LEAVE[0], back_since: None });
        }
        Ok(pool)
    }

    /// Number of threads, including the calling one and any left out for now.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Cuts `data` into chunks of `chunk_len` (the last may be shorter). Calls `work` once for
    /// each, with the chunk, its index and the scratch of the thread it runs on.
    ///
    /// At most `limit` threads take part; `scratch` needs an element for each. With one thread,
    /// everything runs on the caller's thread, in order. The first chunks go to the threads by
    /// number; a thread that is done takes the next chunk. A panic in `work` is passed on after all
    /// threads have stopped.
    pub fn for_chunks<T: Send, S: Send>(
        &mut self,
        limit: usize,
        data: &mut [T],
        chunk_len: usize,
        scratch: &mut [S],
        work: impl Fn(usize, &mut [T], &mut S) + Sync,
    ) {
        let threads = limit.min(self.call_back()).min(data.len().div_ceil(chunk_len)).max(1);
        assert!(threads <= scratch.len());
        let Some(mut recording) = self.recording.take() else {
            return self.share(threads, data, chunk_len, scratch, work, None);
        };
        let begin = recording.now();
        self.share(threads, data, chunk_len, scratch, work, Some(&recording));
        recording.end_job(begin, threads);
        self.recording = Some(recording);
    }

    /// [`Pool::for_chunks`] on exactly so many threads.
    fn share<T: Send, S: Send>(
        &mut self,
        threads: usize,
        data: &mut [T],
        chunk_len: usize,
        scratch: &mut [S],
        work: impl Fn(usize, &mut [T], &mut S) + Sync,
        recording: Option<&Recording>,
    ) {
        let (len, chunk_count) = (data.len(), data.len().div_ceil(chunk_len));
        if threads == 1 {
            let mut all = || {
                for (index, chunk) in data.chunks_mut(chunk_len).enumerate() {
                    work(index, chunk, &mut scratch[0]);
                }
            };
            return match recording {
                None => all(),
                Some(recording) => recording.share(0, all),
            };
        }
        let next = AtomicUsize::new(threads);
        let (data, scratch) = (Base(data.as_mut_ptr()), Base(scratch.as_mut_ptr()));
        self.broadcast(threads, &|worker| {
            // SAFETY: `worker < threads ≤ scratch.len()`.
            let scratch = unsafe { scratch.get().add(worker) };
            // SAFETY: each worker has its own number, so no other thread uses this element; it
            // outlives `broadcast`.
            let scratch = unsafe { &mut *scratch };
            let mut all = || {
                let mut index = worker;
                while index < chunk_count {
                    let start = index * chunk_len;
                    // SAFETY: `start < len`, since `index < chunk_count`.
                    let chunk = unsafe { data.get().add(start) };
                    // SAFETY: within `data`, which outlives `broadcast`; each index is given out
                    // once (below `threads` by the worker's number, from there on by `next`), so
                    // chunks do not overlap.
                    let chunk = unsafe { std::slice::from_raw_parts_mut(chunk, chunk_len.min(len - start)) };
                    work(index, chunk, scratch);
                    index = next.fetch_add(1, Ordering::Relaxed);
                }
            };
            match recording {
                None => all(),
                Some(recording) => recording.share(worker, all),
            }
        });
    }

    /// Runs `job` once on each of `threads` threads and returns when all are done. At least that
    /// many threads must not be left out.
    fn broadcast(&mut self, threads: usize, job: Job<'_>) {
        let shared = &*self.shared;
        // Computed before any thread has the job: from there on nothing may panic until all are
        // done with it.
        let present = self.workers.iter().filter(|worker| worker.leave_until.is_none()).count();
        assert!(threads <= present + 1, "{threads} threads asked for, {} there", present + 1);
        // SAFETY: only the lifetime changes. No worker uses the job after `running` is 0, and this
        // function waits for that, on every path, before this borrow ends.
        let job_forever = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        // SAFETY: `&mut self` and the wait below guarantee that no worker is running a job, so none
        // reads this.
        unsafe { *shared.job.get() = Some(job_forever) };
        shared.running.0.store(threads - 1, Ordering::SeqCst);
        let begin = Instant::now();
        let present =
            self.workers.iter().zip(&shared.signals).filter(|(worker, _)| worker.leave_until.is_none());
        for (rank, (worker, signal)) in (1..threads).zip(present) {
            signal.0.rank.store(rank, Ordering::SeqCst);
            signal.0.begin(worker.handle.thread());
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let parked = shared.wait_for_workers();
        let others = lock(&shared.panic).take();
        if let Some(payload) = own.err().or(others) {
            resume_unwind(payload);
        }
        if let Some(parked) = parked {
            self.judge(parked - begin, parked.elapsed());
        }
    }

    /// Leaves out a straggler.
    fn judge(&mut self, worked: Duration, waited: Duration) {
        if waited < STRAGGLER_WAIT || waited < worked / 2 {
            return;
        }
        let worker = &mut self.workers[self.shared.last.load(Ordering::SeqCst)];
        let now = Instant::now();
        // A thread that was on time for long starts again with the shortest time.
        let again = worker.back_since.is_some_and(|since| now - since < 8 * worker.leave);
        worker.leave = if again { (2 * worker.leave).min(LEAVE[1]) } else { LEAVE[0] };
        worker.leave_until = Some(now + worker.leave);
    }

    /// Number of threads in use, after bringing back those whose time is over.
    fn call_back(&mut self) -> usize {
        let mut count = 1;
        for worker in &mut self.workers {
            if let Some(until) = worker.leave_until {
                let now = Instant::now();
                if now < until {
                    continue;
                }
                (worker.leave_until, worker.back_since) = (None, Some(now));
            }
            count += 1;
        }
        count
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for (worker, signal) in self.workers.iter().zip(&self.shared.signals) {
            signal.0.begin(worker.handle.thread());
        }
        for worker in self.workers.drain(..) {
            worker.handle.join().expect("a worker catches the panics of its jobs");
        }
    }
}

impl Signal {
    fn begin(&self, thread: &Thread) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        if self.parked.swap(false, Ordering::SeqCst) {
            thread.unpark();
        }
    }
}

impl Shared {
    fn work(&self, worker: usize) {
        let signal = &self.signals[worker].0;
        let mut seen = 0;
        loop {
            let begun = || signal.generation.load(Ordering::SeqCst) != seen;
            wait(self.spin, begun, &signal.parked);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            seen = seen.wrapping_add(1);
            // SAFETY: the job was written before the generation changed and is not written again
            // before this worker has counted itself out.
            let job = unsafe { *self.job.get() }.expect("a job comes before its signal");
            let rank = signal.rank.load(Ordering::SeqCst);
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(rank))) {
                *lock(&self.panic) = Some(payload);
            }
            self.last.store(worker, Ordering::SeqCst);
            if self.running.0.fetch_sub(1, Ordering::SeqCst) == 1
                && self.caller_parked.swap(false, Ordering::SeqCst)
                && let Some(caller) = &*lock(&self.caller)
            {
                caller.unpark();
            }
        }
    }

    /// Returns the moment when it gave up spinning and parked, if it did.
    fn wait_for_workers(&self) -> Option<Instant> {
        let done = || self.running.0.load(Ordering::SeqCst) == 0;
        if spin(self.spin, done) {
            return None;
        }
        let parked = Instant::now();
        *lock(&self.caller) = Some(std::thread::current());
        wait(Duration::ZERO, done, &self.caller_parked);
        Some(parked)
    }
}

/// Spins, then parks until `ready`. The thread that makes it ready must clear `parked`, and unpark
/// this thread if it was set.
fn wait(duration: Duration, ready: impl Fn() -> bool, parked: &AtomicBool) {
    if spin(duration, &ready) {
        return;
    }
    loop {
        // A swap, not a store: qemu 7 lets a load overtake an earlier store, for aarch64 on x86.
        // This thread would then see the old state and park, while the other sees the old flag and
        // does not wake it.
        parked.swap(true, Ordering::SeqCst);
        // Check again after setting the flag: a thread that made it ready before did not see the
        // flag.
        if ready() {
            parked.store(false, Ordering::SeqCst);
            return;
        }
        std::thread::park();
    }
}

/// Whether `ready` became true while spinning.
fn spin(duration: Duration, ready: impl Fn() -> bool) -> bool {
    if ready() {
        return true;
    }
    if duration.is_zero() {
        return false;
    }
    let begin = Instant::now();
    loop {
        for _ in 0..32 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if begin.elapsed() > duration {
            return ready();
        }
    }
}

/// A lock that ignores poisoning. Only an allocation can panic under it, and the content is then
/// still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Start of a slice whose parts are distributed among threads.
struct Base<T>(*mut T);

impl<T> Base<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: it only hands out the pointer; `for_chunks` gives every element, which is `Send`, to one
// thread at a time.
unsafe impl<T: Send> Sync for Base<T> {}

#[cfg(test)]
mod tests;
