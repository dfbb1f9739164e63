//! Passes over the weights between checkpoint and file, one file each: changes of basis, lossless
//! repack, rounding.
//!
//! Rounding a row `w` of a matrix to `ŵ` costs `E[((w − ŵ)·x)²] = e H eᵀ` at its output, with
//! inputs `x`, `e = w − ŵ` and `H = E[x xᵀ]`. [`nearest`] uses the diagonal of `H`, [`gptq`] all of
//! it, [`hqq`] the weights alone.
//!
//! To add a pass: a file here with a `Pass`, and its place in the order of `pipeline/prepare.rs`.

pub(crate) mod awq;
mod change;
mod error;
pub mod gptq;
pub(crate) mod group;
pub(crate) mod hadamard;
pub mod hqq;
pub mod nearest;
pub(crate) mod outline;
mod pass;
pub(crate) mod quantizers;
pub(crate) mod repack;
pub(crate) mod residual;
mod rotation;
mod rounded;

pub use error::PassError;
pub use rounded::{Rounded, output_error};

pub(crate) use group::{Codes, Group, Member};
pub(crate) use outline::{Outline, Planned};
pub(crate) use pass::{Extent, Pass, PassReport};
