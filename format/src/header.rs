//! The first 128 bytes of a file.

use crate::error::FormatError;
use crate::version::{MAGIC, VERSION};

/// Bytes of a directory entry.
pub(crate) const ENTRY_BYTES: usize = 64;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 128;

/// Alignment of every tensor: a cache line.
pub const DATA_ALIGN_BYTES: u64 = 64;

/// Upper bound of the gaps between tensors: the largest page of any system that Pith runs on.
pub const PAGE_BYTES: u64 = 64 << 10;

/// Alignment of metadata, block index and directory.
pub(crate) const SECTION_ALIGN_BYTES: u64 = 8;

/// Positions of a file's sections. All sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub file_bytes: u64,
    pub data_offset: u64,
    pub data_bytes: u64,
    pub metadata_offset: u64,
    pub metadata_bytes: u64,
    pub index_offset: u64,
    pub index_bytes: u64,
    pub directory_offset: u64,
    pub entry_count: u64,
    pub checksum: u64,
}

/// Offset of the checksum, which covers the header's bytes before it, the metadata, the block index
/// and the directory.
pub(crate) const CHECKSUM_OFFSET: usize = HEADER_BYTES - 8;

impl Header {
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        let fields = [
            self.file_bytes,
            self.data_offset,
            self.data_bytes,
            self.metadata_offset,
            self.metadata_bytes,
            self.index_offset,
            self.index_bytes,
            self.directory_offset,
            self.entry_count,
        ];
        for (index, field) in fields.iter().enumerate() {
            bytes[16 + 8 * index..][..8].copy_from_slice(&field.to_le_bytes());
        }
        bytes[CHECKSUM_OFFSET..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    /// Parses the header; on success the sections lie within `file`.
    pub fn parse(file: &[u8]) -> Result<Self, FormatError> {
        let magic = &file[..file.len().min(8)];
        if magic != MAGIC {
            return Err(FormatError::Magic { found: magic.to_vec() });
        }
        let bytes: &[u8; HEADER_BYTES] = file.first_chunk().ok_or(FormatError::FileSize {
            expected_bytes: HEADER_BYTES as u64,
            found_bytes: file.len() as u64,
        })?;
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        match u32_at(8) {
            VERSION => {}
            found @ 0..VERSION => return Err(FormatError::OldVersion { found }),
            found => return Err(FormatError::Version { found }),
        }
        expect("header_bytes", u64::from(u32_at(12)), HEADER_BYTES as u64)?;
        let header = Header {
            file_bytes: u64_at(16),
            data_offset: u64_at(24),
            data_bytes: u64_at(32),
            metadata_offset: u64_at(40),
            metadata_bytes: u64_at(48),
            index_offset: u64_at(56),
            index_bytes: u64_at(64),
            directory_offset: u64_at(72),
            entry_count: u64_at(80),
            checksum: u64_at(CHECKSUM_OFFSET),
        };
        if header.file_bytes != file.len() as u64 {
            return Err(FormatError::FileSize {
                expected_bytes: header.file_bytes,
                found_bytes: file.len() as u64,
            });
        }
        header.check_order(ENTRY_BYTES as u64)?;
        Ok(header)
    }

    /// Checks that sections follow each other without a hole: each begins at the next multiple of
    /// its alignment.
    fn check_order(&self, entry_bytes: u64) -> Result<(), FormatError> {
        let first = HEADER_BYTES as u64..=PAGE_BYTES;
        if !first.contains(&self.data_offset) || !self.data_offset.is_multiple_of(DATA_ALIGN_BYTES) {
            let expected = format!("a multiple of {DATA_ALIGN_BYTES} from {HEADER_BYTES} to {PAGE_BYTES}");
            return Err(FormatError::Header { field: "data_offset", found: self.data_offset, expected });
        }
        let end = |field, offset: u64, bytes: u64| {
            offset.checked_add(bytes).filter(|&end| end <= self.file_bytes).ok_or_else(|| {
                FormatError::Header {
                    field,
                    found: bytes,
                    expected: format!(
                        "at most {}, the bytes left in the file",
                        self.file_bytes.saturating_sub(offset)
                    ),
                }
            })
        };
        let data_end = end("data_bytes", self.data_offset, self.data_bytes)?;
        expect("metadata_offset", self.metadata_offset, data_end.next_multiple_of(SECTION_ALIGN_BYTES))?;
        let metadata_end = end("metadata_bytes", self.metadata_offset, self.metadata_bytes)?;
        expect("index_offset", self.index_offset, metadata_end.next_multiple_of(SECTION_ALIGN_BYTES))?;
        let index_end = end("index_bytes", self.index_offset, self.index_bytes)?;
        let directory_offset = index_end.next_multiple_of(SECTION_ALIGN_BYTES);
        expect("directory_offset", self.directory_offset, directory_offset)?;
        let directory_bytes = self.entry_count.saturating_mul(entry_bytes);
        let directory_end = end("entry_count", self.directory_offset, directory_bytes)?;
        expect("file_bytes", self.file_bytes, directory_end)
    }
}

fn expect(field: &'static str, found: u64, expected: u64) -> Result<(), FormatError> {
    if found == expected {
        Ok(())
    } else {
        Err(FormatError::Header { field, found, expected: expected.to_string() })
    }
}
