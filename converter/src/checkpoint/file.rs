//! A file read by position.
//!
//! It is deliberately not mapped: a file that shrinks while it is read gives an error, not a
//! signal; only the caller's buffers take memory; and nothing here is unsafe.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// What some editors put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The first bytes of what Git LFS puts in the place of a large file, and more bytes than that has.
const LFS_FIRST: &[u8; 35] = b"version https://git-lfs.github.com/";
const LFS_LIMIT: u64 = 1024;

/// An open regular file with its length at opening; readable from many threads at once.
#[derive(Debug)]
pub(crate) struct SourceFile {
    path: PathBuf,
    bytes: u64,
    inner: Positional,
}

impl SourceFile {
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let failed = |source| CheckpointError::Open { path: path.into(), source };
        // Checked before opening too: opening a pipe would block until it has a writer.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(CheckpointError::NotAFile { path: path.into() });
        }
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(CheckpointError::NotAFile { path: path.into() });
        }
        let file = Self { path: path.into(), bytes: metadata.len(), inner: Positional::new(file) };
        let mut first = [0; LFS_FIRST.len()];
        if (first.len() as u64..LFS_LIMIT).contains(&file.bytes) {
            file.read_at(0, &mut first)?;
            if first == *LFS_FIRST {
                return Err(CheckpointError::LfsPointer { path: path.into() });
            }
        }
        Ok(file)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file's name without its folder.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// Fills `out` from `offset` on.
    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), CheckpointError> {
        let bytes = out.len() as u64;
        self.inner.read_exact_at(out, offset).map_err(|source| CheckpointError::Read {
            path: self.path.clone(),
            offset,
            bytes,
            source,
        })
    }

    /// The whole file; an error above `limit` bytes.
    pub(crate) fn read_all(&self, limit: u64) -> Result<Vec<u8>, CheckpointError> {
        if self.bytes > limit {
            return Err(CheckpointError::Limit {
                path: self.path.clone(),
                what: "size in bytes",
                limit,
                found: self.bytes,
            });
        }
        let mut out = vec![0; self.bytes as usize];
        self.read_at(0, &mut out)?;
        Ok(out)
    }

    /// The whole file as text, without a byte-order mark.
    pub(crate) fn read_text(&self, limit: u64) -> Result<String, CheckpointError> {
        let mut bytes = self.read_all(limit)?;
        if bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        String::from_utf8(bytes).map_err(|e| CheckpointError::NotUtf8 {
            path: self.path.clone(),
            place: "the text".into(),
            valid_bytes: e.utf8_error().valid_up_to(),
        })
    }
}

#[cfg(unix)]
#[derive(Debug)]
struct Positional(File);

#[cfg(unix)]
impl Positional {
    fn new(file: File) -> Self {
        Self(file)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, out, offset)
    }
}

/// Where there is no portable positional read: seek and read under a lock.
#[cfg(not(unix))]
#[derive(Debug)]
struct Positional(std::sync::Mutex<File>);

#[cfg(not(unix))]
impl Positional {
    fn new(file: File) -> Self {
        Self(std::sync::Mutex::new(file))
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(out)
    }
}
