//! Reading: from a file's bytes to its configuration and tensors.

use crate::config::Metadata;
use crate::directory::Entry;
use crate::encoding::TILE_ROWS;
use crate::error::FormatError;
use crate::header::{CHECKSUM_OFFSET, DATA_ALIGN_BYTES, ENTRY_BYTES, HEADER_BYTES, Header, PAGE_BYTES};
use crate::matrix::Matrix;
use crate::reads::Reads;
use crate::role::{Kind, TensorId};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// A file's checked metadata and directory. It borrows nothing; tensors are reached by passing the
/// same bytes again.
#[derive(Clone, Debug)]
pub struct Index {
    header: Header,
    metadata: Metadata,
    entries: Vec<Entry>,
    positions: HashMap<TensorId, usize>,
    /// Offsets of the blocks, then the end of the last one, for matrices whose blocks differ in
    /// size.
    blocks: HashMap<TensorId, Arc<[u64]>>,
}

/// A tensor or a gap whose bytes were checked by [`Index::verify`].
#[derive(Clone, Debug)]
pub struct Verified {
    /// The tensor; `None` for the padding between sections.
    pub tensor: Option<TensorId>,
    /// Bytes read.
    pub bytes: u64,
}

impl Index {
    /// Parses and checks header, metadata, block index and directory. Tensor data is not touched.
    ///
    /// Afterwards every entry lies within the file, overlaps no other, has the shape required by
    /// the configuration and the bytes required by its shape or blocks, and begins less than a page
    /// after the end of the previous entry.
    pub fn parse(file: &[u8]) -> Result<Self, FormatError> {
        let header = Header::parse(file)?;
        let metadata_bytes = section(file, header.metadata_offset, header.metadata_bytes);
        let block_index = section(file, header.index_offset, header.index_bytes);
        let directory = section(file, header.directory_offset, header.entry_count * ENTRY_BYTES as u64);
        let found = checksum_of(&file[..CHECKSUM_OFFSET], [metadata_bytes, block_index, directory]);
        if found != header.checksum {
            return Err(FormatError::Checksum { expected: header.checksum, found });
        }
        if let Some(at) = file[RESERVED].iter().position(|&byte| byte != 0) {
            let at = RESERVED.start + at;
            return Err(FormatError::Padding { offset: at as u64, found: file[at] });
        }
        let metadata: Metadata = serde_json::from_slice(metadata_bytes).map_err(FormatError::Metadata)?;
        metadata.model.validate()?;
        metadata.sampling.map_or(Ok(()), |sampling| sampling.validate())?;
        let entries = directory
            .as_chunks::<ENTRY_BYTES>()
            .0
            .iter()
            .enumerate()
            .map(|(index, bytes)| Entry::parse(bytes, index, &header, &metadata.model))
            .collect::<Result<Vec<_>, _>>()?;
        let blocks = parse_blocks(&entries, block_index)?;
        let positions = check_entries(&header, &entries)?;
        Ok(Self { header, metadata, entries, positions, blocks })
    }

    /// Configuration, chat template, provenance.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in file order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One tensor, if the file has it.
    pub fn entry(&self, id: TensorId) -> Option<&Entry> {
        self.positions.get(&id).map(|&position| &self.entries[position])
    }

    /// The header's checksum. It covers the directory, which holds each tensor's checksum, so it
    /// identifies the file.
    pub fn checksum(&self) -> u64 {
        self.header.checksum
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.header.file_bytes
    }

