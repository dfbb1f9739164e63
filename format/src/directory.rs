//! The directory: one entry of 64 bytes a tensor.

use crate::encoding::Encoding;
use crate::error::FormatError;
use crate::header::{DATA_ALIGN_BYTES, Header};
use crate::role::{Role, Scope, TensorId};

/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: usize = 64;

/// In the layer field of the model's own tensors.
const NO_LAYER: u32 = u32::MAX;

/// In the encoding field of vectors and bytes.
const NO_ENCODING: u8 = u8::MAX;

/// What the bytes of an entry are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tiles of an [`Encoding`].
    Matrix,
    /// f32, one after the other; never quantized.
    Vector,
    /// Bytes with a meaning of their own.
    Bytes,
}

impl Kind {
    fn tag(self) -> u8 {
        match self {
            Kind::Matrix => 0,
            Kind::Vector => 1,
            Kind::Bytes => 2,
        }
    }
}

/// One tensor: what it is, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Role and layer.
    pub id: TensorId,
    /// `None` for vectors and bytes.
    pub encoding: Option<Encoding>,
    /// Rows of a matrix, length of a vector, number of bytes.
    pub rows: u64,
    /// Columns of a matrix, otherwise 1.
    pub cols: u64,
    /// From the beginning of the file.
    pub offset: u64,
    /// Length, the padding of rows and columns included.
    pub bytes: u64,
    /// [`checksum`](crate::checksum) of those bytes.
    pub checksum: u64,
}

impl Entry {
    /// What its bytes are.
    pub fn kind(&self) -> Kind {
        self.id.role.kind()
    }

    /// Bytes that its shape needs; `None` where they overflow.
    pub(crate) fn expected_bytes(
        kind: Kind,
        encoding: Option<Encoding>,
        rows: u64,
        cols: u64,
    ) -> Option<u64> {
        match (kind, encoding) {
            (Kind::Matrix, Some(encoding)) => encoding.matrix_bytes(rows, cols),
            (Kind::Vector, None) if cols == 1 => rows.checked_mul(4),
            (Kind::Bytes, None) if cols == 1 => Some(rows),
            _ => None,
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let layer = self.id.layer.map_or(NO_LAYER, |layer| layer as u32);
        bytes[..2].copy_from_slice(&self.id.role.tag().to_le_bytes());
        bytes[2] = self.kind().tag();
        bytes[3] = self.encoding.map_or(NO_ENCODING, Encoding::tag);
        bytes[4..8].copy_from_slice(&layer.to_le_bytes());
        for (index, field) in
            [self.rows, self.cols, self.offset, self.bytes, self.checksum].iter().enumerate()
        {
            bytes[8 + 8 * index..][..8].copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Reads an entry and checks it against the header; order and overlap are the index's to check.
    pub(crate) fn parse(
        bytes: &[u8; ENTRY_BYTES],
        index: usize,
        header: &Header,
        layer_count: usize,
    ) -> Result<Self, FormatError> {
        let wrong =
            |field, found: u64, expected: String| FormatError::Entry { index, field, found, expected };
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let tag = u16::from_le_bytes([bytes[0], bytes[1]]);
        let role = Role::from_tag(tag)
            .ok_or_else(|| wrong("role", tag.into(), "a role of this format version".into()))?;
        let kind = role.kind();
        if bytes[2] != kind.tag() {
            return Err(wrong("kind", bytes[2].into(), format!("{}, as {} has it", kind.tag(), role.name())));
        }
        let encoding = match (kind, Encoding::from_tag(bytes[3])) {
            (Kind::Matrix, Some(encoding)) => Some(encoding),
            (Kind::Vector | Kind::Bytes, None) if bytes[3] == NO_ENCODING => None,
            (Kind::Matrix, None) => {
                return Err(wrong("encoding", bytes[3].into(), "an encoding of this format version".into()));
            }
            _ => {
                return Err(wrong(
                    "encoding",
                    bytes[3].into(),
                    format!("{NO_ENCODING} for what is no matrix"),
                ));
            }
        };
        let layer_field = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
        let layer = match role.scope() {
            Scope::Model if layer_field == NO_LAYER => None,
            Scope::Layer if (layer_field as usize) < layer_count => Some(layer_field as usize),
            Scope::Model => return Err(wrong("layer", layer_field.into(), format!("{NO_LAYER}, no layer"))),
            Scope::Layer => return Err(wrong("layer", layer_field.into(), format!("below {layer_count}"))),
        };
        let id = TensorId { role, layer };
        if let Some(at) = bytes[48..].iter().position(|&byte| byte != 0) {
            return Err(wrong("reserved", bytes[48 + at].into(), "0".into()));
        }
        let entry = Entry {
            id,
            encoding,
            rows: u64_at(8),
            cols: u64_at(16),
            offset: u64_at(24),
            bytes: u64_at(32),
            checksum: u64_at(40),
        };
        let expected_bytes = Self::expected_bytes(kind, encoding, entry.rows, entry.cols);
        if entry.rows == 0 || entry.cols == 0 || expected_bytes != Some(entry.bytes) {
            return Err(FormatError::TensorSize { tensor: id, expected_bytes, found_bytes: entry.bytes });
        }
        let data_end = header.data_offset + header.data_bytes;
        if !entry.offset.is_multiple_of(DATA_ALIGN_BYTES) || entry.offset < header.data_offset {
            let expected = format!("a multiple of {DATA_ALIGN_BYTES} from {} on", header.data_offset);
            return Err(wrong("offset", entry.offset, expected));
        }
        if entry.offset.checked_add(entry.bytes).is_none_or(|end| end > data_end) {
            let left = data_end.saturating_sub(entry.offset);
            return Err(wrong("bytes", entry.bytes, format!("at most {left}, the data left")));
        }
        Ok(entry)
    }
}
