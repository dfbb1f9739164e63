//! Writing: a plan first, then the tensors in its order, then the rest. The file appears when it is whole.

use crate::config::Metadata;
use crate::directory::{ENTRY_BYTES, Entry};
use crate::encoding::Encoding;
use crate::error::FormatError;
use crate::header::{HEADER_BYTES, Header, LAYER_ALIGN_BYTES, SECTION_ALIGN_BYTES};
use crate::index::{checksum_of, next_offset};
use crate::replace::{ReplaceOptions, Replacement};
use crate::role::TensorId;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// What is written at a time, from a multiple of it on: where a system has large pages it then keeps the file in them.
const WRITE_BYTES: usize = 2 << 20;

/// A tensor that will be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    /// Role and layer.
    pub id: TensorId,
    /// `None` for vectors and bytes.
    pub encoding: Option<Encoding>,
    /// Rows of a matrix, length of a vector, number of bytes.
    pub rows: usize,
    /// Columns of a matrix, otherwise 1.
    pub cols: usize,
}

/// Length of the file that a writer of this plan makes with this metadata.
pub fn planned_bytes(plan: &[TensorPlan], metadata: &Metadata) -> Result<u64, FormatError> {
    let entries = lay_out(plan)?;
    let data_end = entries.last().map_or(LAYER_ALIGN_BYTES, |entry| entry.offset + entry.bytes);
    let json_bytes = serde_json::to_vec(metadata).map_err(FormatError::Metadata)?.len() as u64;
    let metadata_end = data_end.next_multiple_of(SECTION_ALIGN_BYTES) + json_bytes;
    Ok(metadata_end.next_multiple_of(SECTION_ALIGN_BYTES) + (entries.len() * ENTRY_BYTES) as u64)
}

/// Writes one file, which appears at [`Writer::finish`]. A writer that is dropped before leaves nothing.
pub struct Writer {
    file: BufWriter<Replacement>,
    entries: Vec<Entry>,
    /// The tensor being written, the bytes of it so far, and their hash.
    next: usize,
    written: u64,
    hash: Xxh3,
    position: u64,
}

impl Writer {
    /// Lays out the tensors in the given order. The file replaces whatever file `path` names.
    pub fn create(path: &Path, plan: &[TensorPlan]) -> Result<Self, FormatError> {
        Self::new(Replacement::create(path, ReplaceOptions::FORCE)?, plan)
    }

    /// Lays out the tensors in the given order, in a new file.
    pub fn new(file: Replacement, plan: &[TensorPlan]) -> Result<Self, FormatError> {
        let entries = lay_out(plan)?;
        let mut writer = Self {
            file: BufWriter::with_capacity(WRITE_BYTES, file),
            entries,
            next: 0,
            written: 0,
            hash: Xxh3::new(),
            position: 0,
        };
        writer.pad_to(LAYER_ALIGN_BYTES)?;
        Ok(writer)
    }

