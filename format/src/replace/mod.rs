//! Atomic replacement of files: a reader sees the old file or the new one, never a part.
//!
//! The new content goes into a temporary file in the target's folder. [`Replacement::commit`] syncs
//! it, renames it to the target and syncs the folder. A replacement that is dropped before, by an
//! error or a panic, leaves nothing.
//!
//! Refused, with an error that names the place:
//! - a target that is a folder, a device, a pipe or a socket: a rename would put a file in its
//!   place;
//! - a target that is one of the inputs, by whatever name: the next run would find its source gone;
//! - a target that exists, unless [`ReplaceOptions::force`] is set. A file that appears while
//!   the new one is written is found as well.
//!
//! A symbolic link is followed: its target is replaced and the link stays. A replaced file keeps
//! its permissions; a new one gets those of the process's mask.
//!
//! On Linux the temporary file has no name where the file system allows that, so that even a killed
//! process leaves nothing. Elsewhere it is `.NAME.RANDOM.partial`, opened exclusively.
//!
//! Not for streams: a pipe or a log that grows is opened and written to as usual.

mod error;
mod temporary;

pub use error::ReplaceError;

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use temporary::Temporary;

/// Most links followed in a chain, as on Linux.
const MAX_LINKS: usize = 40;

/// Options of a replacement.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplaceOptions<'a> {
    /// Whether an existing file may be replaced.
    pub force: bool,
    /// Inputs of the new file. None of them may be replaced, not even with `force`. A missing input
    /// is no obstacle: its reader reports it.
    pub inputs: &'a [PathBuf],
}

impl ReplaceOptions<'_> {
    /// Any existing file may be replaced.
    pub const FORCE: ReplaceOptions<'static> = ReplaceOptions { force: true, inputs: &[] };

    /// Fails where a replacement of `path` would be refused now; for a check before long work.
    pub fn check(&self, path: &Path) -> Result<(), ReplaceError> {
        let (target, found) = resolve(path)?;
        self.check_target(path, &target, found.as_ref())
    }

    fn check_target(&self, path: &Path, target: &Path, found: Option<&Metadata>) -> Result<(), ReplaceError> {
        let Some(found) = found else { return Ok(()) };
        if !found.is_file() {
            return Err(ReplaceError::NotAFile { path: path.into(), found: kind(found) });
        }
        check_inputs(path, target, found, self.inputs)?;
        match self.force {
            true => Ok(()),
            false => Err(ReplaceError::Exists { path: path.into() }),
        }
    }
}

/// Fails if `path` is one of the inputs, by whatever name: for an output that may be a pipe or a
/// device and so is not always a [`Replacement`].
pub fn refuse_inputs(path: &Path, inputs: &[PathBuf]) -> Result<(), ReplaceError> {
    let (target, found) = resolve(path)?;
    found.map_or(Ok(()), |found| check_inputs(path, &target, &found, inputs))
}

fn check_inputs(
    path: &Path,
    target: &Path,
    found: &Metadata,
    inputs: &[PathBuf],
) -> Result<(), ReplaceError> {
    match inputs.iter().find(|input| is_same_file(target, found, input)) {
        Some(input) => Err(ReplaceError::Input { path: path.into(), input: input.clone() }),
        None => Ok(()),
    }
}

/// A replacement file, written before it takes its target's name.
///
/// It is written to like a file, and can seek and read: a header can be written last.
#[derive(Debug)]
pub struct Replacement {
    path: PathBuf,
    target: PathBuf,
    force: bool,
    inputs: Vec<PathBuf>,
    temporary: Temporary,
    /// Opened before any work, so that a folder that cannot be synced fails early.
    folder: Option<File>,
}

impl Replacement {
    /// Opens a temporary file in the folder of `path`, or of the file that it links to.
    pub fn create(path: &Path, options: ReplaceOptions<'_>) -> Result<Self, ReplaceError> {
        let (target, found) = resolve(path)?;
        options.check_target(path, &target, found.as_ref())?;
        let folder = open_folder(folder_of(&target)).map_err(failed(path, "open the folder of"))?;
        let temporary = Temporary::create(&target).map_err(failed(path, "create a temporary file for"))?;
        if let Some(found) = &found {
            keep_permissions(temporary.file(), found).map_err(failed(path, "keep the permissions of"))?;
        }
        let (force, inputs) = (options.force, options.inputs.to_vec());
        Ok(Self { path: path.into(), target, force, inputs, temporary, folder })
    }

    /// The error of a failed write, with its place.
    pub fn failed(&self, action: &'static str, source: io::Error) -> ReplaceError {
        failed(&self.path, action)(source)
    }

    /// Syncs the content written so far to the disk.
    pub fn sync(&mut self) -> Result<(), ReplaceError> {
        self.temporary.file().sync_all().map_err(failed(&self.path, "sync"))
    }

    /// Syncs the file, renames it to its target, and syncs the folder.
    pub fn commit(mut self) -> Result<(), ReplaceError> {
        self.sync()?;
        let (path, folder) = (self.path.clone(), self.folder.take());
        self.commit_unsynced()?;
        folder.map_or(Ok(()), |folder| folder.sync_all()).map_err(failed(&path, "sync the folder of"))
    }

