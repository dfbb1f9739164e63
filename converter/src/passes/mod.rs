//! What happens to weights between the checkpoint and the file, one file a pass: changes of basis, exact carrying, rounding.
//!
//! Rounding a row `w` of a matrix to `ŵ` costs `E[((w − ŵ)·x)²] = e H eᵀ` at its output, with inputs `x`, `e = w − ŵ` and
//! `H = E[x xᵀ]`. [`nearest`] looks at the diagonal of `H` alone, [`gptq`] at all of it, [`hqq`] at the weights alone.
//!
//! To add a pass: a file here with a `Pass`, and its place in the order of `pipeline/prepare.rs`.

pub(crate) mod awq;
pub(crate) mod carry;
mod change;
mod error;
pub mod gptq;
pub(crate) mod group;
pub(crate) mod hadamard;
pub mod hqq;
pub mod nearest;
pub(crate) mod outline;
mod pass;
pub(crate) mod quantize;
pub(crate) mod residual;
mod rotation;
mod rounded;

pub use error::PassError;
pub use rounded::{Rounded, output_error};

pub(crate) use group::{Codes, Group, Member};
pub(crate) use outline::{Outline, Planned};
pub(crate) use pass::{Extent, Pass, PassReport};
