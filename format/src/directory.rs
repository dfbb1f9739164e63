//! The directory: one entry of 64 bytes per tensor.

use crate::config::ModelConfig;
use crate::encoding::{Encoding, TILE_ROWS};
use crate::error::FormatError;
use crate::header::{DATA_ALIGN_BYTES, ENTRY_BYTES, Header};
use crate::role::{Kind, Role, Scope, TensorId};

/// Layer field of tensors of the model, and expert field of tensors that belong to no expert.
const NONE: u32 = u32::MAX;

/// Encoding field of vectors and bytes.
const NO_ENCODING: u8 = u8::MAX;

/// One tensor: identity, shape, place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Role, layer and expert.
    pub id: TensorId,
    /// `None` for vectors and bytes.
    pub encoding: Option<Encoding>,
    /// Rows of a matrix, length of a vector, number of bytes.
    pub rows: u64,
    /// Columns of a matrix, otherwise 1.
    pub cols: u64,
    /// Offset from the beginning of the file.
    pub offset: u64,
    /// Length, including the padding of rows and columns.
    pub bytes: u64,
    /// [`checksum`](crate::checksum) of the bytes.
    pub checksum: u64,
}

impl Entry {
    /// Form of the bytes.
    pub fn kind(&self) -> Kind {
        self.id.role.kind()
    }

    /// Number of blocks of 16 rows in the block index; 0 for tensors without an index.
    pub(crate) fn indexed_blocks(&self) -> u64 {
        let is_indexed = self.encoding.is_some_and(Encoding::is_indexed);
        if is_indexed { self.rows.div_ceil(TILE_ROWS as u64) } else { 0 }
    }

