//! From a checkpoint to a `.pith` file, source → architecture → encoding → file, and back.
#![forbid(unsafe_code)]

mod arch;
pub mod calibration;
mod carry;
mod compress;
mod convert;
mod encode;
mod error;
mod export;
mod prepare;
pub mod quantize;
mod quantized;
mod recipe;
mod report;
mod rounder;
pub mod source;
mod transform;
mod vocabulary;
mod weights;

pub use compress::{CompressOptions, CompressProgress, Compression};
pub use convert::{ConvertOptions, SourceSummary, convert, inspect_source};
pub use error::ConvertError;
pub use export::{ExportOptions, ExportReport, ExportType, export};
pub use recipe::{HeadEncoding, NAMED as NAMED_RECIPES, Override, Quantizer, Recipe, RecipeError};
pub use report::{EncodingTotal, Progress, Report, TensorReport};
pub use rounder::Rounder;
pub use source::SourceError;
pub use transform::Transform;
pub use vocabulary::load_tokenizer;
