//! Everything that can go wrong between a file and its text.

use pith_format::{FormatError, ReplaceError, TensorId};
use pith_tokenizer::TokenizerError;

/// A file, an option or a request that cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The system does not give the file.
    #[error("{path}: {action}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The file ends before the model does: it was truncated after it was opened, or an offset and a length were given
    /// that it does not have.
    #[error(
        "{path}: the model takes the first {expected_bytes} bytes of the file, which has {found_bytes}; it was truncated, or opened at a wrong offset"
    )]
    FileTooShort {
        /// The file.
        path: String,
        /// Bytes that it must have, from its beginning.
        expected_bytes: u64,
        /// What it has.
        found_bytes: u64,
    },
    /// A session's file cannot be written, or must not be.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The file is not a sound `.pith` file, or lacks a tensor.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// The file holds a tensor that its configuration gives no place, so that running it would give other text than
    /// was meant.
    #[error("{path}: the configuration has no use for tensor {tensor}: {reason}")]
    UnusedTensor {
        /// The file.
        path: String,
        /// The tensor.
        tensor: TensorId,
        /// Why.
        reason: &'static str,
    },
    /// A layer is of a kind that this runtime cannot run.
    #[error("{path}: layers[{layer_index}]: this version does not run {half} \"{kind}\"")]
    LayerKind {
        /// The file.
        path: String,
        /// Index of the layer.
        layer_index: usize,
        /// Which half of it: "mixer" or "feed-forward".
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
    /// The file's tokenizer cannot be used, or not on this text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// An option's value cannot be.
    #[error("{option} is {found}, expected {expected}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// No kernels of that name run on this CPU.
    #[error("no kernels \"{name}\" on this CPU; there are {available}")]
    Kernels {
        /// The name asked for.
        name: String,
        /// The names there are.
        available: String,
    },
    /// The session would be longer than the model was made for.
    #[error(
        "a context of {context_len} tokens is more than the {model_context_len} that the model was made for"
    )]
    ContextTooLong {
        /// The context asked for, in tokens.
        context_len: usize,
        /// The model's.
        model_context_len: usize,
    },
    /// The system does not give the memory.
    #[error("{what} needs {bytes} bytes, which the system does not give; a shorter context needs less")]
    Memory {
        /// What it is for.
        what: &'static str,
        /// How much; `u64::MAX` where the number is larger than can be counted.
        bytes: u64,
    },
    /// The memory allowed is less than a session needs with every layer read from the disk.
    #[error(
        "{memory_bytes} bytes of memory are too few: at least {least_bytes} are needed; a shorter context needs less"
    )]
    MemoryLimit {
        /// What is allowed.
        memory_bytes: u64,
        /// What would do.
        least_bytes: u64,
    },
    /// The system does not permit to keep weights in memory.
    #[error(
        "cannot lock {bytes} bytes of weights in memory: {source}; raise the limit (ulimit -l) or do not lock"
    )]
    Lock {
        /// How much was to be locked.
        bytes: u64,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The system does not give the threads.
    #[error("cannot start {threads} threads: {source}; ask for fewer")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty; at least one token is needed")]
    EmptyPrompt,
    /// A token that the model does not have.
    #[error("token {index} of the prompt is {token}, the vocabulary has {vocab_len}")]
    Token {
        /// Its position in what was given.
        index: usize,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab_len: usize,
    },
    /// More tokens than the context holds.
    #[error("{new} more tokens after {position} do not fit in a context of {context_len}")]
    ContextFull {
        /// Tokens already there.
        position: usize,
        /// Tokens that should follow.
        new: usize,
        /// What the session holds.
        context_len: usize,
    },
    /// A sequence of a batch that cannot take its token, or cannot be in the batch.
    #[error("sequence {index} of the batch: {source}")]
    Sequence {
        /// Its place in the batch.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: Box<RuntimeError>,
    },
    /// A draft model whose tokens are not the model's.
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
        /// What it is in the draft model.
        found: String,
        /// What it is in the other.
        expected: String,
    },
    /// A thread panicked while it computed: a bug, or memory that failed.
    #[error("computing failed: {message}; the tokens were not appended")]
    Panic {
        /// What the thread said.
        message: String,
    },
    /// No logit is a number, so there is nothing to choose from.
    #[error("none of the {vocab_len} logits is a number; the model's weights may be damaged")]
    NoLogit {
        /// Size of the vocabulary.
        vocab_len: usize,
    },
    /// A file that is no saved session.
    #[error("{path}: not a session file: it begins with {found:02x?}")]
    SessionMagic {
        /// The file.
        path: String,
        /// The bytes found, fewer where the file is shorter.
        found: Vec<u8>,
    },
    /// A saved session of another version of this program.
    #[error("{path}: session file of version {found}, this program reads version 1; save it anew")]
    SessionVersion {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
    },
    /// A saved session that is shorter or longer than its header says.
    #[error(
        "{path}: the session file should have {expected_bytes} bytes and has {found_bytes}; it was truncated or altered"
    )]
    SessionSize {
        /// The file.
        path: String,
        /// What the header says.
        expected_bytes: u64,
        /// What there is.
        found_bytes: u64,
    },
    /// A saved session that does not match a checksum.
    #[error(
        "{path}: checksum of the session's {part} is {found:016x}, expected {expected:016x}; the file is damaged"
    )]
    SessionDamaged {
        /// The file.
        path: String,
        /// What the checksum covers.
        part: &'static str,
        /// What the file says.
        expected: u64,
        /// What the bytes give.
        found: u64,
    },
    /// A number in a saved session cannot be.
    #[error("{path}: {field} is {found}, expected {expected}")]
    SessionField {
        /// The file.
        path: String,
        /// The number's name.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What it must be.
        expected: String,
    },
    /// Keys and values that this session would not have computed.
    #[error("{place}: the session was made with {what} {found}, this one has {expected}")]
    SessionMismatch {
        /// The file, or the other session.
        place: String,
        /// What differs.
        what: &'static str,
        /// There.
        found: String,
        /// Here.
        expected: String,
    },
    /// A saved sequence that the context has no room for.
    #[error("{path}: {token_count} tokens do not fit in a context of {context_len}; ask for a longer one")]
    SessionTooLong {
        /// The file, or the other session.
        path: String,
        /// Its tokens.
        token_count: u64,
        /// What the session holds.
        context_len: usize,
    },
    /// A chat template that cannot be rendered.
    #[error("chat template, line {line}: {message}")]
    Template {
        /// Line of the template, from 1; 0 where it is not known.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// An option that must be between 1 and `most`.
pub(crate) fn at_least_one(option: &'static str, value: usize, most: usize) -> Result<usize, RuntimeError> {
    if (1..=most).contains(&value) {
        return Ok(value);
    }
    let expected = if most == usize::MAX { "at least 1".into() } else { format!("1 to {most}") };
    Err(RuntimeError::Option { option, found: value.to_string(), expected })
}