    /// Renames the file to its target without syncing, for a file that is rewritten every few
    /// seconds: a reader sees the old one or the new one, and a power cut may lose both.
    pub fn commit_unsynced(self) -> Result<(), ReplaceError> {
        // Writing may have taken long: check the target again.
        let found = metadata(&self.target).map_err(failed(&self.path, "look at"))?;
        let options = ReplaceOptions { force: self.force, inputs: &self.inputs };
        options.check_target(&self.path, &self.target, found.as_ref())?;
        let published = match self.force {
            true => self.temporary.rename(&self.target),
            false => self.temporary.link_new(&self.target),
        };
        published.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => ReplaceError::Exists { path: self.path.clone() },
            _ => failed(&self.path, "name")(source),
        })
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temporary.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.file().flush()
    }
}

impl Read for Replacement {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.temporary.file().read(bytes)
    }
}

impl Seek for Replacement {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.temporary.file().seek(position)
    }
}

/// Replaces the file at `path` by `bytes`.
pub fn replace(path: &Path, bytes: &[u8], options: ReplaceOptions<'_>) -> Result<(), ReplaceError> {
    let mut replacement = Replacement::create(path, options)?;
    replacement.write_all(bytes).map_err(failed(path, "write"))?;
    replacement.commit()
}

/// Moves a finished file to `path`, under the same conditions. Between file systems it copies.
pub fn move_to(from: &Path, path: &Path, options: ReplaceOptions<'_>) -> Result<(), ReplaceError> {
    let (target, found) = resolve(path)?;
    options.check_target(path, &target, found.as_ref())?;
    let folder = open_folder(folder_of(&target)).map_err(failed(path, "open the folder of"))?;
    let mut source = File::open(from).map_err(failed(from, "open"))?;
    source.sync_all().map_err(failed(from, "sync"))?;
    let moved = match options.force {
        true => fs::rename(from, &target),
        false => temporary::move_new(from, &target),
    };
    match moved {
        Ok(()) => {
            folder.map_or(Ok(()), |folder| folder.sync_all()).map_err(failed(path, "sync the folder of"))
        }
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let mut replacement = Replacement::create(path, options)?;
            io::copy(&mut source, &mut replacement).map_err(failed(path, "write"))?;
            replacement.commit()?;
            fs::remove_file(from).map_err(failed(from, "remove"))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(ReplaceError::Exists { path: path.into() })
        }
        Err(error) => Err(failed(path, "name")(error)),
    }
}

/// A name beside `path` that nobody can guess: `.NAME.RANDOM.partial`.
pub fn temporary_name(path: &Path) -> PathBuf {
    temporary::name_beside(path)
}

/// Follows links. Returns the path of the new file, and the metadata of the file there now.
fn resolve(path: &Path) -> Result<(PathBuf, Option<Metadata>), ReplaceError> {
    let ends_as_folder = path.as_os_str().as_encoded_bytes().last().is_some_and(|&byte| byte == b'/');
    let mut target = path.to_path_buf();
    for _ in 0..=MAX_LINKS {
        let found = metadata(&target).map_err(failed(path, "look at"))?;
        if found.as_ref().is_some_and(Metadata::is_symlink) {
            let link = fs::read_link(&target).map_err(failed(path, "follow"))?;
            target = target.parent().unwrap_or(Path::new("")).join(link);
            continue;
        }
        if found.is_none() && (ends_as_folder || target.file_name().is_none()) {
            return Err(ReplaceError::NotAFile { path: path.into(), found: "the name of a folder" });
        }
        return Ok((target, found));
    }
    Err(failed(path, "follow")(io::Error::other(format!("more than {MAX_LINKS} links"))))
}

/// Metadata; `None` where there is no file.
fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn kind(found: &Metadata) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = found.file_type();
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if found.is_dir() { "a folder" } else { "no ordinary file" }
}

/// Compares device and inode, whatever the names.
#[cfg(unix)]
fn is_same_file(_target: &Path, found: &Metadata, input: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(input).is_ok_and(|input| (input.dev(), input.ino()) == (found.dev(), found.ino()))
}

/// Compares the names after resolving links.
#[cfg(not(unix))]
fn is_same_file(target: &Path, _found: &Metadata, input: &Path) -> bool {
    matches!((target.canonicalize(), input.canonicalize()), (Ok(target), Ok(input)) if target == input)
}

/// A file that only its owner could read stays so.
fn keep_permissions(file: &File, found: &Metadata) -> io::Result<()> {
    // On other systems permissions are one flag, which would forbid the renaming.
    if cfg!(unix) { file.set_permissions(found.permissions()) } else { Ok(()) }
}

/// The folder that contains a file or folder.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes creations, renames and removals in a folder survive a power cut.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    open_folder(folder)?.map_or(Ok(()), |folder| folder.sync_all())
}

/// `None` on systems that cannot open a folder; they sync it by themselves.
fn open_folder(folder: &Path) -> io::Result<Option<File>> {
    if cfg!(unix) { File::open(folder).map(Some) } else { Ok(None) }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> ReplaceError {
    let path = path.to_path_buf();
    move |source| ReplaceError::Io { path, action, source }
}

#[cfg(test)]
mod tests;