    /// The bytes of a tensor of this index. `file` must be the parsed bytes.
    pub fn bytes<'a>(&self, file: &'a [u8], id: TensorId) -> Result<&'a [u8], FormatError> {
        assert_eq!(file.len() as u64, self.header.file_bytes, "not the file that was parsed");
        let entry = self.entry(id).ok_or(FormatError::MissingTensor { tensor: id })?;
        Ok(section(file, entry.offset, entry.bytes))
    }

    /// A matrix of this index. Panics if the role is not a matrix.
    pub fn matrix<'a>(&'a self, file: &'a [u8], id: TensorId) -> Result<Matrix<'a>, FormatError> {
        assert_eq!(id.role.kind(), Kind::Matrix);
        let bytes = self.bytes(file, id)?;
        let entry = self.entry(id).ok_or(FormatError::MissingTensor { tensor: id })?;
        let encoding = entry.encoding.expect("a matrix entry has an encoding");
        let (rows, cols) = (entry.rows as usize, entry.cols as usize);
        match self.blocks.get(&id) {
            Some(blocks) => Matrix::indexed(encoding, rows, cols, bytes, blocks),
            None => Matrix::new(encoding, rows, cols, bytes),
        }
    }

    /// Offsets of a matrix's blocks in its bytes, then the end of the last one; `None` where all
    /// blocks have the same size.
    pub fn blocks(&self, id: TensorId) -> Option<&Arc<[u64]>> {
        self.blocks.get(&id)
    }

    /// Bytes that a decoded token reads of a tensor.
    pub fn reads(&self, entry: &Entry) -> Reads {
        let blocks = entry.rows.div_ceil(TILE_ROWS as u64);
        entry.id.reads(&self.metadata.model, entry.bytes, entry.bytes.div_ceil(blocks))
    }

    /// A vector of this index, copied out. Panics if the role is not a vector.
    pub fn vector(&self, file: &[u8], id: TensorId) -> Result<Vec<f32>, FormatError> {
        assert_eq!(id.role.kind(), Kind::Vector);
        let (values, _) = self.bytes(file, id)?.as_chunks::<4>();
        Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }

    /// Bytes that a decoded token reads of all tensors.
    pub fn total_reads(&self) -> Reads {
        let mut reads = Reads::default();
        self.entries.iter().for_each(|entry| reads += self.reads(entry));
        reads
    }

    /// Reads every byte and checks tensors against their checksums and gaps for zeros. `report` is
    /// called for each sound tensor or gap.
    pub fn verify(&self, file: &[u8], mut report: impl FnMut(Verified)) -> Result<(), FormatError> {
        assert_eq!(file.len() as u64, self.header.file_bytes, "not the file that was parsed");
        for gap in self.gaps() {
            let bytes = &file[gap.start as usize..gap.end as usize];
            if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
                return Err(FormatError::Padding { offset: gap.start + at as u64, found: bytes[at] });
            }
            report(Verified { tensor: None, bytes: gap.end - gap.start });
        }
        for entry in &self.entries {
            let found = crate::checksum(section(file, entry.offset, entry.bytes));
            if found != entry.checksum {
                let (tensor, offset, bytes) = (entry.id, entry.offset, entry.bytes);
                return Err(FormatError::TensorChecksum {
                    tensor,
                    offset,
                    bytes,
                    expected: entry.checksum,
                    found,
                });
            }
            report(Verified { tensor: Some(entry.id), bytes: entry.bytes });
        }
        Ok(())
    }

    /// Byte ranges outside all sections and tensors.
    fn gaps(&self) -> Vec<Range<u64>> {
        let header = &self.header;
        let tensors = self.entries.iter().map(|entry| (entry.offset, entry.bytes));
        let sections = [
            (header.metadata_offset, header.metadata_bytes),
            (header.index_offset, header.index_bytes),
            (header.directory_offset, header.file_bytes - header.directory_offset),
        ];
        let mut end = HEADER_BYTES as u64;
        let mut gaps = Vec::new();
        for (offset, bytes) in tensors.chain(sections) {
            gaps.push(end..offset);
            end = offset + bytes;
        }
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }
}

/// Reserved bytes of the header.
const RESERVED: Range<usize> = 88..CHECKSUM_OFFSET;

/// The header's checksum, over its own first bytes and the sections after the data.
pub(crate) fn checksum_of(header: &[u8], sections: [&[u8]; 3]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(header);
    sections.into_iter().for_each(|section| hash.update(section));
    hash.digest()
}

/// A range that [`Header::parse`] or [`Entry::parse`] has checked to lie within the file.
fn section(file: &[u8], offset: u64, bytes: u64) -> &[u8] {
    &file[offset as usize..(offset + bytes) as usize]
}

/// Checks every entry's bytes against its shape; returns the block offsets of indexed matrices.
fn parse_blocks(entries: &[Entry], block_index: &[u8]) -> Result<HashMap<TensorId, Arc<[u64]>>, FormatError> {
    let expected_bytes = entries
        .iter()
        .try_fold(0u64, |sum, entry| sum.checked_add(entry.indexed_blocks().checked_mul(4)?))
        .unwrap_or(u64::MAX);
    let found_bytes = block_index.len() as u64;
    if expected_bytes != found_bytes {
        return Err(FormatError::BlockIndex { expected_bytes, found_bytes });
    }
    let sizes: Vec<u32> = block_index.as_chunks().0.iter().map(|size| u32::from_le_bytes(*size)).collect();
    let mut left = &sizes[..];
    let mut blocks = HashMap::new();
    for entry in entries {
        let (sizes, rest) = left.split_at(entry.indexed_blocks() as usize);
        left = rest;
        entry.check_bytes(sizes)?;
        if !sizes.is_empty() {
            blocks.insert(entry.id, offsets(sizes));
        }
    }
    Ok(blocks)
}

/// Offsets of blocks with these sizes, in units of [`DATA_ALIGN_BYTES`], then the end of the last
/// one.
fn offsets(sizes: &[u32]) -> Arc<[u64]> {
    let mut end = 0;
    let ends = sizes.iter().map(|&size| {
        end += u64::from(size) * DATA_ALIGN_BYTES;
        end
    });
    std::iter::once(0).chain(ends).collect()
}

fn check_entries(header: &Header, entries: &[Entry]) -> Result<HashMap<TensorId, usize>, FormatError> {
    let mut positions = HashMap::with_capacity(entries.len());
    // Only padding lies between the header and the first entry.
    let mut end = HEADER_BYTES as u64;
    for (index, entry) in entries.iter().enumerate() {
        if !(end..end.saturating_add(PAGE_BYTES)).contains(&entry.offset) {
            let expected = format!("{end}, the end of what lies before it, or less than a page more");
            return Err(FormatError::Entry { index, field: "offset", found: entry.offset, expected });
        }
        if positions.insert(entry.id, index).is_some() {
            return Err(FormatError::DuplicateTensor { tensor: entry.id });
        }
        end = entry.offset + entry.bytes;
    }
    let data_end = header.data_offset + header.data_bytes;
    if end.max(header.data_offset) != data_end {
        return Err(FormatError::Header {
            field: "data_bytes",
            found: header.data_bytes,
            expected: end.saturating_sub(header.data_offset).to_string(),
        });
    }
    Ok(positions)
}
