//! Questions with one right answer each.
//!
//! An item is right if greedy decoding of its prompt gives the answer's tokens: at each position of
//! the answer, the most likely token is the answer's. One pass over prompt and answer checks all
//! positions, since up to the first wrong token both ways see the same text.

mod items;
mod report;
mod score;

pub use items::{Item, parse_items, read_items, select_items};
pub use report::{Flips, TaskReport, TaskResult};
pub use score::{Question, questions, score};
