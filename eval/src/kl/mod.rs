//! Divergence of a model's probabilities from its original's.
//!
//! `KL = Σ p·ln(p/q)` over the kept tokens of a position, where `p` is the original's probability,
//! plus one term for all other tokens together. Merging tokens never increases a divergence, so
//! this is a lower bound of the true one. Where every token is kept it is exact.

mod comparison;
mod divergence;
mod file;
mod reference;

pub use divergence::{Divergence, TokenDivergence};
pub use reference::{DEFAULT_KEPT, EXACT_VOCAB_LEN, Reference};
