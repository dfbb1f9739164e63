//! The bytes of a model: a mapped part of a file, or memory.
//!
//! Ranges are always offsets into the model's bytes, wherever these begin in a file. Advice to the
//! system (read ahead, keep, release) affects mapped files only.

mod large;
#[cfg(any(unix, windows))]
#[allow(unsafe_code)]
mod map;
mod pages;
mod read;

pub(crate) use large::{has_large_pages, large_bytes};
pub use pages::{Pages, Reason};

use crate::error::RuntimeError;
use crate::memory::Zeros;
#[cfg(any(unix, windows))]
use map::Map;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

/// The smallest page size of any system, so that steps of it touch every page.
const PAGE_BYTES: usize = 4096;

/// Tensors begin at multiples of this within a model. Kernels read any address; at these addresses
/// no vector spans two cache lines.
const LINE_BYTES: usize = 64;

/// Ranges closer than this are requested together, even with a vector or padding between them.
const MERGE_BYTES: usize = 1 << 16;

/// A model's bytes.
pub(crate) enum Storage {
    /// Pages of a file, which take memory when touched.
    #[cfg(any(unix, windows))]
    Mapped(Map),
    /// All bytes in memory.
    Bytes(ModelBytes),
}

/// A model in memory, for [`Model::from_bytes`](crate::Model::from_bytes): a `Vec<u8>`, an
/// `Arc<[u8]>` or bytes of the program itself (`include_bytes!`).
///
/// A `Vec` is moved within its allocation to begin on a cache line. The others are read in place.
/// At an address that is not a multiple of 64, kernels give the same results and take somewhat
/// longer.
pub struct ModelBytes(Bytes);

enum Bytes {
    /// Bytes, and the index at which the model begins.
    Owned(Vec<u8>, usize),
    Shared(Arc<[u8]>),
    Static(&'static [u8]),
    Pages(Zeros<u8>),
}

/// The part of a file that holds a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub offset: u64,
    pub len: u64,
}

impl Storage {
    /// Maps this part of a file, or reads it into memory where the system cannot map.
    ///
    /// The file must not change while it is mapped. A converter replaces a file by renaming, which
    /// leaves the mapped one unchanged. `name` is for errors.
    pub fn open(name: &str, file: File, extent: Extent) -> Result<Self, RuntimeError> {
        check_file(name, &file, extent)?;
        #[cfg(any(unix, windows))]
        return Map::new(file, extent).map(Self::Mapped).map_err(failed(name, "map"));
        #[cfg(not(any(unix, windows)))]
        Self::copy(name, &file, extent)
    }

    /// Reads this part of a file into memory, in large pages where the system has them.
    pub fn copy(name: &str, file: &File, extent: Extent) -> Result<Self, RuntimeError> {
        check_file(name, file, extent)?;
        if extent.len == 0 {
            return Ok(Self::Bytes(ModelBytes(Bytes::Static(&[]))));
        }
        let what = "a copy of the file";
        let bytes =
            usize::try_from(extent.len).map_err(|_| RuntimeError::Memory { what, bytes: extent.len })?;
        let mut pages = Zeros::<u8>::new(what, bytes)?;
        pages.prefer_large_pages();
        read::read(file, extent.offset, &mut pages).map_err(failed(name, "read"))?;
        Ok(Self::Bytes(ModelBytes(Bytes::Pages(pages))))
    }

    /// [`Storage::copy`] of a mapped file; `None` of bytes in memory.
    pub fn copied(&self, name: &str) -> Result<Option<Self>, RuntimeError> {
        match self {
            #[cfg(any(unix, windows))]
            Self::Mapped(map) => Self::copy(name, map.file(), map.extent()).map(Some),
            Self::Bytes(_) => {
                let _ = name;
                Ok(None)
            }
        }
    }

    /// Fails if the file is now shorter than the model: reading a missing page would end the
    /// process.
    ///
    /// One system call, under a microsecond; free for a model in memory.
    pub fn check(&self, name: &str) -> Result<(), RuntimeError> {
        match self {
            #[cfg(any(unix, windows))]
            Self::Mapped(map) => check_file(name, map.file(), map.extent()),
            Self::Bytes(_) => {
                let _ = name;
                Ok(())
            }
        }
    }

    /// Turns large pages on for all of these ranges, and for the little between neighbours: a page
    /// cannot be large where it belongs to two mappings with different settings.
    pub fn prefer_large_pages(&self, ranges: Vec<Range<usize>>) {
        merged(ranges).into_iter().for_each(|range| {
            self.huge(range, true);
        });
    }

    /// Whether pages are read from a file when touched.
    pub fn is_mapped(&self) -> bool {
        !matches!(self, Self::Bytes(_))
    }

