//! A file as bytes, mapped.

use crate::error::RuntimeError;
use memmap2::Mmap;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;

/// A file mapped for reading. Only pages that are touched take memory.
#[derive(Debug)]
pub(crate) struct Map {
    /// `None` for an empty file, which cannot be mapped everywhere.
    map: Option<Mmap>,
}

impl Map {
    /// Maps the whole file.
    ///
    /// The file must not be changed while it is mapped; a converter replaces a file by renaming, which leaves the
    /// mapped one as it was.
    pub fn open(path: &Path) -> Result<Self, RuntimeError> {
        let failed =
            |action| move |source| RuntimeError::Io { path: path.display().to_string(), action, source };
        let file = File::open(path).map_err(failed("open"))?;
        let metadata = file.metadata().map_err(failed("read the length"))?;
        if metadata.is_dir() {
            return Err(failed("open")(std::io::ErrorKind::IsADirectory.into()));
        }
        if metadata.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the map is read-only and private; that nobody truncates or rewrites the file under it is what the
        // doc above asks of whoever owns the file, as for any program's executable.
        let map = unsafe { Mmap::map(&file) }.map_err(failed("map"))?;
        Ok(Self { map: Some(map) })
    }

    /// Tells the system that `range` will be read soon, so that a cold file is read ahead in large pieces.
    pub fn will_need(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = &self.map
            && range.start < range.end
            && range.end <= map.len()
        {
            // Advice: where it cannot be taken nothing is lost.
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start, range.end - range.start);
        }
        #[cfg(not(unix))]
        let _ = range;
    }
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
        }
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.pith");
        let message = Map::open(&missing).unwrap_err().to_string();
        assert!(message.contains("missing.pith: open:"), "{message}");
        let message = Map::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("directory"), "{message}");
    }
}