    /// Bytes that the file's tensors take, padding between them included.
    pub fn data_bytes(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.offset + entry.bytes - LAYER_ALIGN_BYTES)
    }

    /// Appends bytes to the tensor `id`, which must be the next one of the plan that is not yet whole.
    pub fn write(&mut self, id: TensorId, bytes: &[u8]) -> Result<(), FormatError> {
        let Some(entry) = self.entries.get(self.next).copied().filter(|entry| entry.id == id) else {
            let expected =
                self.entries.get(self.next).map_or("no further tensor".into(), |entry| entry.id.to_string());
            return Err(FormatError::WriteOrder { expected, found: id.to_string() });
        };
        if self.written == 0 {
            self.pad_to(entry.offset)?;
        }
        let found_bytes = self.written + bytes.len() as u64;
        if found_bytes > entry.bytes {
            return Err(FormatError::TensorSize {
                tensor: id,
                expected_bytes: Some(entry.bytes),
                found_bytes,
            });
        }
        self.put(bytes)?;
        self.hash.update(bytes);
        self.written = found_bytes;
        if self.written == entry.bytes {
            self.entries[self.next].checksum = self.hash.digest();
            self.hash.reset();
            (self.next, self.written) = (self.next + 1, 0);
        }
        Ok(())
    }

    /// Writes metadata, directory and header, syncs, and gives the file its name. Returns its length in bytes.
    pub fn finish(mut self, metadata: &Metadata) -> Result<u64, FormatError> {
        if let Some(entry) = self.entries.get(self.next) {
            let expected = format!("{} ({} of {} bytes are there)", entry.id, self.written, entry.bytes);
            return Err(FormatError::WriteOrder { expected, found: "the end".into() });
        }
        metadata.model.validate()?;
        let data_end = self.position;
        let json = serde_json::to_vec(metadata).map_err(FormatError::Metadata)?;
        self.pad_to(data_end.next_multiple_of(SECTION_ALIGN_BYTES))?;
        let metadata_offset = self.position;
        self.put(&json)?;
        self.pad_to(self.position.next_multiple_of(SECTION_ALIGN_BYTES))?;
        let directory_offset = self.position;
        let directory: Vec<u8> = self.entries.iter().flat_map(|entry| entry.to_bytes()).collect();
        self.put(&directory)?;
        let mut header = Header {
            file_bytes: self.position,
            data_offset: LAYER_ALIGN_BYTES,
            data_bytes: data_end - LAYER_ALIGN_BYTES,
            metadata_offset,
            metadata_bytes: json.len() as u64,
            directory_offset,
            entry_count: (directory.len() / ENTRY_BYTES) as u64,
            checksum: 0,
        };
        header.checksum = checksum_of(&header.to_bytes()[..HEADER_BYTES - 8], &json, &directory);
        self.commit(&header.to_bytes())?;
        Ok(header.file_bytes)
    }

    /// The header goes in last, so that a file without it is no `.pith` file.
    fn commit(self, header: &[u8]) -> Result<(), FormatError> {
        let mut file = self.file.into_inner().map_err(|error| {
            let (source, file) = error.into_parts();
            file.get_ref().failed("write", source)
        })?;
        file.sync()?;
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(header));
        written.map_err(|source| file.failed("write", source))?;
        Ok(file.commit()?)
    }

    fn pad_to(&mut self, offset: u64) -> Result<(), FormatError> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.position < offset {
            let count = (offset - self.position).min(ZEROS.len() as u64) as usize;
            self.put(&ZEROS[..count])?;
        }
        Ok(())
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), FormatError> {
        while !bytes.is_empty() {
            // The buffer is full where such a piece ends, and is written as a whole.
            let room = WRITE_BYTES - (self.position % WRITE_BYTES as u64) as usize;
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            let written = self.file.write_all(piece);
            written.map_err(|source| self.file.get_ref().failed("write", source))?;
            self.position += piece.len() as u64;
            bytes = rest;
        }
        Ok(())
    }
}

fn lay_out(plan: &[TensorPlan]) -> Result<Vec<Entry>, FormatError> {
    let (mut end, mut previous) = (LAYER_ALIGN_BYTES, None);
    plan.iter()
        .map(|tensor| {
            let (rows, cols) = (tensor.rows as u64, tensor.cols as u64);
            let bytes = Entry::expected_bytes(tensor.id.role.kind(), tensor.encoding, rows, cols)
                .filter(|&bytes| bytes > 0)
                .ok_or(FormatError::TensorSize { tensor: tensor.id, expected_bytes: None, found_bytes: 0 })?;
            let offset = next_offset(end, previous, tensor.id);
            (end, previous) = (offset + bytes, Some(tensor.id));
            Ok(Entry { id: tensor.id, encoding: tensor.encoding, rows, cols, offset, bytes, checksum: 0 })
        })
        .collect()
}
