//! From a checkpoint to a `.pith` file, source → architecture → encoding → file, and back.
#![forbid(unsafe_code)]

mod arch;
mod carry;
mod convert;
mod encode;
mod error;
mod export;
mod recipe;
mod report;
pub mod source;
mod vocabulary;
mod weights;

pub use convert::{ConvertOptions, SourceSummary, convert, inspect_source};
pub use error::ConvertError;
pub use export::{ExportOptions, ExportReport, ExportType, export};
pub use recipe::{HeadEncoding, Recipe};
pub use report::{EncodingTotal, Progress, Report, TensorReport};
pub use source::SourceError;
pub use vocabulary::load_tokenizer;
