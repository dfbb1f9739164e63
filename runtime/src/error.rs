//! Everything that can go wrong between a file and its text.

use pith_format::{FormatError, TensorId};
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
    /// No logit is a number, so there is nothing to choose from.
    #[error("none of the {vocab_len} logits is a number; the model's weights may be damaged")]
    NoLogit {
        /// Size of the vocabulary.
        vocab_len: usize,
    },
    /// A chat template that cannot be rendered.
    #[error("chat template, line {line}: {message}")]
    Template {
        /// Line of the template, from 1; 0 where it is not known.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The ledger's lines cannot be written.
    #[error("ledger: {0}")]
    Ledger(#[source] std::io::Error),
}
