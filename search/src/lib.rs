//! Search for the encoding of each matrix that loses the least under a budget of bytes or joules.
//!
//! 1. Measure the [`Sensitivities`]: the KL divergence of each matrix at each [`Choice`], with all
//!    other matrices dense.
//! 2. Minimise their sum within the budget by [dynamic programming](knapsack).
//! 3. Refine that assignment by a short evolution on the true divergence, because sensitivities do
//!    not quite add up.
//! 4. Write the file through [`Compression`](pith_converter::Compression) and compare it with the
//!    best uniform recipe that is no larger.
//!
//! Every measurement goes to a [`Journal`] at once, so an interrupted search resumes where it
//! stopped.
#![forbid(unsafe_code)]

mod bench;
mod budget;
mod choice;
mod error;
mod evolution;
mod files;
mod journal;
pub mod knapsack;
mod outcome;
mod plan;
mod random;
mod search;
mod sensitivity;
mod space;
mod tiles;

pub use budget::{Budget, EnergyRule};
pub use choice::Choice;
pub use error::SearchError;
pub use journal::{Journal, Subject};
pub use outcome::{Outcome, Row};
pub use search::{DEFAULT_GENERATIONS, SearchOptions, search};
pub use sensitivity::{Sensitivities, Sensitivity};
pub use space::{Assignment, Space, Tensor};