    /// Bytes required by the shape; `None` on overflow. Where blocks differ in size: `indexed`, the
    /// sum of the block sizes.
    pub(crate) fn expected_bytes(
        kind: Kind,
        encoding: Option<Encoding>,
        (rows, cols): (u64, u64),
        indexed: u64,
    ) -> Option<u64> {
        match (kind, encoding) {
            (Kind::Matrix, Some(encoding)) if encoding.is_indexed() => Some(indexed),
            (Kind::Matrix, Some(encoding)) => encoding.matrix_bytes(rows, cols),
            (Kind::Vector, None) if cols == 1 => rows.checked_mul(4),
            (Kind::Bytes, None) if cols == 1 => Some(rows),
            _ => None,
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let number = |index: Option<usize>| index.map_or(NONE, |index| index as u32).to_le_bytes();
        bytes[..2].copy_from_slice(&self.id.role.tag().to_le_bytes());
        bytes[2] = self.kind().tag();
        bytes[3] = self.encoding.map_or(NO_ENCODING, Encoding::tag);
        bytes[4..8].copy_from_slice(&number(self.id.layer));
        bytes[8..12].copy_from_slice(&number(self.id.expert));
        for (index, field) in
            [self.rows, self.cols, self.offset, self.bytes, self.checksum].iter().enumerate()
        {
            bytes[16 + 8 * index..][..8].copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Parses an entry and checks it against the header and the model.
    ///
    /// The index checks the rest: bytes against shape ([`Entry::check_bytes`]), and the order of
    /// entries.
    pub(crate) fn parse(
        bytes: &[u8; ENTRY_BYTES],
        index: usize,
        header: &Header,
        model: &ModelConfig,
    ) -> Result<Self, FormatError> {
        let wrong =
            |field, found: u64, expected: String| FormatError::Entry { index, field, found, expected };
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let tag = u16::from_le_bytes([bytes[0], bytes[1]]);
        let role = Role::from_tag(tag)
            .ok_or_else(|| wrong("role", tag.into(), "a role that this version knows".into()))?;
        let kind = role.kind();
        if bytes[2] != kind.tag() {
            return Err(wrong("kind", bytes[2].into(), format!("{}, as {} has it", kind.tag(), role.name())));
        }
        let encoding = match (kind, Encoding::from_tag(bytes[3])) {
            (Kind::Matrix, Some(encoding)) => Some(encoding),
            (Kind::Vector | Kind::Bytes, None) if bytes[3] == NO_ENCODING => None,
            (Kind::Matrix, None) => {
                return Err(wrong("encoding", bytes[3].into(), "an encoding that this version knows".into()));
            }
            _ => {
                let expected = format!("{NO_ENCODING} for what is no matrix");
                return Err(wrong("encoding", bytes[3].into(), expected));
            }
        };
        let reserved = (12..16).chain(56..ENTRY_BYTES).find(|&at| bytes[at] != 0);
        if let Some(at) = reserved {
            return Err(wrong("reserved", bytes[at].into(), "0".into()));
        }
        let id = Self::parse_id(role, [u32_at(4), u32_at(8)], index, model)?;
        let entry = Entry {
            id,
            encoding,
            rows: u64_at(16),
            cols: u64_at(24),
            offset: u64_at(32),
            bytes: u64_at(40),
            checksum: u64_at(48),
        };
        entry.check_shape(model)?;
        if !entry.offset.is_multiple_of(DATA_ALIGN_BYTES) || entry.offset < header.data_offset {
            let expected = format!("a multiple of {DATA_ALIGN_BYTES} from {} on", header.data_offset);
            return Err(wrong("offset", entry.offset, expected));
        }
        let data_end = header.data_offset + header.data_bytes;
        if entry.offset.checked_add(entry.bytes).is_none_or(|end| end > data_end) {
            let left = data_end.saturating_sub(entry.offset);
            return Err(wrong("bytes", entry.bytes, format!("at most {left}, the data left")));
        }
        Ok(entry)
    }

    /// The layer and expert of an entry; the model must have them.
    fn parse_id(
        role: Role,
        [layer, expert]: [u32; 2],
        index: usize,
        model: &ModelConfig,
    ) -> Result<TensorId, FormatError> {
        let wrong = |field, found: u32, expected: String| {
            Err(FormatError::Entry { index, field, found: found.into(), expected })
        };
        let layer_count = model.layers.len();
        let layer = match role.scope() {
            Scope::Model if layer == NONE => None,
            Scope::Layer if (layer as usize) < layer_count => Some(layer as usize),
            Scope::Model => return wrong("layer", layer, format!("{NONE}, no layer")),
            Scope::Layer => return wrong("layer", layer, format!("below {layer_count}")),
        };
        let experts = layer.and_then(|layer| model.layers[layer].experts()).filter(|_| role.is_of_expert());
        let expert = match experts {
            None if expert == NONE => None,
            Some(experts) if (expert as usize) < experts.count => Some(expert as usize),
            None => return wrong("expert", expert, format!("{NONE}, no expert")),
            Some(experts) => return wrong("expert", expert, format!("below {}", experts.count)),
        };
        Ok(TensorId { role, layer, expert })
    }

    /// Checks rows and columns against the configuration; a byte tensor may have any length.
    fn check_shape(&self, model: &ModelConfig) -> Result<(), FormatError> {
        let (tensor, found) = (self.id, (self.rows, self.cols));
        match tensor.shape(model) {
            Some((rows, cols)) if (rows as u64, cols as u64) == found => Ok(()),
            Some(expected) => Err(FormatError::TensorShape { tensor, expected, found }),
            None if self.kind() == Kind::Bytes => Ok(()),
            None => Err(FormatError::ForeignTensor { tensor, layer: describe(tensor, model) }),
        }
    }

    /// Checks the tensor's bytes against its shape. `blocks`: its block sizes from the block index.
    pub(crate) fn check_bytes(&self, blocks: &[u32]) -> Result<(), FormatError> {
        let indexed = blocks.iter().map(|&size| u64::from(size) * DATA_ALIGN_BYTES).sum();
        let expected_bytes =
            Self::expected_bytes(self.kind(), self.encoding, (self.rows, self.cols), indexed);
        if self.rows == 0 || self.cols == 0 || expected_bytes != Some(self.bytes) {
            return Err(FormatError::TensorSize { tensor: self.id, expected_bytes, found_bytes: self.bytes });
        }
        Ok(())
    }
}

/// The kinds of mixer and feed-forward block of a tensor's layer.
fn describe(tensor: TensorId, model: &ModelConfig) -> String {
    let layer = tensor.layer.and_then(|index| model.layers.get(index));
    layer.map_or("the model".into(), |layer| {
        format!(
            "a layer of mixer \"{}\" and feed-forward \"{}\"",
            layer.mixer.kind(),
            layer.feed_forward.kind()
        )
    })
}
