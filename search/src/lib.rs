//! Which encoding each matrix of a model gets, so that a budget of bytes or joules keeps most of what the model knows.
//!
//! 1. The KL divergence that each matrix causes alone at each [`Choice`], the others dense: [`Damages`].
//! 2. Of all combinations within the budget the one with the smallest sum, by [dynamic programming](knapsack).
//! 3. A short evolution from there on the divergence itself, since damages do not quite add up.
//! 4. The file, through [`Compression`](pith_converter::Compression), beside the best uniform recipe that is no larger.
//!
//! Every measurement goes to a [`Journal`] at once: a search that was interrupted goes on where it stopped.
#![forbid(unsafe_code)]

mod bench;
mod budget;
mod choice;
mod damage;
mod error;
mod evolution;
mod files;
mod journal;
pub mod knapsack;
mod outcome;
mod plan;
mod random;
mod search;
mod space;
mod tiles;

pub use budget::{Budget, EnergyRule};
pub use choice::Choice;
pub use damage::{Damage, Damages};
pub use error::SearchError;
pub use journal::{Journal, Subject};
pub use outcome::{Outcome, Row};
pub use search::{DEFAULT_GENERATIONS, SearchOptions, search};
pub use space::{Assignment, Space, Tensor};
