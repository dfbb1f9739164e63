//! Writing: a plan first, then the tensors in its order, then the other sections. The file appears
//! when it is complete.

use crate::config::Metadata;
use crate::directory::Entry;
use crate::encoding::Encoding;
use crate::error::FormatError;
use crate::header::{DATA_ALIGN_BYTES, ENTRY_BYTES, HEADER_BYTES, Header, PAGE_BYTES, SECTION_ALIGN_BYTES};
use crate::index::checksum_of;
use crate::replace::{ReplaceOptions, Replacement};
use crate::role::TensorId;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Size and alignment of writes: a system with large pages then keeps the file in them.
const WRITE_BYTES: usize = 2 << 20;

/// Page size of most systems.
const SMALL_PAGE_BYTES: u64 = 4 << 10;

/// A tensor that will be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    /// Role, layer and expert.
    pub id: TensorId,
    /// `None` for vectors and bytes.
    pub encoding: Option<Encoding>,
    /// Rows of a matrix, length of a vector, number of bytes.
    pub rows: usize,
    /// Columns of a matrix, otherwise 1.
    pub cols: usize,
}

/// Length of the file for this plan and metadata. Matrices whose blocks differ in size count as
/// zero: only the writer learns their size.
pub fn planned_bytes(plan: &[TensorPlan], metadata: &Metadata) -> Result<u64, FormatError> {
    let entries = lay_out(plan)?;
    let data_end = entries.last().map_or(HEADER_BYTES as u64, |entry| entry.offset + entry.bytes);
    let json_bytes = serde_json::to_vec(metadata).map_err(FormatError::Metadata)?.len() as u64;
    let index_bytes = entries.iter().map(|entry| 4 * entry.indexed_blocks()).sum::<u64>();
    let metadata_end = data_end.next_multiple_of(SECTION_ALIGN_BYTES) + json_bytes;
    let index_end = metadata_end.next_multiple_of(SECTION_ALIGN_BYTES) + index_bytes;
    Ok(index_end.next_multiple_of(SECTION_ALIGN_BYTES) + (entries.len() * ENTRY_BYTES) as u64)
}

/// Writes one file, which appears at [`Writer::finish`]. A writer dropped before leaves nothing.
pub struct Writer {
    file: BufWriter<Replacement>,
    entries: Vec<Entry>,
    /// The tensor being written, the bytes of it so far, and their hash.
    next: usize,
    written: u64,
    /// Bytes so far of the low bits of a nested matrix.
    low_written: u64,
    hash: Xxh3,
    /// Sizes of all blocks written so far of indexed matrices, in units of [`DATA_ALIGN_BYTES`],
    /// and how many of them belong to the current tensor.
    block_sizes: Vec<u32>,
    blocks: u64,
    position: u64,
}

