//! Threads and kernels, shared by any number of sessions.

mod lender;

use crate::error::{RuntimeError, at_least_one};
use crate::pool::{CpuSet, MAX_THREADS, Pool, Visit};
use lender::Lender;
use pith_kernels::Kernels;
use std::fmt;
use std::sync::Arc;

/// Options of an engine.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Number of threads, including the calling one. Default: the number of given CPUs, or the
    /// parallelism that the system reports.
    pub threads: Option<usize>,
    /// Pins each thread except the calling one to its own CPU. For machines that do nothing else.
    pub pin_threads: bool,
    /// CPUs for all threads, by the system's numbers. A thread that calls a session moves to them
    /// for each pass and returns to its own CPUs when the pass ends. Default: the system decides.
    /// An error where the system has no such call or refuses one of the CPUs.
    pub cpus: Option<Vec<usize>>,
    /// Name of the kernels. Default: the fastest that this CPU can run.
    pub kernels: Option<String>,
}

/// Threads and their kernels, shared by any number of sessions.
///
/// When several threads use sessions at once, passes take turns in the order of their requests.
/// Each pass has all threads. Without contention a pass costs two uncontended locks.
///
/// Creating an engine, and opening sessions on it, leaves the affinity of the calling thread
/// unchanged.
///
/// ```no_run
/// use pith_runtime::{Engine, EngineOptions, Model, Session, SessionOptions};
/// use std::{path::Path, sync::Arc};
///
/// let engine = Engine::new(EngineOptions::default())?;
/// let model = Arc::new(Model::open(Path::new("model.pith"))?);
/// let options = SessionOptions::default();
/// let mut one = Session::with_engine(&engine, Arc::clone(&model), options.clone())?;
/// let mut other = Session::with_engine(&engine, model, options)?;
/// # let _ = (&mut one, &mut other);
/// # Ok::<(), pith_runtime::RuntimeError>(())
/// ```
pub struct Engine {
    kernels: &'static dyn Kernels,
    threads: usize,
    cpus: Option<CpuSet>,
    pool: Lender<Pool>,
}

/// An engine's threads, lent to one pass.
pub(crate) struct Lent {
    pub pool: Pool,
    visit: Option<Visit>,
}

impl Engine {
    /// Starts the threads.
    pub fn new(options: EngineOptions) -> Result<Arc<Self>, RuntimeError> {
        let threads = options.thread_count()?;
        let kernels = kernels(options.kernels.as_deref())?;
        let refused = |reason| RuntimeError::Option {
            option: "cpus",
            found: format!("{:?}", options.cpus.as_deref().unwrap_or_default()),
            expected: format!("CPUs that this process may use: {reason}"),
        };
        let cpus = options.cpus.as_deref().map(CpuSet::new).transpose().map_err(refused)?;
        // Threads inherit the CPUs of the thread that starts them.
        let _visit = cpus.as_ref().and_then(CpuSet::visit);
        let pool = Pool::new(threads, options.pin_threads)
            .map_err(|source| RuntimeError::Threads { threads, source })?;
        Ok(Arc::new(Self { cpus, ..Self::of(kernels, pool) }))
    }

    /// An engine of `kernels` on the threads of `pool`.
    pub(crate) fn of(kernels: &'static dyn Kernels, pool: Pool) -> Self {
        Self { kernels, threads: pool.threads(), cpus: None, pool: Lender::new(pool) }
    }

    /// Number of threads, including the calling one.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Name of the kernels.
    pub fn kernels(&self) -> &'static str {
        self.kernels.name()
    }

    pub(crate) fn kernel_table(&self) -> &'static dyn Kernels {
        self.kernels
    }

    /// Lends the threads for one pass; waits while others have them. The calling thread stays on
    /// the engine's CPUs until they are returned.
    pub(crate) fn lend(&self) -> Lent {
        let pool = self.pool.lend();
        Lent { pool, visit: self.cpus.as_ref().and_then(CpuSet::visit) }
    }

    /// Ends a pass; must be called on the thread that began it.
    pub(crate) fn take_back(&self, lent: Lent) {
        let Lent { pool, visit } = lent;
        drop(visit);
        self.pool.take_back(pool);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Engine");
        debug.field("kernels", &self.kernels()).field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl EngineOptions {
    /// Number of threads of an engine with these options.
    pub(crate) fn thread_count(&self) -> Result<usize, RuntimeError> {
        let all = || std::thread::available_parallelism().map_or(1, |count| count.get());
        let cpus = self.cpus.as_ref().map_or_else(all, Vec::len);
        at_least_one("threads", self.threads.unwrap_or(cpus.clamp(1, MAX_THREADS)), MAX_THREADS)
    }
}

pub(crate) fn kernels(name: Option<&str>) -> Result<&'static dyn Kernels, RuntimeError> {
    let Some(name) = name else { return Ok(pith_kernels::best()) };
    pith_kernels::by_name(name).ok_or_else(|| {
        let names: Vec<_> = pith_kernels::available().iter().map(|kernels| kernels.name()).collect();
        RuntimeError::Kernels { name: name.into(), available: names.join(", ") }
    })
}
