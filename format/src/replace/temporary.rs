//! Temporary files: unnamed where the system supports that, otherwise under an unguessable name.

use super::folder_of;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

/// Most names tried; a second one is needed only if the same 64 random bits are already in use.
const ATTEMPTS: usize = 16;

/// Characters of the target's name that a temporary name repeats, of up to four bytes each.
const MAX_NAME_CHARS: usize = 50;

/// An open file that disappears unless it gets a name.
#[derive(Debug)]
pub(super) struct Temporary {
    file: File,
    /// `None` for a file without a name.
    name: Option<Name>,
}

/// A file name that is removed on drop. After a rename there is nothing to remove.
#[derive(Debug)]
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Temporary {
    /// Creates a file in the folder of `target`, with the permissions of the process's mask.
    pub fn create(target: &Path) -> io::Result<Self> {
        match unnamed(folder_of(target)) {
            Some(file) => Ok(Self { file, name: None }),
            None => Self::named(target),
        }
    }

    pub fn named(target: &Path) -> io::Result<Self> {
        let (file, name) = at_new_name(target, |name| {
            OpenOptions::new().read(true).write(true).create_new(true).open(name)
        })?;
        Ok(Self { file, name: Some(name) })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Renames to `target`, replacing a file of that name.
    pub fn rename(self, target: &Path) -> io::Result<()> {
        let name = match self.name {
            Some(name) => name,
            // A link can only be made at a free name: use a temporary name first, then rename it.
            None => at_new_name(target, |name| link(&self.file, name))?.1,
        };
        fs::rename(&name.0, target)
    }

    /// Renames to `target`; fails if it exists.
    pub fn link_new(self, target: &Path) -> io::Result<()> {
        match self.name {
            Some(name) => move_new(&name.0, target),
            None => link(&self.file, target),
        }
    }
}

/// Renames a file; fails if the target exists.
pub(super) fn move_new(from: &Path, target: &Path) -> io::Result<()> {
    match fs::hard_link(from, target) {
        Ok(()) => fs::remove_file(from),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::CrossesDevices) =>
        {
            Err(error)
        }
        // A file system without links: a file that appears between these two lines is lost.
        Err(_) if fs::symlink_metadata(target).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, target),
    }
}

/// `.NAME.RANDOM.partial` beside `path`.
pub(super) fn name_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // File systems allow 255 bytes for the whole name.
    let name: String = name.chars().take(MAX_NAME_CHARS).collect();
    // The standard library keys its hash tables with the system's random numbers.
    let random = RandomState::new().hash_one(std::process::id());
    path.with_file_name(format!(".{name}.{random:016x}.partial"))
}

fn at_new_name<T>(target: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(T, Name)> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let name = name_beside(target);
        match make(&name) {
            Ok(made) => return Ok((made, Name(name))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.expect("every attempt failed"))
}

/// `None` where the file system has no unnamed files, or cannot name them later.
#[cfg(target_os = "linux")]
fn unnamed(folder: &Path) -> Option<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, folder, flags, Mode::from_raw_mode(0o666)).ok()?);
    fs::symlink_metadata(place(&file)).is_ok().then_some(file)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_folder: &Path) -> Option<File> {
    None
}

#[cfg(target_os = "linux")]
fn link(file: &File, name: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    Ok(linkat(CWD, place(file), CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn link(_file: &File, _name: &Path) -> io::Result<()> {
    unreachable!("files without a name are made on Linux alone")
}

/// The path by which the system names an open file.
#[cfg(target_os = "linux")]
fn place(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
