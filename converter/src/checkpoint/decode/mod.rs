//! Decoders from stored blocks to f32, one file per kind of format.

pub(crate) mod blocks;
pub(crate) mod codebooks;
pub(crate) mod codes;
mod grids;
pub(crate) mod k_quants;
pub(crate) mod packed;
pub(crate) mod plain;
