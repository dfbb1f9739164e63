//! From options to a session.

use crate::args::{KvArg, SessionArgs};
use pith_runtime::{KvType, Model, Session, SessionOptions};
use std::path::Path;
use std::sync::Arc;

impl From<KvArg> for KvType {
    fn from(kv: KvArg) -> Self {
        match kv {
            KvArg::F32 => KvType::F32,
            KvArg::F16 => KvType::F16,
            KvArg::Q8 => KvType::Q8,
        }
    }
}

/// Opens a file and a session over it.
pub fn open(path: &Path, args: &SessionArgs) -> anyhow::Result<(Arc<Model>, Session)> {
    let model = Arc::new(open_model(path)?);
    let options = SessionOptions {
        context_len: args.context,
        kv_type: args.kv.into(),
        threads: args.threads,
        kernels: args.kernels.clone(),
        batch: args.batch,
        beyond_model: args.beyond_model,
        ..SessionOptions::default()
    };
    let session = Session::new(Arc::clone(&model), options)?;
    Ok((model, session))
}

/// Opens a file; a checkpoint in its place gets the command that converts it.
pub fn open_model(path: &Path) -> anyhow::Result<Model> {
    if path.is_dir() || path.extension().is_some_and(|extension| extension == "gguf") {
        let path = path.display();
        anyhow::bail!("{path} is a checkpoint; convert it first: pith convert {path} MODEL.pith");
    }
    Ok(Model::open(path)?)
}
