//! Writing and reading session files.

use super::header::{HEADER_BYTES, Header, Identity};
use crate::cache::LayerCache;
use crate::error::RuntimeError;
use pith_format::{ReplaceOptions, Replacement};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Bytes per read or write.
const CHUNK_BYTES: usize = 1 << 20;

/// A file being written. Dropped before [`Writer::finish`], it leaves nothing.
pub(super) struct Writer {
    file: BufWriter<Replacement>,
    hash: Xxh3,
    chunk: Vec<u8>,
}

impl Writer {
    pub fn create(path: &Path) -> Result<Self, RuntimeError> {
        let file = Replacement::create(path, ReplaceOptions::FORCE)?;
        let mut writer =
            Self { file: BufWriter::with_capacity(CHUNK_BYTES, file), hash: Xxh3::new(), chunk: Vec::new() };
        // Reserves the header's place. The header is written last, so an unfinished file is not a
        // session file.
        writer.write(&[0; HEADER_BYTES])?;
        Ok(writer)
    }

    pub fn put(&mut self, bytes: &[u8]) -> Result<(), RuntimeError> {
        self.hash.update(bytes);
        self.write(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RuntimeError> {
        let written = self.file.write_all(bytes);
        Ok(written.map_err(|source| self.file.get_ref().failed("write", source))?)
    }

    /// Writes the first `count` positions of a layer.
    pub fn put_layer(&mut self, cache: &LayerCache, count: usize) -> Result<(), RuntimeError> {
        let step = positions_a_chunk(cache);
        let mut chunk = std::mem::take(&mut self.chunk);
        for first in (0..count).step_by(step) {
            chunk.clear();
            cache.export(first..count.min(first + step), &mut chunk);
            self.put(&chunk)?;
        }
        self.chunk = chunk;
        Ok(())
    }

    /// Writes the header, syncs, and renames the file to its name. Returns its length in bytes.
    pub fn finish(self, mut header: Header) -> Result<u64, RuntimeError> {
        header.body_checksum = self.hash.digest();
        let mut file = self.file.into_inner().map_err(|error| {
            let (source, file) = error.into_parts();
            file.get_ref().failed("write", source)
        })?;
        file.sync()?;
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&header.to_bytes()));
        written.map_err(|source| file.failed("write", source))?;
        file.commit()?;
        Ok(header.file_bytes().expect("its bytes were written"))
    }
}

/// A fully checked file; checking changes nothing in a session.
pub(super) struct Verified {
    pub header: Header,
    /// The file's first tokens, as many as were requested.
    pub tokens: Vec<u32>,
    path: String,
    file: BufReader<File>,
}

