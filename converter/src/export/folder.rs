//! A folder that appears complete or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use pith_format::{folder_of, sync_folder, temporary_name};

use crate::error::ConvertError;

/// Files of a new folder, before it has its name.
pub(super) struct Staging {
    output: PathBuf,
    temporary: PathBuf,
    files: Vec<String>,
}

impl Staging {
    /// `output` must not exist, or be an empty folder.
    pub(super) fn create(output: &Path) -> Result<Self, ConvertError> {
        let taken = match fs::read_dir(output) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        if taken || output.file_name().is_none() {
            return Err(ConvertError::OutputFolder { path: output.into() });
        }
        let temporary = temporary_name(output);
        fs::create_dir(&temporary).map_err(failed(&temporary, "create"))?;
        Ok(Self { output: output.into(), temporary, files: Vec::new() })
    }

    /// Opens a file of it.
    pub(super) fn file(&mut self, name: &str) -> Result<File, ConvertError> {
        let path = self.path(name);
        self.files.push(name.into());
        File::create_new(&path).map_err(failed(&path, "create"))
    }

    /// The temporary place of a file.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.temporary.join(name)
    }

    /// Writes a small file.
    pub(super) fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), ConvertError> {
        let path = self.path(name);
        let mut file = self.file(name)?;
        io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all()).map_err(failed(&path, "write"))
    }

    /// Copies a file of another folder, if it exists there.
    pub(super) fn copy(&mut self, from: &Path, name: &str) -> Result<(), ConvertError> {
        let source = from.join(name);
        if !source.is_file() {
            return Ok(());
        }
        let mut file = self.file(name)?;
        let copied = File::open(&source).and_then(|mut from| io::copy(&mut from, &mut file));
        copied.and_then(|_| file.sync_all()).map_err(failed(&source, "copy"))
    }

    /// Gives the folder its name; returns the names of its files.
    pub(super) fn finish(mut self) -> Result<Vec<String>, ConvertError> {
        if self.output.is_dir() {
            // Some systems rename onto an empty folder, others do not.
            fs::remove_dir(&self.output).map_err(failed(&self.output, "replace"))?;
        }
        let synced = sync_folder(&self.temporary);
        let renamed = synced.and_then(|()| fs::rename(&self.temporary, &self.output));
        renamed.and_then(|()| sync_folder(folder_of(&self.output))).map_err(failed(&self.output, "name"))?;
        Ok(std::mem::take(&mut self.files))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After `finish` the temporary name is gone and this does nothing.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// Turns an I/O error into one that names the file and the action.
pub(super) fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> ConvertError {
    let path = path.to_path_buf();
    move |source| ConvertError::Write { path, action, source }
}
