//! Threads that wait for the next matrix: they spin for a moment, since in decoding it comes within microseconds,
//! then park.
//!
//! A thread whose CPU is taken away makes all others wait for its share, for milliseconds each time. Who is late in
//! this way is left out for a while, longer each time it happens again, so that a CPU which is shared with another
//! program slows a token down to what the other CPUs can do, not below it.

mod affinity;

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

/// How long a thread spins before it parks.
const SPIN: Duration = Duration::from_micros(50);

/// A thread is late if all others waited this long for it, and half as long as they had worked themselves.
const LATE: Duration = Duration::from_millis(1);

/// How long a thread is left out the first time, and at most.
const LEAVE: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(500)];

/// The calling thread and `threads − 1` others, which live as long as the pool.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

struct Worker {
    handle: JoinHandle<()>,
    /// Left out until then.
    leave_until: Option<Instant>,
    /// How long it was left out the last time, and when it came back.
    leave: Duration,
    back_since: Option<Instant>,
}

/// What threads of the pool run, with a number below their count; 0 is the calling thread.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

struct Shared {
    /// One a worker.
    signals: Vec<Line<Signal>>,
    /// Workers that have not finished the job.
    running: Line<AtomicUsize>,
    /// Who finished last.
    last: AtomicUsize,
    /// Written by the caller while no worker runs, read by workers between the signal and their last decrement of
    /// `running`.
    job: UnsafeCell<Option<Job<'static>>>,
    stop: AtomicBool,
    caller_parked: AtomicBool,
    caller: Mutex<Option<Thread>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    spin: Duration,
}

/// How the caller reaches a worker.
#[derive(Default)]
struct Signal {
    /// Counts the jobs it takes part in: a change is the signal to begin.
    generation: AtomicUsize,
    /// Its number in the present job.
    rank: AtomicUsize,
    /// Set by it before it parks, cleared by who wakes it.
    parked: AtomicBool,
}

/// A cache line of its own, so that threads that spin on it disturb nobody else.
#[repr(align(128))]
#[derive(Default)]
struct Line<T>(T);

// SAFETY: all fields but `job` are `Sync`; `job` is written only while no worker reads it, see there.
unsafe impl Sync for Shared {}
// SAFETY: the job it holds is a shared reference to something `Sync`.
unsafe impl Send for Shared {}

impl Pool {
    /// Spawns `threads − 1` threads; none for one.
    ///
    /// With `pin` each of them stays on a CPU of its own where the system has a call for that. Fails if the system
    /// gives no more threads.
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
            // Where threads share a CPU, spinning keeps from running what is waited for.
            spin: if threads <= cpus { SPIN } else { Duration::ZERO },
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads - 1) };
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

    /// Threads, the caller's included, whether or not some are left out for now.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Cuts `data` into chunks of `chunk_len` (the last may be shorter) and calls `work` once with each, its index
    /// and the scratch of the thread it runs on.
    ///
    /// At most `limit` threads take part, of which `scratch` needs one each; with one, everything runs on the
    /// caller's thread, in order. Chunk `n` goes to thread `n` while there are threads; who is done takes the next.
    /// A panic in `work` is passed on after all threads have stopped.
    pub fn for_chunks<T: Send, S: Send>(
        &mut self,
        limit: usize,
        data: &mut [T],
        chunk_len: usize,
        scratch: &mut [S],
        work: impl Fn(usize, &mut [T], &mut S) + Sync,
    ) {
        let (len, chunk_count) = (data.len(), data.len().div_ceil(chunk_len));
        let threads = limit.min(self.call_back()).min(chunk_count).max(1);
        assert!(threads <= scratch.len());
        if threads == 1 {
            for (index, chunk) in data.chunks_mut(chunk_len).enumerate() {
                work(index, chunk, &mut scratch[0]);
            }
            return;
        }
        let next = AtomicUsize::new(threads);
        let (data, scratch) = (Base(data.as_mut_ptr()), Base(scratch.as_mut_ptr()));
        self.broadcast(threads, &|worker| {
            // SAFETY: `worker < threads ≤ scratch.len()`.
            let scratch = unsafe { scratch.get().add(worker) };
            // SAFETY: each worker has its own number, so nobody else has this element; it outlives `broadcast`.
            let scratch = unsafe { &mut *scratch };
            let mut index = worker;
            while index < chunk_count {
                let start = index * chunk_len;
                // SAFETY: `start < len`, since `index < chunk_count`.
                let chunk = unsafe { data.get().add(start) };
                // SAFETY: within `data`, which outlives `broadcast`; each index is given out once (below `threads`
                // by the worker's number, from there on by `next`), so chunks do not overlap.
                let chunk = unsafe { std::slice::from_raw_parts_mut(chunk, chunk_len.min(len - start)) };
                work(index, chunk, scratch);
                index = next.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Runs `job` once on each of `threads` threads and returns when all are done. At least as many must be there that
    /// are not left out.
    fn broadcast(&mut self, threads: usize, job: Job<'_>) {
        let shared = &*self.shared;
        // Before anyone has the job: from there on nothing may panic until all are done with it.
        let present = self.workers.iter().filter(|worker| worker.leave_until.is_none()).count();
        assert!(threads <= present + 1, "{threads} threads asked for, {} there", present + 1);
        // SAFETY: only the lifetime changes; no worker uses the job after `running` is 0, which is waited for below,
        // on every path, before this borrow ends.
        let job_forever = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        // SAFETY: `&mut self` and the wait below say that no worker is running a job, so none reads this.
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

    /// Leaves out who made the others wait.
    fn judge(&mut self, worked: Duration, waited: Duration) {
        if waited < LATE || waited < worked / 2 {
            return;
        }
        let worker = &mut self.workers[self.shared.last.load(Ordering::SeqCst)];
        let now = Instant::now();
        // Who was on time for long is forgiven.
        let again = worker.back_since.is_some_and(|since| now - since < 8 * worker.leave);
        worker.leave = if again { (2 * worker.leave).min(LEAVE[1]) } else { LEAVE[0] };
        worker.leave_until = Some(now + worker.leave);
    }

    /// Threads that are not left out, after taking back who was for long enough.
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
            // SAFETY: the job was written before the generation changed and is not written again before this worker
            // has counted itself out.
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

    /// Gives the moment when it had spun long enough and parked, if it had to.
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

/// Spins, then parks until `ready`. Who makes it ready must clear `parked` and unpark this thread if it was set.
fn wait(duration: Duration, ready: impl Fn() -> bool, parked: &AtomicBool) {
    if spin(duration, &ready) {
        return;
    }
    loop {
        // A swap, not a store: qemu 7 lets a load that follows a store overtake it, for aarch64 on x86, and this
        // thread would see the old state and park just as the other sees the old flag and does not wake it.
        parked.swap(true, Ordering::SeqCst);
        // Looked at again after the flag is up: whoever made it ready before has not seen the flag.
        if ready() {
            parked.store(false, Ordering::SeqCst);
            return;
        }
        std::thread::park();
    }
}

/// Whether it became ready while spinning.
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

/// Nothing panics while holding one of these locks but an allocation, after which the content is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The beginning of a slice that threads share out among themselves.
struct Base<T>(*mut T);

impl<T> Base<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: it only gives the pointer out; `for_chunks` hands every element, which is `Send`, to one thread at a time.
unsafe impl<T: Send> Sync for Base<T> {}

#[cfg(test)]
mod tests;