impl Verified {
    /// Opens a file for a session of `identity` with `vocab_len` logits and reads all of it, one
    /// chunk at a time.
    ///
    /// `limit` bounds the memory of the tokens read to that of the caller's own sequence.
    pub fn open(
        path: &Path,
        identity: &Identity,
        vocab_len: usize,
        limit: Limit,
    ) -> Result<Self, RuntimeError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| io(path, "open", source))?;
        let metadata = file.metadata().map_err(|source| io(path, "read the length", source))?;
        if metadata.is_dir() {
            return Err(io(path, "open", std::io::ErrorKind::IsADirectory.into()));
        }
        let mut first = Vec::with_capacity(HEADER_BYTES);
        let read = (&file).take(HEADER_BYTES as u64).read_to_end(&mut first);
        read.map_err(|source| io(path, "read", source))?;
        let header = Header::parse(&name, &first, metadata.len())?;
        header.identity.check(&name, identity)?;
        if ![0, vocab_len as u64].contains(&header.logit_count) {
            return Err(RuntimeError::SessionField {
                path: name,
                field: "logit_count",
                found: header.logit_count,
                expected: format!("0 or {vocab_len}"),
            });
        }
        let kept = match limit {
            Limit::Whole { context_len } if header.token_count > context_len as u64 => {
                let token_count = header.token_count;
                return Err(RuntimeError::SessionTooLong { path: name, token_count, context_len });
            }
            Limit::Whole { .. } => header.token_count as usize,
            Limit::First(count) => header.token_count.min(count as u64) as usize,
        };
        let mut verified = Self {
            header,
            tokens: Vec::with_capacity(kept),
            path: name,
            file: BufReader::with_capacity(CHUNK_BYTES, file),
        };
        verified.read_all(kept, vocab_len)?;
        Ok(verified)
    }

    /// Checks the body's checksum and keeps the first `kept` tokens.
    fn read_all(&mut self, kept: usize, vocab_len: usize) -> Result<(), RuntimeError> {
        let mut hash = Xxh3::new();
        let mut wrong = None;
        for _ in 0..kept {
            let mut bytes = [0; 4];
            self.read(&mut bytes)?;
            hash.update(&bytes);
            let token = u32::from_le_bytes(bytes);
            if token as usize >= vocab_len {
                wrong.get_or_insert(token);
            }
            self.tokens.push(token);
        }
        loop {
            let bytes = self.file.fill_buf().map_err(|source| io(Path::new(&self.path), "read", source))?;
            if bytes.is_empty() {
                break;
            }
            hash.update(bytes);
            let count = bytes.len();
            self.file.consume(count);
        }
        let (expected, found) = (self.header.body_checksum, hash.digest());
        if found != expected {
            let path = self.path.clone();
            return Err(RuntimeError::SessionDamaged { path, part: "contents", expected, found });
        }
        match wrong {
            None => Ok(()),
            Some(token) => Err(RuntimeError::SessionField {
                path: self.path.clone(),
                field: "token",
                found: u64::from(token),
                expected: format!("less than {vocab_len}"),
            }),
        }
    }

    /// Reads the logits if the file has them.
    pub fn logits(&mut self, logits: &mut [f32]) -> Result<(), RuntimeError> {
        assert_eq!(logits.len() as u64, self.header.logit_count);
        self.seek(HEADER_BYTES as u64 + 4 * self.header.token_count)?;
        for logit in logits {
            let mut bytes = [0; 4];
            self.read(&mut bytes)?;
            *logit = f32::from_le_bytes(bytes);
        }
        Ok(())
    }

    /// Reads the first `count` positions of every layer.
    pub fn layers(&mut self, caches: &mut [LayerCache], count: usize) -> Result<(), RuntimeError> {
        let mut offset = HEADER_BYTES as u64 + 4 * (self.header.token_count + self.header.logit_count);
        let mut chunk = Vec::new();
        for cache in caches {
            self.seek(offset)?;
            let step = positions_a_chunk(cache);
            for first in (0..count).step_by(step) {
                let positions = step.min(count - first);
                chunk.resize(positions * cache.position_bytes() as usize, 0);
                self.read(&mut chunk)?;
                cache.import(first, &chunk);
            }
            offset += self.header.token_count * cache.position_bytes();
        }
        Ok(())
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), RuntimeError> {
        self.file.read_exact(bytes).map_err(|source| io(Path::new(&self.path), "read", source))
    }

    fn seek(&mut self, offset: u64) -> Result<(), RuntimeError> {
        let sought = self.file.seek(SeekFrom::Start(offset));
        sought.map(drop).map_err(|source| io(Path::new(&self.path), "seek", source))
    }
}

/// Number of tokens to take from a file.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    /// All; an error if the context cannot hold them.
    Whole { context_len: usize },
    /// The first tokens, this many at most.
    First(usize),
}

/// Positions per chunk, at least one.
pub(super) fn positions_a_chunk(cache: &LayerCache) -> usize {
    (CHUNK_BYTES / (cache.position_bytes() as usize).max(1)).max(1)
}

fn io(path: &Path, action: &'static str, source: std::io::Error) -> RuntimeError {
    RuntimeError::Io { path: path.display().to_string(), action, source }
}
