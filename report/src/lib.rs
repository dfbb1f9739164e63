//! The cost of tokens in files and charts: ledgers, a page that compares them, metrics for a fleet.
//!
//! A [`LedgerWriter`] writes one line per token while decoding; [`LedgerFile::read`] reads such a
//! file back and checks every figure; [`page`] draws any number of ledgers as one self-contained
//! page; [`Metrics`] gives running sums as Prometheus text. `docs/ledger.md` specifies the files.
//!
//! Figures are counted, measured, calibrated or modelled; the kinds are never mixed. An unknown
//! figure is missing, never 0.
#![forbid(unsafe_code)]

mod charts;
mod entry;
mod error;
mod fields;
mod header;
mod metrics;
mod page;
mod reader;
mod run;
mod statistics;
mod svg;
mod tables;
mod timeline;
mod writer;

pub use entry::Entry;
pub use error::ReportError;
pub use header::{
    Bandwidth, Header, LayerBytes, MachineRecord, MeterRecord, ModelRecord, RoleBytes, RunRecord, SCHEMA,
};
pub use metrics::Metrics;
pub use page::page;
pub use reader::{LedgerFile, MAX_LINE_BYTES, Warning};
pub use statistics::{Energy, Summary};
pub use writer::{LedgerFormat, LedgerWriter};
