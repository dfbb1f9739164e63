//! Errors of a tokenizer, its source, its blob or its input.

/// Errors of making, opening or using a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The blob does not begin with the tokenizer's magic number.
    #[error("not a tokenizer blob: it begins with {found:02x?}, expected {expected:02x?}")]
    Magic {
        /// The magic number.
        expected: [u8; 8],
        /// The first bytes of the blob, zero-filled.
        found: [u8; 8],
    },
    /// The blob was written by another version.
    #[error(
        "tokenizer blob has version {found}, this build reads version {expected}: convert the model again"
    )]
    Version {
        /// The version this build reads.
        expected: u32,
        /// The version in the blob.
        found: u32,
    },
    /// The blob's checksum does not match its bytes.
    #[error("tokenizer blob is damaged: checksum {found:016x}, expected {expected:016x}")]
    Checksum {
        /// The checksum written in the blob.
        expected: u64,
        /// The checksum of the blob's bytes.
        found: u64,
    },
    /// A field of the blob is out of range.
    #[error("tokenizer blob, byte {offset}: {what} is {found}, at most {limit} fits")]
    Field {
        /// Offset of the field.
        offset: usize,
        /// The field.
        what: &'static str,
        /// The largest valid value.
        limit: u64,
        /// The value found.
        found: u64,
    },
    /// The blob ends inside a field.
    #[error("tokenizer blob, byte {offset}: it ends inside {what}")]
    Truncated {
        /// Offset of the field.
        offset: usize,
        /// The field.
        what: &'static str,
    },
    /// A source, or the settings in a blob, break its format.
    #[error("{place}: {reason}")]
    Malformed {
        /// The file, or the part of it.
        place: &'static str,
        /// The reason.
        reason: String,
    },
    /// A component that this crate does not support.
    #[error("{place}: `{found}` is not supported, only {supported}")]
    Unsupported {
        /// The file, or the part of it.
        place: &'static str,
        /// The component.
        found: String,
        /// The components supported instead.
        supported: &'static str,
    },
    /// A pre-tokenizer name that is not in the table.
    #[error("unknown pre-tokenizer `{found}`, the known ones are {known}")]
    PreTokenizer {
        /// The name asked for.
        found: String,
        /// Every known name.
        known: String,
    },
    /// A token's id leaves a larger hole in the vocabulary than its size justifies.
    #[error("{place}: token {token:?} has id {id}, a vocabulary of this size ends below {limit}")]
    IdTooLarge {
        /// The file, or the part of it.
        place: &'static str,
        /// The token.
        token: String,
        /// Its id.
        id: u64,
        /// The bound.
        limit: u64,
    },
    /// Something refers to a token that the vocabulary does not have.
    #[error("{place}: token {token:?} is not in the vocabulary")]
    MissingToken {
        /// The referring part.
        place: &'static str,
        /// The token.
        token: String,
    },
    /// An id beyond the vocabulary, or an id without a token.
    #[error("{place}: no token has id {id}, the vocabulary has {vocab_len}")]
    MissingId {
        /// The referring part.
        place: &'static str,
        /// The id.
        id: u32,
        /// The vocabulary's length.
        vocab_len: usize,
    },
    /// A pattern that does not compile or is too large.
    #[error("pattern {pattern:?}: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The reason.
        reason: String,
    },
    /// The text cannot be encoded.
    #[error("text of {text_bytes} bytes cannot be encoded: {reason}")]
    Encode {
        /// The length of the text.
        text_bytes: usize,
        /// The reason.
        reason: String,
    },
}

impl TokenizerError {
    pub(crate) fn malformed(place: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { place, reason: reason.to_string() }
    }

    pub(crate) fn encode(text: &str, reason: impl std::fmt::Display) -> Self {
        Self::Encode { text_bytes: text.len(), reason: reason.to_string() }
    }
}
