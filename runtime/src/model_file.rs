//! A file opened for inspection, not for running.

use crate::error::RuntimeError;
use crate::model::Model;
use crate::storage::{Storage, open_file};
use pith_format::Index;
use std::path::Path;

/// A mapped `.pith` file with a checked index. Unlike a [`Model`] it may hold kinds of layers that
/// this runtime cannot run: such a file can still be inspected and verified.
pub struct ModelFile(Contents);

enum Contents {
    Model(Box<Model>),
    /// A file with a layer of a kind that `reason` names.
    NotRun {
        storage: Storage,
        index: Box<Index>,
        reason: RuntimeError,
    },
}

impl ModelFile {
    /// Maps a file and checks header, metadata, block index and directory. As [`Model::open`] does,
    /// it also checks that no tensor is missing or unused, as far as this runtime knows the kinds
    /// of layers.
    ///
    /// The file must not change, see [`Model::open`].
    pub fn open(path: &Path) -> Result<Self, RuntimeError> {
        let reason = match Model::open(path) {
            Ok(model) => return Ok(Self(Contents::Model(Box::new(model)))),
            Err(error @ RuntimeError::LayerKind { .. }) => error,
            Err(error) => return Err(error),
        };
        let (name, (file, extent)) = (path.display().to_string(), open_file(path)?);
        let storage = Storage::open(&name, file, extent)?;
        let index = Index::parse(&storage).map_err(|source| RuntimeError::Format { path: name, source })?;
        Ok(Self(Contents::NotRun { storage, index: Box::new(index), reason }))
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Contents::Model(model) => model.bytes(),
            Contents::NotRun { storage, .. } => storage,
        }
    }

    /// Configuration and directory.
    pub fn index(&self) -> &Index {
        match &self.0 {
            Contents::Model(model) => model.index(),
            Contents::NotRun { index, .. } => index,
        }
    }

    /// Reason why this runtime cannot run the file, if so: [`RuntimeError::LayerKind`].
    pub fn not_run(&self) -> Option<&RuntimeError> {
        match &self.0 {
            Contents::Model(_) => None,
            Contents::NotRun { reason, .. } => Some(reason),
        }
    }
}
