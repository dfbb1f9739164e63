//! Threads and kernels, shared by any number of sessions.

mod lender;

use crate::error::{RuntimeError, at_least_one};
use crate::pool::{CpuSet, MAX_THREADS, Pool, Visit};
use lender::Lender;
use pith_kernels::Kernels;
use std::fmt;
use std::sync::Arc;

/// What an engine is to be like.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Threads, the calling one included; as many as there are CPUs given, or as the system says can run at once.
    pub threads: Option<usize>,
    /// Keeps each thread but the calling one on a CPU of its own. For machines that do nothing else.
    pub pin_threads: bool,
    /// The CPUs that all threads are kept on, by the system's numbers. The thread that calls a session is on them
    /// while it computes a pass, and where it was before as soon as the pass ends. Left to the system where there are
    /// none given. An error where the system has no call for that, or refuses one of them.
    pub cpus: Option<Vec<usize>>,
    /// Name of the kernels; the fastest that this CPU can run.
    pub kernels: Option<String>,
}

/// Threads and the kernels that they run, for any number of sessions.
///
/// Passes of sessions that are used from several threads at once take turns, in the order in which they were asked
/// for: each pass has all threads, and while nobody else waits it costs two uncontended locks.
///
/// Making an engine, and opening sessions on it, leaves the calling thread as it was: it may run wherever it might
/// before.
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

/// An engine's threads while a pass has them.
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
        // Threads begin on the CPUs of the thread that starts them.
        let _visit = cpus.as_ref().and_then(CpuSet::visit);
        let pool = Pool::new(threads, options.pin_threads)
            .map_err(|source| RuntimeError::Threads { threads, source })?;
        Ok(Arc::new(Self { cpus, ..Self::of(kernels, pool) }))
    }

    /// Runs `kernels` on the threads of `pool`.
    pub(crate) fn of(kernels: &'static dyn Kernels, pool: Pool) -> Self {
        Self { kernels, threads: pool.threads(), cpus: None, pool: Lender::new(pool) }
    }

    /// Threads, the calling one included.
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

    /// The threads, for one pass; waits while others have them. The calling thread is on the engine's CPUs until they are
    /// given back.
    pub(crate) fn lend(&self) -> Lent {
        let pool = self.pool.lend();
        Lent { pool, visit: self.cpus.as_ref().and_then(CpuSet::visit) }
    }

    /// Ends a pass, on the thread that began it.
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
    /// Threads of an engine with these options.
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
