//! Reads a GGUF header front to back. Every length is checked against the file before anything is
//! allocated.

use crate::checkpoint::CheckpointError;
use crate::checkpoint::file::SourceFile;

/// Limit of all bytes before the tensor data; the largest known vocabularies take 20 MB.
pub(super) const HEADER_LIMIT: u64 = 128 << 20;
const BUFFER_BYTES: u64 = 64 << 10;

/// A position in a file, a buffer from there on, and the bytes that metadata may still take.
pub(super) struct Cursor<'a> {
    file: &'a SourceFile,
    position: u64,
    buffer: Vec<u8>,
    /// Index in `buffer` of the next byte.
    next: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a SourceFile) -> Self {
        Self { file, position: 0, buffer: Vec::new(), next: 0 }
    }

    pub(super) fn file(&self) -> &'a SourceFile {
        self.file
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Checks that `count` items of at least `item_bytes` each can follow.
    pub(super) fn check(
        &self,
        what: &'static str,
        count: u64,
        item_bytes: u64,
    ) -> Result<(), CheckpointError> {
        let remaining = self.file.bytes() - self.position;
        let needed = count.saturating_mul(item_bytes);
        if needed > remaining {
            let (path, offset) = (self.file.path().into(), self.position);
            return Err(CheckpointError::Truncated { path, what, offset, needed, remaining });
        }
        self.limit("header size in bytes", HEADER_LIMIT, self.position + needed)
    }

    pub(super) fn limit(&self, what: &'static str, limit: u64, found: u64) -> Result<(), CheckpointError> {
        if found > limit {
            return Err(CheckpointError::Limit { path: self.file.path().into(), what, limit, found });
        }
        Ok(())
    }

    pub(super) fn bytes<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CheckpointError> {
        let mut out = [0; N];
        self.fill(what, &mut out)?;
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, CheckpointError> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, CheckpointError> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// Appends a string of at most `limit` bytes to `out`.
    pub(super) fn string_into(
        &mut self,
        what: &'static str,
        limit: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), CheckpointError> {
        let length = self.u64(what)?;
        self.limit(what, limit, length)?;
        self.check(what, length, 1)?;
        let start = out.len();
        out.resize(start + length as usize, 0);
        self.fill(what, &mut out[start..])
    }

    /// A name, in UTF-8.
    pub(super) fn name(&mut self, what: &'static str) -> Result<String, CheckpointError> {
        let at = self.position;
        let mut out = Vec::new();
        self.string_into(what, u64::from(u16::MAX), &mut out)?;
        String::from_utf8(out).map_err(|e| CheckpointError::NotUtf8 {
            path: self.file.path().into(),
            place: format!("{what} at {at}"),
            valid_bytes: e.utf8_error().valid_up_to(),
        })
    }

    fn fill(&mut self, what: &'static str, mut out: &mut [u8]) -> Result<(), CheckpointError> {
        self.check(what, out.len() as u64, 1)?;
        while !out.is_empty() {
            if self.next == self.buffer.len() {
                let ahead = BUFFER_BYTES.min(self.file.bytes() - self.position);
                self.buffer.resize(ahead as usize, 0);
                self.next = 0;
                self.file.read_at(self.position, &mut self.buffer)?;
            }
            let count = out.len().min(self.buffer.len() - self.next);
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&self.buffer[self.next..self.next + count]);
            self.next += count;
            self.position += count as u64;
            out = later;
        }
        Ok(())
    }
}
