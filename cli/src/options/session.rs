//! Options of a session, and the session made from them. Each option is defined once, in the
//! smallest group that some command takes alone.

use crate::{output, placement};
use anyhow::Context;
use clap::{Args, ValueEnum};
use pith_boards::{Choice, Cores, Wanted, parse_cpu_list};
use pith_runtime::{KvType, MAX_THREADS, Model, RuntimeError, Session, SessionOptions};
use std::path::Path;
use std::sync::Arc;

/// All options of a session.
#[derive(Clone, Debug, Args)]
pub struct SessionArgs {
    #[command(flatten)]
    pub cores: CoreArgs,
    #[command(flatten)]
    pub context: ContextArgs,
    /// Allow a --context longer than the model was trained for
    #[arg(long)]
    pub beyond_model: bool,
    #[command(flatten)]
    pub pass: PassArgs,
}

/// Options of a pass over the model.
#[derive(Clone, Debug, Args)]
pub struct PassArgs {
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Prompt tokens computed in one pass [default: 128 or 256, by the kernels]
    #[arg(long, value_name = "TOKENS")]
    pub batch: Option<usize>,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Lock the weights in memory
    #[arg(long)]
    pub mlock: bool,
    /// Copy the file into memory, in large pages, whatever memory is left [default: where that is
    /// faster, the system has large pages and the memory]
    #[arg(long, visible_alias = "no-mmap", conflicts_with = "memory")]
    pub huge_pages: bool,
    /// Map the file, and never copy it: its memory is shared with other processes
    #[arg(long, conflicts_with = "huge_pages")]
    pub mmap: bool,
}

/// Threads and their CPUs.
#[derive(Clone, Debug, Args)]
pub struct CoreArgs {
    /// Threads [default: one per big core, fewer where a control group allows fewer]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// CPUs and kernels.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Run on these CPUs only, as in 0-3,6 [default: the big cores]
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub cpus: Option<CpuList>,
    /// Kernels by name (see `pith inspect --cpu`) [default: the fastest]
    #[arg(long, value_name = "NAME")]
    pub kernels: Option<String>,
}

/// The longest sequence.
#[derive(Clone, Debug, Args)]
pub struct ContextArgs {
    /// Longest sequence in tokens [default: the model's, at most 4096]
    #[arg(id = "context", short = 'c', long = "context", value_name = "TOKENS")]
    pub tokens: Option<usize>,
}

/// The cache of keys and values.
#[derive(Clone, Debug, Args)]
pub struct CacheArgs {
    /// Type of cached keys and values
    #[arg(long, value_enum, default_value_t = KvArg::F16)]
    pub kv: KvArg,
}

/// The memory limit.
#[derive(Clone, Debug, Args)]
pub struct MemoryArgs {
    /// Memory limit, as in 600M or 2GiB; weights beyond it are read from disk again for every pass
    /// [default: available memory]
    #[arg(id = "memory", long = "memory", value_name = "SIZE", value_parser = output::parse_bytes)]
    pub bytes: Option<u64>,
}

/// Type of the cache.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KvArg {
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// 8 bits, with one scale for each head and position
    Q8,
    /// 4 bits, with one scale per 32 numbers of a head and position
    Q4,
}

/// Numbers of CPUs.
#[derive(Clone, Debug)]
pub struct CpuList(Vec<usize>);

fn cpus(text: &str) -> Result<CpuList, String> {
    parse_cpu_list(text).map(CpuList)
}

impl From<KvArg> for KvType {
    fn from(kv: KvArg) -> Self {
        match kv {
            KvArg::F32 => KvType::F32,
            KvArg::F16 => KvType::F16,
            KvArg::Q8 => KvType::Q8,
            KvArg::Q4 => KvType::Q4,
        }
    }
}

impl MemoryArgs {
    /// The given limit, or the available memory. A system that reports none, or an implausible
    /// value, sets no limit.
    pub fn limit(&self) -> Option<u64> {
        self.bytes.or_else(|| pith_boards::available_memory().ok().flatten())
    }
}

