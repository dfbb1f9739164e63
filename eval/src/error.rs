//! Errors of an evaluation.

use crate::scored::Scored;
use pith_format::ReplaceError;
use pith_runtime::RuntimeError;
use std::path::PathBuf;

/// Reason why an evaluation gave no figure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum EvalError {
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// No token of a window would be scored.
    #[error(
        "in windows of {context_len} tokens none is scored ({scored}); 3 are the least, 2 where all are scored"
    )]
    Context { context_len: usize, scored: Scored },
    /// The text does not fill a window.
    #[error(
        "the text gives {token_count} tokens, a window needs {context_len}; give more text or a shorter context"
    )]
    ShortText { token_count: usize, context_len: usize },
    /// A logit is not finite.
    #[error(
        "window {window}, position {position}: the logit of token {token} is {value}, expected a finite number"
    )]
    NotFinite { window: usize, position: usize, token: usize, value: f32 },
    /// The vocabularies differ in length.
    #[error(
        "the vocabulary has {found} tokens, the reference's has {reference}: they are not models of one vocabulary"
    )]
    VocabularyLength { reference: usize, found: usize },
    /// The vocabularies spell the same ids differently.
    #[error(
        "tokens of the reference's text are spelled otherwise by this model: they are not models of one vocabulary"
    )]
    Vocabulary,
    /// At least one token must be kept per position.
    #[error("the tokens kept of a position are {found}, expected at least 1")]
    Kept { found: usize },
    /// An allocation failed.
    #[error(
        "a reference of {position_count} positions with {kept_len} tokens each needs {bytes} bytes, which the system \
        does not give; keep fewer tokens, or score fewer"
    )]
    Memory { position_count: usize, kept_len: usize, bytes: u64 },
    /// Reading or writing a file failed.
    #[error("{}: {action}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: std::io::Error },
    /// The reference cannot be written.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The file is not a reference.
    #[error("{} is no reference of `pith eval kl`: it begins with {found:02x?}", path.display())]
    NotAReference { path: PathBuf, found: Vec<u8> },
    /// The reference has another version.
    #[error("{} is a reference of version {found}, this program reads version {expected}; make it anew", path.display())]
    ReferenceVersion { path: PathBuf, found: u32, expected: u32 },
    /// The reference is truncated, or has extra bytes.
    #[error("{} has {found} bytes, its beginning says {expected}; make it anew", path.display())]
    ReferenceSize { path: PathBuf, expected: u64, found: u64 },
    /// The reference's checksum does not match.
    #[error("{} is damaged: the checksum is {found:016x}, expected {expected:016x}; make it anew", path.display())]
    ReferenceDamaged { path: PathBuf, expected: u64, found: u64 },
    /// The parts of a reference contradict each other.
    #[error("{}: {field} is {found}, expected {expected}", path.display())]
    ReferenceField { path: PathBuf, field: &'static str, found: String, expected: String },
    /// A line of a task file is not an item.
    #[error("{}: line {line}: {reason}", path.display())]
    Item { path: PathBuf, line: usize, reason: String },
    /// A field of an item is wrong.
    #[error("{}: line {line}: field {field}: {reason}", path.display())]
    ItemField { path: PathBuf, line: usize, field: &'static str, reason: String },
    /// The task file has no items.
    #[error("{} has no items", path.display())]
    NoItems { path: PathBuf },
    /// No item has this task.
    #[error("{} has no task {task:?}; there are {known}", path.display())]
    UnknownTask { path: PathBuf, task: String, known: String },
}
