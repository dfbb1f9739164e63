//! What tokens cost, written down and drawn: ledger files, a page that compares them, metrics for a fleet.
//!
//! A [`LedgerWriter`] writes a line a token as it is decoded; [`LedgerFile::read`] reads such a file back and checks
//! every figure; [`page`] draws any number of them as one self-contained page; [`Metrics`] are the running sums as
//! Prometheus text. `docs/ledger.md` is the specification of the files.
//!
//! Figures are counted, measured, calibrated or modelled, and never mixed. What is not known is missing, never 0.
#![forbid(unsafe_code)]

mod charts;
mod error;
mod fields;
mod header;
mod metrics;
mod page;
mod reader;
mod statistics;
mod svg;
mod tables;
mod timeline;
mod writer;

pub use error::ReportError;
pub use header::{
    Bandwidth, Header, LayerBytes, MachineRecord, MeterRecord, ModelRecord, RoleBytes, RunRecord, SCHEMA,
};
pub use metrics::Metrics;
pub use page::page;
pub use reader::{Entry, LedgerFile, MAX_LINE_BYTES, Warning};
pub use statistics::{Energy, Summary};
pub use writer::{LedgerFormat, LedgerWriter};
