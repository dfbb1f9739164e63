//! Reading: from a file's bytes to its configuration and tensors.

use crate::config::Metadata;
use crate::directory::{ENTRY_BYTES, Entry, Kind};
use crate::error::FormatError;
use crate::header::{CHECKSUM_OFFSET, DATA_ALIGN_BYTES, HEADER_BYTES, Header, LAYER_ALIGN_BYTES};
use crate::matrix::Matrix;
use crate::role::TensorId;
use std::collections::HashMap;
use std::ops::Range;
use xxhash_rust::xxh3::Xxh3;

/// A file's metadata and directory, checked. It borrows nothing; hand it the same bytes again to reach a tensor.
#[derive(Clone, Debug)]
pub struct Index {
    header: Header,
    metadata: Metadata,
    entries: Vec<Entry>,
    positions: HashMap<TensorId, usize>,
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
    /// Parses and checks header, metadata and directory. Tensor data is not touched.
    ///
    /// After this every entry lies within the file, overlaps no other, leaves no hole beyond its alignment, and has
    /// the shape that the configuration asks for.
    pub fn parse(file: &[u8]) -> Result<Self, FormatError> {
        let header = Header::parse(file)?;
        let metadata_bytes = section(file, header.metadata_offset, header.metadata_bytes);
        let directory = section(file, header.directory_offset, header.entry_count * ENTRY_BYTES as u64);
        let found = checksum_of(&file[..CHECKSUM_OFFSET], metadata_bytes, directory);
        if found != header.checksum {
            return Err(FormatError::Checksum { expected: header.checksum, found });
        }
        if let Some(at) = file[72..CHECKSUM_OFFSET].iter().position(|&byte| byte != 0) {
            return Err(FormatError::Padding { offset: 72 + at as u64, found: file[72 + at] });
        }
        let metadata: Metadata = serde_json::from_slice(metadata_bytes).map_err(FormatError::Metadata)?;
        metadata.model.validate()?;
        let layer_count = metadata.model.layers.len();
        let entries = directory
            .as_chunks::<ENTRY_BYTES>()
            .0
            .iter()
            .enumerate()
            .map(|(index, bytes)| Entry::parse(bytes, index, &header, layer_count))
            .collect::<Result<Vec<_>, _>>()?;
        let positions = check_entries(&header, &metadata, &entries)?;
        Ok(Self { header, metadata, entries, positions })
    }

    /// Configuration, chat template, provenance.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in the order in which they lie.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One tensor, if the file has it.
    pub fn entry(&self, id: TensorId) -> Option<&Entry> {
        self.positions.get(&id).map(|&position| &self.entries[position])
    }

    /// The header's checksum. The directory is part of it and holds each tensor's, so it tells files apart.
    pub fn checksum(&self) -> u64 {
        self.header.checksum
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.header.file_bytes
    }

    /// The bytes of a tensor of this index. `file` must be what was parsed.
    pub fn bytes<'a>(&self, file: &'a [u8], id: TensorId) -> Result<&'a [u8], FormatError> {
        assert_eq!(file.len() as u64, self.header.file_bytes, "not the file that was parsed");
        let entry = self.entry(id).ok_or(FormatError::MissingTensor { tensor: id })?;
        Ok(section(file, entry.offset, entry.bytes))
    }

    /// A matrix of this index. Panics if the role is not one of a matrix.
    pub fn matrix<'a>(&self, file: &'a [u8], id: TensorId) -> Result<Matrix<'a>, FormatError> {
        assert_eq!(id.role.kind(), Kind::Matrix);
        let bytes = self.bytes(file, id)?;
        let entry = self.entry(id).ok_or(FormatError::MissingTensor { tensor: id })?;
        let encoding = entry.encoding.expect("a matrix entry has an encoding");
        Matrix::new(encoding, entry.rows as usize, entry.cols as usize, bytes)
    }

    /// A vector of this index, copied out. Panics if the role is not one of a vector.
    pub fn vector(&self, file: &[u8], id: TensorId) -> Result<Vec<f32>, FormatError> {
        assert_eq!(id.role.kind(), Kind::Vector);
        let (values, _) = self.bytes(file, id)?.as_chunks::<4>();
        Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }

    /// Reads every byte: each tensor against its checksum, each gap for zeros. `report` hears of what is sound.
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

    /// The stretches that belong to no section and no tensor.
    fn gaps(&self) -> Vec<Range<u64>> {
        let header = &self.header;
        let tensors = self.entries.iter().map(|entry| (entry.offset, entry.bytes));
        let sections = [
            (header.metadata_offset, header.metadata_bytes),
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

/// The checksum that the header carries.
pub(crate) fn checksum_of(header: &[u8], metadata: &[u8], directory: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(header);
    hash.update(metadata);
    hash.update(directory);
    hash.digest()
}

/// A range that [`Header::parse`] or [`Entry::parse`] found to lie within the file.
fn section(file: &[u8], offset: u64, bytes: u64) -> &[u8] {
    &file[offset as usize..(offset + bytes) as usize]
}

/// Where a tensor begins that follows `end`: on its line, or on its page where a layer begins or ends.
pub(crate) fn next_offset(end: u64, previous: Option<TensorId>, next: TensorId) -> u64 {
    let same_run = previous.is_some_and(|previous| previous.layer == next.layer);
    end.next_multiple_of(if same_run { DATA_ALIGN_BYTES } else { LAYER_ALIGN_BYTES })
}

fn check_entries(
    header: &Header,
    metadata: &Metadata,
    entries: &[Entry],
) -> Result<HashMap<TensorId, usize>, FormatError> {
    let mut positions = HashMap::with_capacity(entries.len());
    let (mut end, mut previous) = (header.data_offset, None);
    for (index, entry) in entries.iter().enumerate() {
        let expected = next_offset(end, previous, entry.id);
        if entry.offset != expected {
            let expected = format!("{expected}, right behind the tensor before it");
            return Err(FormatError::Entry { index, field: "offset", found: entry.offset, expected });
        }
        if positions.insert(entry.id, index).is_some() {
            return Err(FormatError::DuplicateTensor { tensor: entry.id });
        }
        let shape = entry.id.role.shape(&metadata.model, entry.id.layer.unwrap_or(0));
        if let Some(expected) = shape
            && (expected.0 as u64, expected.1 as u64) != (entry.rows, entry.cols)
        {
            return Err(FormatError::TensorShape {
                tensor: entry.id,
                expected,
                found: (entry.rows, entry.cols),
            });
        }
        (end, previous) = (entry.offset + entry.bytes, Some(entry.id));
    }
    let data_end = header.data_offset + header.data_bytes;
    if end != data_end {
        return Err(FormatError::Header {
            field: "data_bytes",
            found: header.data_bytes,
            expected: (end - header.data_offset).to_string(),
        });
    }
    Ok(positions)
}
