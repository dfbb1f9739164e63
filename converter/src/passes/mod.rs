//! What happens to weights between the checkpoint and the file: changes of basis, rounding, exact carrying.
//!
//! A row `w` of a matrix meets inputs `x`; what rounding it to `ŵ` costs is `E[((w − ŵ)·x)²] = e H eᵀ` with `e = w − ŵ` and
//! `H = E[x xᵀ]`. [`nearest`] looks at the diagonal of `H` alone, [`gptq`] at all of it, [`hqq`] at the weights alone.

pub(crate) mod awq;
pub(crate) mod calibrated;
pub(crate) mod carry;
pub(crate) mod change;
mod error;
pub mod gptq;
pub(crate) mod hadamard;
pub mod hqq;
pub mod nearest;
mod rotation;
mod rounded;

pub use error::PassError;
pub use rounded::{Rounded, output_error};
