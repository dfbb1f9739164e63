//! A part of a file as bytes, mapped.

use super::Extent;
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};

/// A part of a file mapped for reading, at any offset. Only pages that are touched take memory.
pub(crate) struct Map {
    /// `None` for no bytes, which cannot be mapped everywhere.
    map: Option<Mmap>,
    file: File,
    extent: Extent,
}

impl Map {
    /// Maps a part that the file has.
    pub fn new(file: File, extent: Extent) -> io::Result<Self> {
        if extent.len == 0 {
            return Ok(Self { map: None, file, extent });
        }
        let len = usize::try_from(extent.len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut options = MmapOptions::new();
        // The offset need not be a page's: the pages are mapped that the part lies in.
        options.offset(extent.offset).len(len);
        // SAFETY: the map is read-only and private; that nobody truncates or rewrites the file under it is what
        // `Model::open` asks of whoever owns the file, as for any program's executable.
        let map = unsafe { options.map(&file) }?;
        Ok(Self { map: Some(map), file, extent })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// See [`Storage::will_need`](super::Storage::will_need).
    pub fn will_need(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = self.map_of(&range) {
            // Advice: where it cannot be taken nothing is lost.
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// See [`Storage::random`](super::Storage::random).
    pub fn random(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = self.map_of(&range) {
            // Advice: where it cannot be taken nothing is lost.
            let _ = map.advise_range(memmap2::Advice::Random, range.start, range.len());
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// See [`Storage::huge`](super::Storage::huge).
    pub fn huge(&self, range: Range<usize>, huge: bool) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(map) = self.map_of(&range) {
            let advice = if huge { memmap2::Advice::HugePage } else { memmap2::Advice::NoHugePage };
            return map.advise_range(advice, range.start, range.len()).is_ok();
        }
        let _ = (range, huge);
        false
    }

    /// See [`Storage::release`](super::Storage::release).
    pub fn release(&self, range: Range<usize>) {
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
            let offset = self.extent.offset + range.start as u64;
            let (offset, len) = (offset as libc::off_t, range.len() as libc::off_t);
            // SAFETY: the descriptor is open as long as `self` lives; the call takes numbers only, and is advice.
            let _ =
                unsafe { libc::posix_fadvise(self.file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// The map, if it has this range and there is something in it.
    #[cfg(unix)]
    fn map_of(&self, range: &Range<usize>) -> Option<&Mmap> {
        self.map.as_ref().filter(|map| range.start < range.end && range.end <= map.len())
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

/// Reads `bytes` and keeps them in memory until [`unlock`].
pub(super) fn lock(bytes: &[u8]) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: the bytes are there; locking changes none of them.
    return match unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = bytes;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Takes [`lock`] back.
pub(super) fn unlock(bytes: &[u8]) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: as in `lock`; what was not locked stays as it is.
    let _ = unsafe { libc::munlock(bytes.as_ptr().cast(), bytes.len()) };
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = bytes;
}