impl Writer {
    /// Lays out the tensors in the given order. The new file replaces an existing file at `path`.
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
            low_written: 0,
            hash: Xxh3::new(),
            block_sizes: Vec::new(),
            blocks: 0,
            position: 0,
        };
        writer.pad_to(HEADER_BYTES as u64)?;
        Ok(writer)
    }

    /// Bytes of the file's tensors, padding between them included. Matrices whose blocks differ in
    /// size count as far as they are written.
    pub fn data_bytes(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.offset + entry.bytes) - self.data_offset()
    }

    /// Appends bytes to tensor `id`, which must be the first incomplete one of the plan.
    pub fn write(&mut self, id: TensorId, bytes: &[u8]) -> Result<(), FormatError> {
        let entry = self.expect(id, false)?;
        if self.low_written > 0 {
            return Err(FormatError::WriteOrder {
                expected: format!("tiles of {id}"),
                found: "bytes".into(),
            });
        }
        let found_bytes = self.written + bytes.len() as u64;
        if found_bytes > entry.bytes {
            return Err(FormatError::TensorSize {
                tensor: id,
                expected_bytes: Some(entry.bytes),
                found_bytes,
            });
        }
        self.append(&entry, bytes)?;
        if self.written == entry.bytes {
            self.complete();
        }
        Ok(())
    }

    /// Appends whole tiles to matrix `id`: of a nested encoding each part to its place, otherwise
    /// like [`write`](Self::write).
    pub fn write_tiles(&mut self, id: TensorId, tiles: &[u8]) -> Result<(), FormatError> {
        let entry = self.expect(id, false)?;
        let nested = entry.encoding.and_then(|encoding| Some((encoding.tile_bytes(), encoding.first()?)));
        let Some((tile_bytes, first)) = nested else { return self.write(id, tiles) };
        if (self.written > 0) != (self.low_written > 0) {
            return Err(FormatError::WriteOrder {
                expected: format!("bytes of {id}"),
                found: "tiles".into(),
            });
        }
        let found_bytes = self.written + self.low_written + tiles.len() as u64;
        if found_bytes > entry.bytes || !tiles.len().is_multiple_of(tile_bytes) {
            let expected_bytes = Some(entry.bytes);
            return Err(FormatError::TensorSize { tensor: id, expected_bytes, found_bytes });
        }
        let mut low_bits = Vec::with_capacity(tiles.len());
        for tile in tiles.chunks_exact(tile_bytes) {
            let (tile, low) = tile.split_at(first.tile_bytes());
            self.append(&entry, tile)?;
            low_bits.extend_from_slice(low);
        }
        let low_start = entry.offset + entry.bytes / tile_bytes as u64 * first.tile_bytes() as u64;
        self.put_ahead(low_start + self.low_written, &low_bits)?;
        self.low_written += low_bits.len() as u64;
        if found_bytes == entry.bytes {
            self.hash_to(entry.offset + entry.bytes)?;
            self.complete();
        }
        Ok(())
    }

    /// Writes bytes to a place behind the present one.
    fn put_ahead(&mut self, offset: u64, bytes: &[u8]) -> Result<(), FormatError> {
        let written = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.write_all(bytes));
        let back = written.and_then(|()| self.file.seek(SeekFrom::Start(self.position)));
        back.map(|_| ()).map_err(|source| self.file.get_ref().failed("write", source).into())
    }

    /// Adds what was [put ahead](Self::put_ahead), up to `end`, to the hash. It is read again: the hash
    /// is of the bytes in order.
    fn hash_to(&mut self, end: u64) -> Result<(), FormatError> {
        let mut bytes = vec![0; WRITE_BYTES];
        while self.position < end {
            let count = (end - self.position).min(WRITE_BYTES as u64) as usize;
            let file = self.file.get_mut();
            let read = file.read_exact(&mut bytes[..count]);
            read.map_err(|source| file.failed("read back", source))?;
            self.hash.update(&bytes[..count]);
            self.position += count as u64;
        }
        Ok(())
    }

    /// Appends the next block of 16 rows to matrix `id`, whose encoding has blocks of different
    /// sizes. The block is zero-padded to a cache line.
    pub fn write_block(&mut self, id: TensorId, block: &[u8]) -> Result<(), FormatError> {
        const ZEROS: [u8; DATA_ALIGN_BYTES as usize] = [0; DATA_ALIGN_BYTES as usize];
        let entry = self.expect(id, true)?;
        let lines = (block.len() as u64).div_ceil(DATA_ALIGN_BYTES);
        let Ok(size) = u32::try_from(lines) else {
            let found_bytes = block.len() as u64;
            return Err(FormatError::TensorSize { tensor: id, expected_bytes: None, found_bytes });
        };
        let padding = lines * DATA_ALIGN_BYTES - block.len() as u64;
        self.append(&entry, block)?;
        self.append(&entry, &ZEROS[..padding as usize])?;
        self.block_sizes.push(size);
        self.blocks += 1;
        if self.blocks == entry.indexed_blocks() {
            self.entries[self.next].bytes = self.written;
            self.complete();
            self.lay_out_rest();
        }
        Ok(())
    }

    /// The current entry, if it is tensor `id` and its encoding is written this way.
    fn expect(&self, id: TensorId, by_block: bool) -> Result<Entry, FormatError> {
        let wrong = |expected: String, found: String| Err(FormatError::WriteOrder { expected, found });
        let Some(entry) = self.entries.get(self.next).copied() else {
            return wrong("no further tensor".into(), id.to_string());
        };
        if entry.id != id {
            return wrong(entry.id.to_string(), id.to_string());
        }
        match (entry.indexed_blocks() > 0, by_block) {
            (true, false) => wrong(format!("{id} block by block"), "bytes".into()),
            (false, true) => wrong(format!("bytes of {id}"), "a block".into()),
            _ => Ok(entry),
        }
    }

    fn append(&mut self, entry: &Entry, bytes: &[u8]) -> Result<(), FormatError> {
        if self.written == 0 {
            self.pad_to(entry.offset)?;
        }
        self.put(bytes)?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Completes the current tensor.
    fn complete(&mut self) {
        self.entries[self.next].checksum = self.hash.digest();
        self.hash.reset();
        (self.next, self.written, self.low_written, self.blocks) = (self.next + 1, 0, 0, 0);
    }

    /// Places the tensors after one whose length was not known in advance.
    fn lay_out_rest(&mut self) {
        let aligns = alignments(&self.entries);
        let (done, left) = self.entries.split_at_mut(self.next);
        let mut end = done.last().map_or(HEADER_BYTES as u64, |entry| entry.offset + entry.bytes);
        for (entry, align) in left.iter_mut().zip(&aligns[self.next..]) {
            entry.offset = end.next_multiple_of(*align);
            end = entry.offset + entry.bytes;
        }
    }

    fn data_offset(&self) -> u64 {
        self.entries.first().map_or(HEADER_BYTES as u64, |entry| entry.offset)
    }

    /// Writes metadata, directory and header, syncs, and renames the file to its name. Returns its
    /// length in bytes.
    pub fn finish(mut self, metadata: &Metadata) -> Result<u64, FormatError> {
        if let Some(entry) = self.entries.get(self.next) {
            let expected = format!(
                "{} ({} of {} bytes are there)",
                entry.id,
                self.written + self.low_written,
                entry.bytes
            );
            return Err(FormatError::WriteOrder { expected, found: "the end".into() });
        }
        metadata.model.validate()?;
        let data_end = self.position;
        let json = serde_json::to_vec(metadata).map_err(FormatError::Metadata)?;
        let index: Vec<u8> = self.block_sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        let directory: Vec<u8> = self.entries.iter().flat_map(|entry| entry.to_bytes()).collect();
        let sections = [&json[..], &index, &directory];
        let mut offsets = [0; 3];
        for (section, offset) in sections.into_iter().zip(&mut offsets) {
            self.pad_to(self.position.next_multiple_of(SECTION_ALIGN_BYTES))?;
            *offset = self.position;
            self.put(section)?;
        }
        let [metadata_offset, index_offset, directory_offset] = offsets;
        let mut header = Header {
            file_bytes: self.position,
            data_offset: self.data_offset(),
            data_bytes: data_end - self.data_offset(),
            metadata_offset,
            metadata_bytes: json.len() as u64,
            index_offset,
            index_bytes: index.len() as u64,
            directory_offset,
            entry_count: self.entries.len() as u64,
            checksum: 0,
        };
        header.checksum = checksum_of(&header.to_bytes()[..HEADER_BYTES - 8], sections);
        self.commit(&header.to_bytes())?;
        Ok(header.file_bytes)
    }

    /// Writes the header last, so that an unfinished file is not a `.pith` file.
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
            // The buffer is full where such a piece ends, and is then written as a whole.
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
    let entry = |tensor: &TensorPlan| -> Result<Entry, FormatError> {
        let shape = (tensor.rows as u64, tensor.cols as u64);
        let bytes = Entry::expected_bytes(tensor.id.role.kind(), tensor.encoding, shape, 0)
            .filter(|&bytes| bytes > 0 || tensor.encoding.is_some_and(Encoding::is_indexed))
            .ok_or(FormatError::TensorSize { tensor: tensor.id, expected_bytes: None, found_bytes: 0 })?;
        let (id, encoding, (rows, cols)) = (tensor.id, tensor.encoding, shape);
        Ok(Entry { id, encoding, rows, cols, offset: 0, bytes, checksum: 0 })
    };
    let mut entries = plan.iter().map(entry).collect::<Result<Vec<_>, FormatError>>()?;
    let mut end = HEADER_BYTES as u64;
    let aligns = alignments(&entries);
    for (entry, align) in entries.iter_mut().zip(aligns) {
        entry.offset = end.next_multiple_of(align);
        end = entry.offset + entry.bytes;
    }
    Ok(entries)
}
/// Alignment of each entry: a cache line. The first entry of a large layer is aligned to a page, so
/// that a layer's pages are not shared where they are read and released together. Padding takes
/// less than 1 % of any large layer.
fn alignments(entries: &[Entry]) -> Vec<u64> {
    let runs = entries.chunk_by(|one, next| one.id.layer == next.id.layer);
    let of_run = |run: &[Entry]| {
        let first = match run.iter().map(|entry| entry.bytes).sum::<u64>() {
            0..0x10_0000 => DATA_ALIGN_BYTES,
            0x10_0000..0x80_0000 => SMALL_PAGE_BYTES,
            0x80_0000.. => PAGE_BYTES,
        };
        std::iter::once(first).chain(std::iter::repeat_n(DATA_ALIGN_BYTES, run.len() - 1)).collect::<Vec<_>>()
    };
    runs.flat_map(of_run).collect()
}

#[cfg(test)]
mod tests;
