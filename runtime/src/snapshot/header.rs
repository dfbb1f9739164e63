//! Header of a session file, and the conditions for a session to use it.

use crate::cache::{KvType, LayerCache};
use crate::error::RuntimeError;
use crate::rope::frequencies;
use crate::session::Session;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Not text: a text-mode transfer changes it visibly.
pub(super) const MAGIC: [u8; 8] = *b"\x89PSES\r\x1a\n";

/// The version written, and the only one read.
pub(super) const VERSION: u32 = 1;

pub(super) const HEADER_BYTES: usize = 128;

/// Offset of the checksum, which covers the header's other bytes.
const CHECKSUM_OFFSET: usize = HEADER_BYTES - 8;

/// Everything that a sequence's keys and values depend on besides its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Checksum of the model file; it covers each tensor's checksum.
    pub model: u64,
    /// Checksum of the rotary frequencies; a model may choose them by context length.
    pub rope: u64,
    /// [`KvType::tag`].
    pub kv_type: u32,
    pub layer_count: u32,
    /// Bytes of keys and values per position, all layers together.
    pub position_bytes: u64,
}

impl Identity {
    pub fn of(session: &Session) -> Self {
        let mut rope = Xxh3::new();
        for table in &session.model.config().rope {
            let inv_freq = frequencies(table, session.context_len);
            rope.update(&(inv_freq.len() as u64).to_le_bytes());
            inv_freq.iter().chain([&table.magnitude]).for_each(|value| rope.update(&value.to_le_bytes()));
        }
        Self {
            model: session.model.index().checksum(),
            rope: rope.digest(),
            kv_type: session.kv_type.tag(),
            layer_count: session.caches.len() as u32,
            position_bytes: session.caches.iter().map(LayerCache::position_bytes).sum(),
        }
    }

    /// Checks that a session of `expected` would compute the keys and values of `self`, which lie
    /// at `place`.
    pub fn check(&self, place: &str, expected: &Self) -> Result<(), RuntimeError> {
        let mismatch = |what, found, expected| {
            Err(RuntimeError::SessionMismatch { place: place.into(), what, found, expected })
        };
        let hex = |checksum: u64| format!("{checksum:016x}");
        let kv_name = |tag: u32| {
            let kind = KvType::ALL.into_iter().find(|kind| kind.tag() == tag);
            kind.map_or_else(|| tag.to_string(), |kind| kind.to_string())
        };
        if self.model != expected.model {
            return mismatch("model", hex(self.model), hex(expected.model));
        }
        if self.kv_type != expected.kv_type {
            return mismatch("cache type", kv_name(self.kv_type), kv_name(expected.kv_type));
        }
        if self.rope != expected.rope {
            return mismatch("rotary frequencies", hex(self.rope), hex(expected.rope));
        }
        if self.layer_count != expected.layer_count {
            let counts = [self.layer_count, expected.layer_count].map(|count| count.to_string());
            let [found, expected] = counts;
            return mismatch("number of layers", found, expected);
        }
        if self.position_bytes != expected.position_bytes {
            let [found, expected] = [self.position_bytes, expected.position_bytes].map(|b| b.to_string());
            return mismatch("number of bytes a position", found, expected);
        }
        Ok(())
    }
}

/// The parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub identity: Identity,
    pub token_count: u64,
    /// Number of logits of the last token; 0 where they were not saved.
    pub logit_count: u64,
    /// Checksum of everything after the header.
    pub body_checksum: u64,
}

