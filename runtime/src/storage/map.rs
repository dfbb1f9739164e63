//! A mapped part of a file.

use super::Extent;
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};

/// A part of a file mapped for reading, at any offset. Only touched pages take memory.
pub(crate) struct Map {
    /// `None` for an empty part, which some systems cannot map.
    map: Option<Mmap>,
    file: File,
    extent: Extent,
}

impl Map {
    /// Maps a part that lies within the file.
    pub fn new(file: File, extent: Extent) -> io::Result<Self> {
        if extent.len == 0 {
            return Ok(Self { map: None, file, extent });
        }
        let len = usize::try_from(extent.len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut options = MmapOptions::new();
        // The offset need not be page-aligned: the map covers whole pages around the part.
        options.offset(extent.offset).len(len);
        // SAFETY: the map is read-only and private. `Model::open` requires that nobody truncates or
        // rewrites the file, as for any program's executable.
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
            // Advice only: nothing is lost if the system refuses.
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// See [`Storage::random`](super::Storage::random).
    pub fn random(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = self.map_of(&range) {
            // Advice only: nothing is lost if the system refuses.
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
            // SAFETY: the map is of a file and read-only, so nothing can be lost: a page read after
            // this comes from the file again.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len) };
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use std::os::fd::AsRawFd;
            let offset = self.extent.offset + range.start as u64;
            let (offset, len) = (offset as libc::off_t, range.len() as libc::off_t);
            // SAFETY: the descriptor stays open as long as `self` lives; the call takes only
            // numbers and is advice.
            let _ =
                unsafe { libc::posix_fadvise(self.file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// The map, if it covers this range and the range is not empty.
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
    // SAFETY: the bytes are valid memory; locking changes none of them.
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

/// Reverses [`lock`].
pub(super) fn unlock(bytes: &[u8]) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: as in `lock`; unlocking memory that is not locked has no effect.
    let _ = unsafe { libc::munlock(bytes.as_ptr().cast(), bytes.len()) };
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = bytes;
}
