//! From options to a session.

use crate::args::{CpuList, KvArg, SamplerArgs, SessionArgs};
use crate::plan;
use anyhow::Context;
use pith_boards::{Choice, Cores, Wanted};
use pith_runtime::{EXACT_TOKENS, KvType, MAX_THREADS, Model, RuntimeError, Session, SessionOptions};
use std::path::Path;
use std::sync::Arc;

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

/// Opens a file and a session over it.
///
/// Without a limit given, what the system has available is one; where that is too little for any plan, there is none.
/// `two_stage`: see [`SessionOptions::two_stage_logits`].
pub fn open(path: &Path, args: &SessionArgs, two_stage: bool) -> anyhow::Result<(Arc<Model>, Session)> {
    let cores = choose(args.threads, args.cpus.as_ref())?;
    let model = Arc::new(open_or_load(path, args.huge_pages)?);
    let options = SessionOptions {
        context_len: args.context,
        kv_type: args.kv.into(),
        threads: cores.threads,
        cpus: cores.cpus,
        kernels: args.kernels.clone(),
        batch: args.batch,
        beyond_model: args.beyond_model,
        memory: if args.huge_pages { None } else { memory(args.memory) },
        lock: args.mlock,
        two_stage_logits: two_stage,
        ..SessionOptions::default()
    };
    let session = match Session::new(Arc::clone(&model), options.clone()) {
        Err(error @ RuntimeError::MemoryLimit { .. }) if args.memory.is_none() => {
            eprintln!("note: {error}; running without a limit");
            Session::new(Arc::clone(&model), SessionOptions { memory: None, ..options })?
        }
        session => session?,
    };
    if let Some(summary) = session.placement().and_then(plan::summary) {
        eprintln!("{summary}");
    }
    Ok((model, session))
}

/// Whether replies can come of two-stage logits: whether the sampler looks at no more tokens than have exact ones.
pub fn two_stage(args: &SamplerArgs) -> bool {
    let looks_at_few = args.greedy || args.temperature == 0.0 || (1..=EXACT_TOKENS).contains(&args.top_k);
    !args.exact_logits && args.repeat_penalty == 1.0 && looks_at_few
}

/// How many threads on which CPUs, by what was asked for and what there is. A system that tells nonsense of its cores
/// gets as many threads as the runtime finds.
pub fn choose(threads: Option<usize>, cpus: Option<&CpuList>) -> anyhow::Result<Choice> {
    let wanted = Wanted { threads, cpus: cpus.map(|list| &list.0[..]) };
    let chosen = match Cores::read(Path::new("/")) {
        Ok(cores) => cores.choose(wanted).context("--cpus")?,
        Err(error) if cpus.is_some() => return Err(error.into()),
        Err(error) => Choice { threads, cpus: None, reason: error.to_string() },
    };
    // What was asked for is checked by the runtime.
    let most = if threads.is_some() { usize::MAX } else { MAX_THREADS };
    Ok(Choice { threads: chosen.threads.map(|threads| threads.min(most)), ..chosen })
}

/// The limit given, or what is available; a system that does not tell, or tells nonsense, sets none.
pub fn memory(given: Option<u64>) -> Option<u64> {
    given.or_else(|| pith_boards::available_memory().ok().flatten())
}

/// Opens a file; a checkpoint in its place gets the command that converts it.
pub fn open_model(path: &Path) -> anyhow::Result<Model> {
    open_or_load(path, false)
}

/// [`open_model`], or a copy of the file in memory.
pub fn open_or_load(path: &Path, huge_pages: bool) -> anyhow::Result<Model> {
    if path.is_dir() || path.extension().is_some_and(|extension| extension == "gguf") {
        let path = path.display();
        anyhow::bail!("{path} is a checkpoint; convert it first: pith convert {path} MODEL.pith");
    }
    Ok(if huge_pages { Model::load(path)? } else { Model::open(path)? })
}