impl Header {
    /// Length of the whole file; `None` on overflow.
    pub fn file_bytes(&self) -> Option<u64> {
        let cache = self.token_count.checked_mul(self.identity.position_bytes)?;
        let numbers = self.token_count.checked_add(self.logit_count)?.checked_mul(4)?;
        cache.checked_add(numbers)?.checked_add(HEADER_BYTES as u64)
    }

    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &(HEADER_BYTES as u32).to_le_bytes());
        put(16, &self.file_bytes().expect("counted by the session that is saved").to_le_bytes());
        put(24, &self.identity.model.to_le_bytes());
        put(32, &self.identity.rope.to_le_bytes());
        put(40, &self.identity.kv_type.to_le_bytes());
        put(44, &self.identity.layer_count.to_le_bytes());
        put(48, &self.token_count.to_le_bytes());
        put(56, &self.identity.position_bytes.to_le_bytes());
        put(64, &self.logit_count.to_le_bytes());
        put(112, &self.body_checksum.to_le_bytes());
        let checksum = xxh3_64(&bytes[..CHECKSUM_OFFSET]);
        bytes[CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Parses the header of a file of `found_bytes`. `bytes`: its first bytes, up to
    /// [`HEADER_BYTES`].
    pub fn parse(path: &str, bytes: &[u8], found_bytes: u64) -> Result<Self, RuntimeError> {
        let magic = &bytes[..bytes.len().min(MAGIC.len())];
        if magic != MAGIC {
            return Err(RuntimeError::SessionMagic { path: path.into(), found: magic.to_vec() });
        }
        let size =
            |expected_bytes| RuntimeError::SessionSize { path: path.into(), expected_bytes, found_bytes };
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(size(HEADER_BYTES as u64))?;
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if u32_at(8) != VERSION {
            return Err(RuntimeError::SessionVersion { path: path.into(), found: u32_at(8) });
        }
        let (expected, found) = (u64_at(CHECKSUM_OFFSET), xxh3_64(&bytes[..CHECKSUM_OFFSET]));
        if found != expected {
            return Err(RuntimeError::SessionDamaged { path: path.into(), part: "header", expected, found });
        }
        let header = Header {
            identity: Identity {
                model: u64_at(24),
                rope: u64_at(32),
                kv_type: u32_at(40),
                layer_count: u32_at(44),
                position_bytes: u64_at(56),
            },
            token_count: u64_at(48),
            logit_count: u64_at(64),
            body_checksum: u64_at(112),
        };
        let field = |field, found, expected: u64| RuntimeError::SessionField {
            path: path.into(),
            field,
            found,
            expected: expected.to_string(),
        };
        if u32_at(12) != HEADER_BYTES as u32 {
            return Err(field("header_bytes", u64::from(u32_at(12)), HEADER_BYTES as u64));
        }
        let file_bytes = header.file_bytes().unwrap_or(u64::MAX);
        if u64_at(16) != file_bytes {
            return Err(field("file_bytes", u64_at(16), file_bytes));
        }
        if file_bytes != found_bytes {
            return Err(size(file_bytes));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let identity = Identity { model: 1, rope: 2, kv_type: 1, layer_count: 3, position_bytes: 96 };
        Header { identity, token_count: 5, logit_count: 7, body_checksum: 11 }
    }

    /// The header's bytes with one field replaced and the checksum recomputed.
    fn forged(at: usize, field: &[u8]) -> [u8; HEADER_BYTES] {
        let mut bytes = header().to_bytes();
        bytes[at..at + field.len()].copy_from_slice(field);
        let checksum = xxh3_64(&bytes[..CHECKSUM_OFFSET]);
        bytes[CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let bytes = header().to_bytes();
        let file_bytes = 128 + 5 * 4 + 7 * 4 + 5 * 96;
        assert_eq!(Header::parse("x", &bytes, file_bytes).unwrap(), header());
    }

    #[test]
    fn lengths_that_do_not_add_up_are_named() {
        let error = |bytes: &[u8]| Header::parse("x", bytes, 656).unwrap_err().to_string();
        assert_eq!(error(&forged(12, &[127])), "x: header_bytes is 127, expected 128");
        assert!(error(&forged(16, &657u64.to_le_bytes())).contains("file_bytes is 657, expected 656"));
        for at in [48, 56, 64] {
            let message = error(&forged(at, &u64::MAX.to_le_bytes()));
            assert!(message.contains(&format!("expected {}", u64::MAX)), "{message}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let message = Header::parse("x", &forged(8, &[2]), 656).unwrap_err().to_string();
        assert!(message.contains("version 2") && message.contains("version 1"), "{message}");
    }
}