    /// Offset of the model in its file, modulo any page size.
    pub fn origin(&self) -> u64 {
        match self {
            #[cfg(any(unix, windows))]
            Self::Mapped(map) => map.extent().offset,
            Self::Bytes(_) => 0,
        }
    }

    /// Tells the system that `range` will be read soon, so that it reads a cold file ahead in large
    /// pieces.
    pub fn will_need(&self, range: Range<usize>) {
        #[cfg(any(unix, windows))]
        if let Self::Mapped(map) = self {
            return map.will_need(range);
        }
        let _ = range;
    }

    /// Tells the system that `range` is read at random, so that a page brings no neighbours with
    /// it.
    pub fn random(&self, range: Range<usize>) {
        #[cfg(any(unix, windows))]
        if let Self::Mapped(map) = self {
            return map.random(range);
        }
        let _ = range;
    }

    /// Turns large pages on or off for `range`; call before it is touched. False where the system
    /// cannot do this, and in memory, where page sizes are fixed.
    pub fn huge(&self, range: Range<usize>, huge: bool) -> bool {
        #[cfg(any(unix, windows))]
        if let Self::Mapped(map) = self {
            return map.huge(range, huge);
        }
        let _ = (range, huge);
        false
    }

    /// Waits until `range` is in memory, by reading a byte of each page.
    pub fn touch(&self, range: Range<usize>) {
        let pages = self.get(range).unwrap_or_default().iter().step_by(PAGE_BYTES);
        std::hint::black_box(pages.fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    }

    /// Tells the system that `range` will not be read soon. Pages that another program uses stay.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(any(unix, windows))]
        if let Self::Mapped(map) = self {
            return map.release(range);
        }
        let _ = range;
    }

    /// Reads `range` and keeps it in memory until [`Storage::unlock`].
    pub fn lock(&self, range: Range<usize>) -> io::Result<()> {
        let bytes = self.get(range).ok_or(io::ErrorKind::InvalidInput)?;
        #[cfg(any(unix, windows))]
        return map::lock(bytes);
        #[cfg(not(any(unix, windows)))]
        {
            let _ = bytes;
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Reverses [`Storage::lock`].
    pub fn unlock(&self, range: Range<usize>) {
        #[cfg(any(unix, windows))]
        map::unlock(self.get(range).unwrap_or_default());
        #[cfg(not(any(unix, windows)))]
        let _ = range;
    }
}

impl Deref for Storage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            #[cfg(any(unix, windows))]
            Self::Mapped(map) => map,
            Self::Bytes(ModelBytes(bytes)) => match bytes {
                Bytes::Owned(bytes, start) => &bytes[*start..],
                Bytes::Shared(bytes) => bytes,
                Bytes::Static(bytes) => bytes,
                Bytes::Pages(pages) => pages,
            },
        }
    }
}

impl From<Vec<u8>> for ModelBytes {
    fn from(mut bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        if bytes.as_ptr().align_offset(LINE_BYTES) != 0 {
            bytes.reserve_exact(LINE_BYTES);
        }
        let start = bytes.as_ptr().align_offset(LINE_BYTES);
        if start > 0 && start < LINE_BYTES {
            bytes.resize(len + start, 0);
            bytes.copy_within(..len, start);
        }
        let start = bytes.len() - len;
        Self(Bytes::Owned(bytes, start))
    }
}

impl From<Arc<[u8]>> for ModelBytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self(Bytes::Shared(bytes))
    }
}

impl From<&'static [u8]> for ModelBytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Bytes::Static(bytes))
    }
}

impl<const N: usize> From<&'static [u8; N]> for ModelBytes {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self(Bytes::Static(bytes))
    }
}

/// Opens a file, checks that it is not a folder, and returns it with its whole extent.
pub(crate) fn open_file(path: &Path) -> Result<(File, Extent), RuntimeError> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(failed(&name, "open"))?;
    let len = file.metadata().map_err(failed(&name, "read the length"))?.len();
    Ok((file, Extent { offset: 0, len }))
}

fn check_file(name: &str, file: &File, extent: Extent) -> Result<(), RuntimeError> {
    let metadata = file.metadata().map_err(failed(name, "read the length"))?;
    if metadata.is_dir() {
        return Err(failed(name, "open")(io::ErrorKind::IsADirectory.into()));
    }
    let end = extent.offset.saturating_add(extent.len);
    if end > metadata.len() {
        let (path, found_bytes) = (name.into(), metadata.len());
        return Err(RuntimeError::FileTooShort { path, expected_bytes: end, found_bytes });
    }
    Ok(())
}

/// Sorts the ranges and merges those that nearly touch.
pub(crate) fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end + MERGE_BYTES => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn failed(name: &str, action: &'static str) -> impl FnOnce(io::Error) -> RuntimeError {
    move |source| RuntimeError::Io { path: name.into(), action, source }
}

#[cfg(test)]
mod tests;
