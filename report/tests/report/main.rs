//! Ledgers written, read back, damaged and drawn.

mod common;
mod files;
mod metrics;
mod pages;
