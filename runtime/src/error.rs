//! Errors of the runtime.

use pith_format::{FormatError, ReplaceError, TensorId};
use pith_tokenizer::TokenizerError;

/// Any error of a file, an option or a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// Reading the file failed.
    #[error("{path}: {action}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Operation that failed.
        action: &'static str,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The file ends before the model does. It was truncated after it was opened, or was opened
    /// with a wrong offset or length.
    #[error(
        "{path}: the model takes the first {expected_bytes} bytes of the file, which has {found_bytes}; it was truncated, or opened at a wrong offset"
    )]
    FileTooShort {
        /// The file.
        path: String,
        /// Least length of the file.
        expected_bytes: u64,
        /// Length found.
        found_bytes: u64,
    },
    /// A session file cannot be written.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The file is not a valid `.pith` file, or lacks a tensor.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: String,
        /// Cause.
        #[source]
        source: FormatError,
    },
    /// The configuration has no place for one of the file's tensors, so running the file would give
    /// wrong text.
    #[error("{path}: the configuration has no use for tensor {tensor}: {reason}")]
    UnusedTensor {
        /// The file.
        path: String,
        /// The tensor.
        tensor: TensorId,
        /// Reason.
        reason: &'static str,
    },
    /// This runtime cannot run a kind of layer.
    #[error("{path}: layers[{layer_index}]: this version does not run {half} \"{kind}\"")]
    LayerKind {
        /// The file.
        path: String,
        /// Index of the layer.
        layer_index: usize,
        /// Half of the layer: "mixer" or "feed-forward".
        half: &'static str,
        /// The kind, as the file names it.
        kind: &'static str,
    },
    /// The file holds no tokenizer.
    #[error("{path}: the file has no tokenizer; only token ids can be run")]
    NoTokenizer {
        /// The file.
        path: String,
    },
    /// The file's tokenizer cannot be used, or fails on this text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// An option's value is out of range.
    #[error("{option} is {found}, expected {expected}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        found: String,
        /// Allowed values.
        expected: String,
    },
    /// No kernels with this name run on this CPU.
    #[error("no kernels \"{name}\" on this CPU; there are {available}")]
    Kernels {
        /// Name requested.
        name: String,
        /// Names available.
        available: String,
    },
    /// The context is longer than the model was made for.
    #[error(
        "a context of {context_len} tokens is more than the {model_context_len} that the model was made for"
    )]
    ContextTooLong {
        /// Context requested, in tokens.
        context_len: usize,
        /// The model's context, in tokens.
        model_context_len: usize,
    },
    /// An allocation failed.
    #[error("{what} needs {bytes} bytes, which the system does not give; a shorter context needs less")]
    Memory {
        /// Purpose of the allocation.
        what: &'static str,
        /// Size in bytes; `u64::MAX` where it overflows.
        bytes: u64,
    },
    /// The memory limit is too low even with every layer streamed from the disk.
    #[error(
        "{memory_bytes} bytes of memory are too few: at least {least_bytes} are needed; a shorter context needs less"
    )]
    MemoryLimit {
        /// The limit.
        memory_bytes: u64,
        /// The least limit that would suffice.
        least_bytes: u64,
    },
    /// The system refuses to lock weights in memory.
    #[error(
        "cannot lock {bytes} bytes of weights in memory: {source}; raise the limit (ulimit -l) or do not lock"
    )]
    Lock {
        /// Bytes to lock.
        bytes: u64,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {source}; ask for fewer")]
    Threads {
        /// Threads requested.
        threads: usize,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty; at least one token is needed")]
    EmptyPrompt,
    /// A token outside the vocabulary.
    #[error("token {index} of the prompt is {token}, the vocabulary has {vocab_len}")]
    Token {
        /// Its index in the input.
        index: usize,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab_len: usize,
    },
    /// More tokens than the context holds.
    #[error("{new} more tokens after {position} do not fit in a context of {context_len}")]
    ContextFull {
        /// Tokens already in the context.
        position: usize,
        /// Tokens to append.
        new: usize,
        /// Length of the context.
        context_len: usize,
    },
    /// A sequence of a batch cannot take its token, or does not belong in the batch.
    #[error("sequence {index} of the batch: {source}")]
    Sequence {
        /// Its index in the batch.
        index: usize,
        /// Cause.
        #[source]
        source: Box<RuntimeError>,
    },
    /// The draft model's vocabulary differs from the model's.
    #[error(
        "{draft} cannot draft for {model}: token {token} is {found} in the first, {expected} in the other"
    )]
    Vocabulary {
        /// The draft model's file.
        draft: String,
        /// The file it should draft for.
        model: String,
        /// The first token that differs.
        token: u32,
        /// Its spelling in the draft model.
        found: String,
        /// Its spelling in the model.
        expected: String,
    },
    /// A thread panicked while computing: a bug, or faulty memory.
    #[error("computing failed: {message}; the tokens were not appended")]
    Panic {
        /// The panic's message.
        message: String,
    },
    /// No token can be chosen: every logit is NaN or −∞.
    #[error("none of the {vocab_len} logits is a number; the model's weights may be damaged")]
    NoLogit {
        /// Size of the vocabulary.
        vocab_len: usize,
    },
    /// The file is not a saved session.
    #[error("{path}: not a session file: it begins with {found:02x?}")]
    SessionMagic {
        /// The file.
        path: String,
        /// The bytes found, fewer where the file is shorter.
        found: Vec<u8>,
    },
    /// A saved session of another version.
    #[error("{path}: session file of version {found}, this program reads version 1; save it anew")]
    SessionVersion {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
    },
    /// A saved session's length differs from its header's.
    #[error(
        "{path}: the session file should have {expected_bytes} bytes and has {found_bytes}; it was truncated or altered"
    )]
    SessionSize {
        /// The file.
        path: String,
        /// Length by the header.
        expected_bytes: u64,
        /// Length found.
        found_bytes: u64,
    },
    /// A saved session fails a checksum.
    #[error(
        "{path}: checksum of the session's {part} is {found:016x}, expected {expected:016x}; the file is damaged"
    )]
    SessionDamaged {
        /// The file.
        path: String,
        /// Part that the checksum covers.
        part: &'static str,
        /// Checksum in the file.
        expected: u64,
        /// Checksum of the bytes.
        found: u64,
    },
    /// A number in a saved session is out of range.
    #[error("{path}: {field} is {found}, expected {expected}")]
    SessionField {
        /// The file.
        path: String,
        /// The number's name.
        field: &'static str,
        /// Its value.
        found: u64,
        /// Allowed values.
        expected: String,
    },
    /// The saved keys and values do not belong to this session's model or options.
    #[error("{place}: the session was made with {what} {found}, this one has {expected}")]
    SessionMismatch {
        /// The file, or the other session.
        place: String,
        /// The property that differs.
        what: &'static str,
        /// Its value in the saved session.
        found: String,
        /// Its value in this session.
        expected: String,
    },
    /// A saved sequence is longer than the context.
    #[error("{path}: {token_count} tokens do not fit in a context of {context_len}; ask for a longer one")]
    SessionTooLong {
        /// The file, or the other session.
        path: String,
        /// Length of the sequence.
        token_count: u64,
        /// Length of the context.
        context_len: usize,
    },
    /// A chat template cannot be rendered.
    #[error("chat template, line {line}: {message}")]
    Template {
        /// Line of the template, from 1; 0 where unknown.
        line: usize,
        /// Cause.
        message: String,
    },
}

/// Fails unless `value` is between 1 and `most`.
pub(crate) fn at_least_one(option: &'static str, value: usize, most: usize) -> Result<usize, RuntimeError> {
    if (1..=most).contains(&value) {
        return Ok(value);
    }
    let expected = if most == usize::MAX { "at least 1".into() } else { format!("1 to {most}") };
    Err(RuntimeError::Option { option, found: value.to_string(), expected })
}
