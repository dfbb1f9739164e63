//! Everything that can stop an evaluation.

use crate::windows::Scored;
use pith_format::ReplaceError;
use pith_runtime::RuntimeError;
use std::path::PathBuf;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum EvalError {
    /// The model cannot be run on that.
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
    /// A logit that no probability can come of.
    #[error(
        "window {window}, position {position}: the logit of token {token} is {value}, expected a finite number"
    )]
    NotFinite { window: usize, position: usize, token: usize, value: f32 },
    /// The models have no common tokens.
    #[error(
        "the vocabulary has {found} tokens, the reference's has {reference}: they are not models of one vocabulary"
    )]
    VocabularyLength { reference: usize, found: usize },
    /// The same ids, but other tokens.
    #[error(
        "tokens of the reference's text are spelled otherwise by this model: they are not models of one vocabulary"
    )]
    Vocabulary,
    /// Keeping no token leaves nothing to compare.
    #[error("the tokens kept of a position are {found}, expected at least 1")]
    Kept { found: usize },
    /// The system does not give the memory.
    #[error(
        "a reference of {position_count} positions with {kept_len} tokens each needs {bytes} bytes, which the system \
        does not give; keep fewer tokens, or score fewer"
    )]
    Memory { position_count: usize, kept_len: usize, bytes: u64 },
    /// The system does not give or take the file.
    #[error("{}: {action}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: std::io::Error },
    /// The reference cannot be written, or must not be.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// Another kind of file.
    #[error("{} is no reference of `pith eval kl`: it begins with {found:02x?}", path.display())]
    NotAReference { path: PathBuf, found: Vec<u8> },
    /// A reference of a later Pith.
    #[error("{} is a reference of version {found}, this program reads version {expected}; make it anew", path.display())]
    ReferenceVersion { path: PathBuf, found: u32, expected: u32 },
    /// A reference cut short, or with something behind it.
    #[error("{} has {found} bytes, its beginning says {expected}; make it anew", path.display())]
    ReferenceSize { path: PathBuf, expected: u64, found: u64 },
    /// A reference that was changed.
    #[error("{} is damaged: the checksum is {found:016x}, expected {expected:016x}; make it anew", path.display())]
    ReferenceDamaged { path: PathBuf, expected: u64, found: u64 },
    /// A reference whose parts do not belong together.
    #[error("{}: {field} is {found}, expected {expected}", path.display())]
    ReferenceField { path: PathBuf, field: &'static str, found: String, expected: String },
    /// A line of tasks that is no item.
    #[error("{}: line {line}: {reason}", path.display())]
    Item { path: PathBuf, line: usize, reason: String },
    /// A field of an item.
    #[error("{}: line {line}: field {field}: {reason}", path.display())]
    ItemField { path: PathBuf, line: usize, field: &'static str, reason: String },
    /// Nothing to ask.
    #[error("{} has no items", path.display())]
    NoItems { path: PathBuf },
    /// No such task.
    #[error("{} has no task {task:?}; there are {known}", path.display())]
    UnknownTask { path: PathBuf, task: String, known: String },
}
