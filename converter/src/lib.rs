//! From a checkpoint to a `.pith` file, checkpoint → passes → encoding → file, and back.
#![forbid(unsafe_code)]

pub mod checkpoint;
mod compression;
mod error;
mod export;
mod identity;
pub mod passes;
mod pipeline;
mod recipe;
mod report;
mod scan;
pub mod statistics;

pub use checkpoint::{CheckpointError, load_tokenizer};
pub use compression::{CompressOptions, Compression};
pub use error::ConvertError;
pub use export::{ExportOptions, ExportReport, ExportType, export};
pub use pipeline::{
    ConvertOptions, QuantizedSource, Rounder, SourceSummary, convert, input_files, inspect_source,
};
pub use recipe::{
    DEFAULT as DEFAULT_RECIPES, DEFAULT_DIVERGENCE, HeadEncoding, NAMED as NAMED_RECIPES, Override,
    Quantizer, Recipe, RecipeError, Transform,
};
pub use report::{EncodingTotal, Report, TensorReport};