impl PlaceArgs {
    /// Chooses threads and CPUs from the request and the machine. If the system reports its cores
    /// wrongly, the runtime's thread count applies.
    pub fn choose(&self, threads: Option<usize>) -> anyhow::Result<Choice> {
        let wanted = Wanted { threads, cpus: self.cpus.as_ref().map(|list| &list.0[..]) };
        let chosen = match Cores::read(Path::new("/")) {
            Ok(cores) => cores.choose(wanted).context("--cpus")?,
            Err(error) if self.cpus.is_some() => return Err(error.into()),
            Err(error) => Choice { threads, cpus: None, reason: error.to_string() },
        };
        // The runtime checks a number that was given.
        let most = if threads.is_some() { usize::MAX } else { MAX_THREADS };
        Ok(Choice { threads: chosen.threads.map(|threads| threads.min(most)), ..chosen })
    }

    /// Session options for these cores.
    pub fn session(&self, cores: &Choice) -> SessionOptions {
        SessionOptions {
            threads: cores.threads,
            cpus: cores.cpus.clone(),
            kernels: self.kernels.clone(),
            ..SessionOptions::default()
        }
    }
}

impl CoreArgs {
    /// Session options that set only threads and CPUs.
    pub fn session(&self) -> anyhow::Result<SessionOptions> {
        Ok(self.place.session(&self.place.choose(self.threads)?))
    }
}

impl SessionArgs {
    /// All session options that do not depend on the model.
    fn options(&self) -> anyhow::Result<SessionOptions> {
        Ok(SessionOptions {
            context_len: self.context.tokens,
            kv_type: self.pass.cache.kv.into(),
            batch: self.pass.batch,
            beyond_model: self.beyond_model,
            memory: if self.pass.huge_pages { None } else { self.pass.memory.limit() },
            lock: self.pass.mlock,
            ..self.cores.session()?
        })
    }

    /// Opens a file and a session with exact logits.
    pub fn open(&self, path: &Path) -> anyhow::Result<(Arc<Model>, Session)> {
        self.open_with(path, |_| Ok(false))
    }

    /// Opens a file and a session; `two_stage_logits` decides by the model, see
    /// [`SessionOptions::two_stage_logits`].
    ///
    /// By default the available memory is the limit; if that is too little for any plan, there is
    /// no limit.
    pub fn open_with(
        &self,
        path: &Path,
        two_stage_logits: impl FnOnce(&Model) -> anyhow::Result<bool>,
    ) -> anyhow::Result<(Arc<Model>, Session)> {
        // Detects the cores before opening the file, which may take long.
        let options = self.options()?;
        let model = Arc::new(self.pass.open(path, &options)?);
        let options = SessionOptions { two_stage_logits: two_stage_logits(&model)?, ..options };
        let session = match Session::new(Arc::clone(&model), options.clone()) {
            Err(error @ RuntimeError::MemoryLimit { .. }) if self.pass.memory.bytes.is_none() => {
                eprintln!("note: {error}; running without a limit");
                Session::new(Arc::clone(&model), SessionOptions { memory: None, ..options })?
            }
            session => session?,
        };
        if let Some(summary) = session.placement().and_then(placement::summary) {
            eprintln!("{summary}");
        }
        Ok((model, session))
    }
}

impl PassArgs {
    /// Opens a file for sessions with these options, mapped or copied.
    pub fn open(&self, path: &Path, options: &SessionOptions) -> anyhow::Result<Model> {
        check_model(path)?;
        if self.huge_pages {
            return Ok(Model::load(path)?);
        }
        let model = Model::open(path)?;
        if self.mmap {
            return Ok(model);
        }
        let memory = options.memory.or_else(|| self.memory.limit());
        Ok(model.prefer_large_pages(&SessionOptions { memory, ..options.clone() })?)
    }
}

/// Maps a file; for a checkpoint the error names the command that converts it.
pub fn open_model(path: &Path) -> anyhow::Result<Model> {
    check_model(path)?;
    Ok(Model::open(path)?)
}

fn check_model(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() || path.extension().is_some_and(|extension| extension == "gguf") {
        let path = path.display();
        anyhow::bail!("{path} is a checkpoint; convert it first: pith convert {path} MODEL.pith");
    }
    Ok(())
}
