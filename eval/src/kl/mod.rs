//! How far a model's probabilities are from its original's.
//!
//! `KL = Σ p·ln(p/q)` over the tokens kept of a position, `p` being the original's, and one term more for all others
//! together. Putting tokens together never makes a divergence larger, so that it is a lower bound of the true one;
//! where every token is kept it is the true one.

mod divergence;
mod file;
mod reference;

pub use divergence::{Divergence, TokenDivergence};
pub use reference::{DEFAULT_KEPT, EXACT_VOCAB_LEN, Reference};
