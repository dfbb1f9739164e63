//! From a checkpoint to a `.pith` file: source → architecture → passes → file.
#![forbid(unsafe_code)]

pub mod source;

pub use source::SourceError;
