//! A file as bytes, mapped.

use crate::error::RuntimeError;
use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::path::Path;

/// A file mapped for reading. Only pages that are touched take memory.
#[derive(Debug)]
pub(crate) struct Map {
    /// `None` for an empty file, which cannot be mapped everywhere.
    map: Option<Mmap>,
    file: File,
    /// Whether it is a copy in memory: what is given up of it is lost.
    copied: bool,
}

/// At most the size of a page of any system, so that a step of it touches each.
const PAGE_BYTES: usize = 4096;

impl Map {
    /// Maps the whole file.
    ///
    /// The file must not be changed while it is mapped; a converter replaces a file by renaming, which leaves the
    /// mapped one as it was.
    pub fn open(path: &Path) -> Result<Self, RuntimeError> {
        let failed = |action| failed(path, action);
        let (file, len) = open(path)?;
        if len == 0 {
            return Ok(Self { map: None, file, copied: false });
        }
        // SAFETY: the map is read-only and private; that nobody truncates or rewrites the file under it is what the
        // doc above asks of whoever owns the file, as for any program's executable.
        let map = unsafe { Mmap::map(&file) }.map_err(failed("map"))?;
        Ok(Self { map: Some(map), file, copied: false })
    }

    /// Reads the whole file into memory, in large pages where the system has them.
    pub fn copy(path: &Path) -> Result<Self, RuntimeError> {
        let (mut file, len) = open(path)?;
        if len == 0 {
            return Ok(Self { map: None, file, copied: true });
        }
        let refused = || RuntimeError::Memory { what: "a copy of the file", bytes: len };
        let bytes =
            usize::try_from(len).ok().filter(|&len| isize::try_from(len).is_ok()).ok_or_else(refused)?;
        let mut map = MmapMut::map_anon(bytes).map_err(|_| refused())?;
        // Advice: where it cannot be taken, pages are small.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        file.read_exact(&mut map).map_err(failed(path, "read"))?;
        let map = map.make_read_only().map_err(failed(path, "protect the copy"))?;
        Ok(Self { map: Some(map), file, copied: true })
    }

    /// Tells the system that `range` will be read soon, so that a cold file is read ahead in large pieces.
    pub fn will_need(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = self.map_of(&range) {
            // Advice: where it cannot be taken nothing is lost.
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Tells the system that `range` is read here and there, so that a page brings no neighbours with it.
    pub fn random(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = self.map_of(&range) {
            // Advice: where it cannot be taken nothing is lost.
            let _ = map.advise_range(memmap2::Advice::Random, range.start, range.len());
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Whether `range` is to be read in the largest pages there are when it is touched. False where the system cannot.
    pub fn huge(&self, range: Range<usize>, huge: bool) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(map) = self.map_of(&range) {
            let advice = if huge { memmap2::Advice::HugePage } else { memmap2::Advice::NoHugePage };
            return map.advise_range(advice, range.start, range.len()).is_ok();
        }
        let _ = (range, huge);
        false
    }

    /// Waits until `range` is in memory, by reading a byte of each page.
    pub fn touch(&self, range: Range<usize>) {
        let pages = self.get(range).unwrap_or_default().iter().step_by(PAGE_BYTES);
        std::hint::black_box(pages.fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    }

    /// Tells the system that `range` will not be read soon. Where another program reads the file too it stays.
    pub fn release(&self, range: Range<usize>) {
        if self.copied {
            return;
        }
        #[cfg(unix)]
        if let Some(map) = self.map_of(&range) {
            let (offset, len) = (range.start, range.len());
            // SAFETY: the map is of a file and read-only, so there is nothing that could be lost: a page that is read
            // after this comes from the file again.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len) };
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use std::os::fd::AsRawFd;
            let (offset, len) = (range.start as libc::off_t, range.len() as libc::off_t);
            // SAFETY: the descriptor is open as long as `self` lives; the call takes numbers only, and is advice.
            let _ =
                unsafe { libc::posix_fadvise(self.file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
        }
        let _ = (&self.file, range);
    }

    /// Reads `range` and keeps it in memory until [`Map::unlock`].
    pub fn lock(&self, range: Range<usize>) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let Some(bytes) = self.get(range) else { return Err(io::ErrorKind::InvalidInput.into()) };
            // SAFETY: the bytes lie in the map; locking changes none of them.
            match unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            let _ = range;
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Takes [`Map::lock`] back.
    pub fn unlock(&self, range: Range<usize>) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(bytes) = self.get(range) {
            // SAFETY: as in `lock`; what was not locked stays as it is.
            let _ = unsafe { libc::munlock(bytes.as_ptr().cast(), bytes.len()) };
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = range;
    }

    /// The map, if it has this range and there is something in it.
    #[cfg(unix)]
    fn map_of(&self, range: &Range<usize>) -> Option<&Mmap> {
        self.map.as_ref().filter(|map| range.start < range.end && range.end <= map.len())
    }
}

/// A file and its length.
fn open(path: &Path) -> Result<(File, u64), RuntimeError> {
    let file = File::open(path).map_err(failed(path, "open"))?;
    let metadata = file.metadata().map_err(failed(path, "read the length"))?;
    if metadata.is_dir() {
        return Err(failed(path, "open")(io::ErrorKind::IsADirectory.into()));
    }
    Ok((file, metadata.len()))
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> RuntimeError {
    move |source| RuntimeError::Io { path: path.display().to_string(), action, source }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        for content in [&b""[..], b"abc"] {
            std::fs::write(&path, content).unwrap();
            let map = Map::open(&path).unwrap();
            map.will_need(0..content.len());
            map.will_need(1..usize::MAX);
            assert_eq!(&map[..], content);
            let copy = Map::copy(&path).unwrap();
            copy.release(0..content.len());
            assert_eq!(&copy[..], content);
        }
    }

    #[test]
    fn pages_come_and_go_and_the_bytes_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        let content: Vec<u8> = (0..100_000).map(|index| (index * 31 % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let map = Map::open(&path).unwrap();
        for range in [0..content.len(), 4096..8192, 5..6, 70_000..100_000, 7..7, 5..usize::MAX] {
            map.random(range.clone());
            assert!(!map.huge(range.clone(), true) || range.end <= content.len());
            map.huge(range.clone(), false);
            map.touch(range.clone());
            // Whether it is permitted is the system's affair.
            let locked = map.lock(range.clone()).is_ok();
            assert!(!locked || range.end <= content.len());
            map.unlock(range.clone());
            map.release(range);
            assert_eq!(&map[..], content);
        }
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.pith");
        let message = Map::open(&missing).unwrap_err().to_string();
        assert!(message.contains("missing.pith: open:"), "{message}");
        let message = Map::copy(&missing).unwrap_err().to_string();
        assert!(message.contains("missing.pith: open:"), "{message}");
        let message = Map::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("directory"), "{message}");
    }
}
